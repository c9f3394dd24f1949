import pytest

from engram.backbone.contract import Entry, Plugin, Target
from engram.backbone.errors import UserError, nearest
from engram.backbone.plugin import PLUGIN
from engram.backbone.registry import Registry


def entry(**more):
    return Entry(target="math:pi", summary="A number", **more)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a plugin from source: ``installed(name, code)``, then discover."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name, code, distribution=None):
        module = f"{distribution or name}_plugin_{abs(hash(tmp_path))}"  # imported modules stay for the session
        (tmp_path / f"{module}.py").write_text("from engram.backbone.contract import Entry, Plugin\n" + code)
        info = tmp_path / f"{distribution or name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[engram.plugins]\n{name} = {module}:PLUGIN\n")

    return install


GOOD = "PLUGIN = Plugin(name='good', heads={'good.head': Entry(target='math:pi', summary='A number')})"


def test_a_plugin_is_found_by_its_entry_point(installed):
    installed("zgood", GOOD)
    registry = Registry.discover()
    assert "backbone" in registry.plugins and "zgood" not in registry.broken
    assert registry.load("heads", "good.head") == pytest.approx(3.14159, abs=1e-5)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('needs a licence')", "SystemExit: needs a licence"),
        ("PLUGIN = 3", "is a int, not an engram.backbone.contract.Plugin"),
        ("", "AttributeError"),
        (
            "PLUGIN = Plugin(name='x', backbones={'lenet5': Entry(target='a:b', summary='')})",
            "it offers backbone 'lenet5', which plugin 'backbone' offers already",
        ),
    ],
)
def test_a_broken_plugin_is_a_row_and_fatal_only_when_chosen(installed, code, reason):
    installed("zbroken", code)
    installed("zgood", GOOD)
    registry = Registry.discover()
    assert reason in registry.broken["zbroken"]
    assert "zbroken" not in registry.plugins and {"zgood", "backbone"} <= set(registry.plugins)
    assert registry.entry("backbones", "lenet5") == PLUGIN.backbones["lenet5"]
    with pytest.raises(UserError, match="Plugin 'zbroken' could not be loaded"):
        registry.entry("backbones", "zbroken.net")


def test_two_packages_with_one_plugin_name(installed):
    installed("zgood", GOOD)
    installed("zgood", "PLUGIN = Plugin(name='other')", distribution="other")
    registry = Registry.discover()
    assert "another installed package has a plugin called 'zgood'" in registry.broken["zgood"]


REGISTRY = Registry(
    {
        "a": Plugin(
            name="a",
            backbones={"lenet5": entry(), "lenet7": entry(), "mlp": entry()},
            datasets={"digits": entry(), "folder": entry(takes_path=True)},
            strategies={"a.si": entry(options="math:tau")},
        ),
        "b": Plugin(
            name="b",
            backbones={"vgg": entry()},
            targets=(
                Target(
                    name="t", experiment="e", options={}, metric="m", value=1, tolerance=0, seeds=(0,), protocol="p",
                    source="s", minutes=1,
                ),
            ),
        ),
    }
)  # fmt: skip


def test_names_keep_their_order():
    assert REGISTRY.names("backbones") == ["lenet5", "lenet7", "mlp", "vgg"]
    assert [(plugin, name) for plugin, name, _ in REGISTRY.entries("backbones")][-1] == ("b", "vgg")
    assert list(REGISTRY.targets()) == ["t"]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("backbones", "lenet", "backbone must be a registered name; got 'lenet'. Did you mean lenet"),
        ("backbones", "zzz", "backbone must be a registered name; got 'zzz'. Known: lenet5, lenet7, mlp, vgg."),
        ("strategies", "zzz", "strategy must be a registered name; got 'zzz'. Known: si."),
        ("strategies", "sii", "strategy must be a registered name; got 'sii'. Did you mean si?"),
        ("strategies", "a.sj", "strategy must be a registered name; got 'a.sj'. Did you mean a.si?"),
        ("heads", "zzz", "head must be a registered name; got 'zzz'. There is none."),
        ("datasets", "digit", "Did you mean digits?"),
        ("datasets", "digits:/x", "dataset 'digits' must be given without a path; got 'digits:/x'. Write digits."),
        ("datasets", "digits:", "dataset 'digits' must be given without a path"),
        ("datasets", "folder", "dataset 'folder' must be given with a path; got 'folder'. Write folder:PATH."),
        ("datasets", "folder:", "dataset 'folder' must be given with a path"),
        ("backbones", "lenet5:x", "backbone 'lenet5' must be given without a path; got 'lenet5:x'. Write lenet5."),
    ],
)
def test_wrong_names(kind, name, message):
    with pytest.raises(UserError) as error:
        REGISTRY.entry(kind, name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_right_names():
    assert REGISTRY.entry("datasets", "folder:/a:b/c").takes_path
    assert REGISTRY.entry("datasets", "digits") == entry()
    assert REGISTRY.options("backbones", "mlp") is None
    assert REGISTRY.options("strategies", "a.si") == pytest.approx(6.28318, abs=1e-5)


def test_a_plugin_may_be_left_out_of_a_name_where_nothing_else_is_meant():
    assert REGISTRY.canonical("strategies", "si") == REGISTRY.canonical("strategies", "a.si") == "a.si"
    assert REGISTRY.canonical("datasets", "folder:/a.b/c") == "folder:/a.b/c"
    twice = Registry({name: Plugin(name=name, strategies={f"{name}.si": entry()}) for name in ("a", "b")})
    with pytest.raises(UserError, match=r"got .si.\. Did you mean (a.si or b.si|b.si or a.si)"):
        twice.canonical("strategies", "si")


def test_nearest_without_any_name():
    assert nearest("x", []) == "There is none."


def test_everything_the_trunk_registers_can_be_loaded():
    registry = Registry.discover()
    for kind in ("experiments", "backbones", "heads", "datasets"):
        for name, held in getattr(PLUGIN, kind).items():
            whole = f"{name}:digits" if held.takes_path else name
            assert callable(registry.load(kind, whole))
            options = registry.options(kind, whole)
            assert options is None or options() is not None


def test_the_options_of_what_is_wrapped_are_offered_too():
    registry = Registry.discover()
    both = registry.options("datasets", "corrupted:folder:x")
    assert issubclass(both, registry.options("datasets", "folder:x"))
    assert vars(both(kind="jpeg", size=8, channels=1)).keys() >= {"severity", "name_pattern"}
    assert registry.options("datasets", "corrupted:digits").__name__ == "CorruptedOptions"
    assert registry.wrapped("datasets", "corrupted:folder:x") == "folder:x"
    assert registry.wrapped("datasets", "saccades:digits") is None
    rule = "the dataset that another one wraps must be one without options called corruption_seed, kind, severity"
    with pytest.raises(UserError, match=f"{rule}; got corrupted:digits"):
        registry.entry("datasets", "corrupted:corrupted:digits")
    with pytest.raises(UserError, match=r"got 'digit'\. Did you mean digits\?"):
        registry.entry("datasets", "corrupted:digit")
