"""Networks that come as a file: ``--backbone FILE.py:Class``."""

import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file

import engram as face
from engram.backbone import brought
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.saved.weights import load_weights
from engram.backbone.weights import WEIGHTS

MINE = """
    from typing import Literal
    import torch.nn.functional as F
    from torch import nn

    class Net(nn.Module):
        def __init__(self, in_channels, width: int = 4, kind: Literal["a", "b"] = "a", drop: float | None = None):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(in_channels, width, 3, padding=1), nn.Linear(width * 64, 10)

        def forward(self, x):
            x = F.relu(self.conv(x))
            return F.log_softmax(self.fc(x.view(x.size(0), -1)), dim=1)

    class Staged(nn.Module):
        steps, readout, stage_channels = 1, "mean", ()

        def __init__(self, in_shape):
            super().__init__()
            self.in_shape, self.feature_dim = in_shape, 6
            self.fc = nn.Linear(64, 6)

        def stages(self, x):
            return []

        def forward_steps(self, x):
            return self.forward(x).unsqueeze(0)

        def forward(self, x):
            return self.fc(x.flatten(1))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.delenv(brought.VARIABLE, raising=False)
    monkeypatch.setenv(brought.VARIABLE, "")
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(MINE))
    return path


def built(name, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(name, options, (1, 8, 8), 10, torch.zeros(1), torch.ones(1))


def test_a_classifier_becomes_a_backbone_and_a_head_that_computes_the_same(mine):
    registry = Registry.discover()
    name = registry.chosen("backbones", f"{mine}:Net")
    assert name == f"mine.py:Net@{brought.find(f'{mine}:Net').sha256[:16]}"
    assert {"torch"} <= set(sys.modules) and "mine" not in sys.modules
    model = built(name, width=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names: dict = {}
        exec(compile(mine.read_text(), "mine", "exec"), names)
        own = names["Net"](1, width=3)
    x = torch.rand(5, 1, 8, 8)
    assert model.backbone.feature_dim == 192
    assert torch.equal(model(x).log_softmax(1), own(x))
    assert torch.equal(model.backbone.forward_steps(x), model.backbone(x).unsqueeze(0))


def test_a_backbone_under_the_contract_is_taken_as_it_is(mine):
    model = built(Registry.discover().chosen("backbones", f"{mine}:Staged"))
    assert type(model.backbone).__name__ == "Staged" and model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_saved_one_asks_for_the_code_again(mine, tmp_path, made_of, monkeypatch):
    name = Registry.discover().chosen("backbones", f"{mine}:Net")
    model = built(name, width=3)
    data = {"classes": tuple(map(str, range(10))), "in_shape": (1, 8, 8)}
    save_model(tmp_path / "model", model, made_of(name, {"width": 3}, **data))
    assert str(tmp_path) not in (tmp_path / "model" / "model.json").read_text()
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(load_model(tmp_path / "model")[0](x), model.eval()(x))
    monkeypatch.setenv(brought.VARIABLE, "")  # as another process has it
    planted = tmp_path / "model" / "mine.py"
    planted.write_text("raise SystemExit('imported from a folder of a trial')")
    with pytest.raises(
        UserError, match=r"code mine.py:Net of a network must be given again.*got none. Set ENGRAM_CODE"
    ):
        face.load(tmp_path / "model")
    assert torch.equal(face.load(tmp_path / "model", code=f"{mine}:Net").module(x), model(x))
    monkeypatch.setenv(brought.VARIABLE, "")
    mine.write_text(mine.read_text() + "# changed\n")
    with pytest.raises(UserError, match=r"must be given again as it was \(sha256 .*got .*mine.py with sha256"):
        face.load(tmp_path / "model", code=f"{mine}:Net")


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        ("class Net:\n  def __init__(self, n): pass", "arguments of mine.py:Net@.* must be given defaults.*got n"),
        (
            "class Net:\n  def __init__(self, n=f()): pass",
            r"the default of argument 'n' .* must be a plain value; got f\(\)",
        ),
        (
            "class Net:\n  def __init__(self, n: list = 3): pass",
            "the type of argument 'n' .* must be int, .*; got list",
        ),
        ("class Net:\n  def __init__(self, n: int.__class__ = 3): pass", "must be int, .*; got int.__class__"),
        ("class Other: pass", r"a class of .*mine.py must be one that is written there \(Other\); got Net"),
        ("class Net(:", "the file .*mine.py must be Python"),
        ("class Net: pass", "must be a class of networks"),
        (
            "from torch import nn\nclass Net(nn.Conv2d):\n  def __init__(self): super().__init__(1, 2, 3)",
            "one nn.Linear",
        ),
        (
            "from torch import nn\nclass Net(nn.Sequential):\n  def __init__(self, n=9):\n"
            "    super().__init__(nn.Flatten(), nn.Linear(n, 2))",
            r"what goes into the head of mine.py:Net@.* must be \[1, 9\]; got \[1, 64\]",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(mine, cls, said):
    mine.write_text(cls)
    registry = Registry.discover()
    with pytest.raises(UserError, match=said):
        registry.options("backbones", f"{mine}:Net")
        built(registry.chosen("backbones", f"{mine}:Net"))
    with pytest.raises(UserError, match="a Python file that can be read"):
        registry.chosen("backbones", f"{mine.parent / 'none.py'}:Net")
    with pytest.raises(UserError, match=r"code must be of a module that can be found; got 'no.such.module'"):
        registry.chosen("backbones", "no.such.module:Net")


@pytest.mark.slow
def test_the_command_line_plans_and_trains_it(mine, here):
    def plan(*more):
        done = here("run", "backbone.train", "--backbone", f"{mine}:Net", "--epochs", 1, *more, "--dry-run", "--json")
        return done if done.code else done.json["trials"][0]

    first, wide = plan(), plan("--backbone.width", 8)
    assert first["config"]["backbone_options"] == {"width": 4, "kind": "a", "drop": None}
    assert wide["config"]["backbone_options"]["width"] == 8 and wide["trial"] != first["trial"]
    wrong = plan("--backbone.width", "x", "--backbone.knid", "a")
    assert wrong.code == 2 and any(
        "--backbone.width must be a whole number; got x" in line for line in wrong.complaints
    )
    moved = mine.parent / "elsewhere" / "mine.py"
    moved.parent.mkdir()
    moved.write_text(mine.read_text())
    done = here("run", "backbone.train", "--backbone", f"{moved}:Net", "--epochs", 1, "--json", "--device", "cpu")
    assert done.json["trial"] == first["trial"] and done.json["metrics"]["test/accuracy"] > 0.5
    mine.write_text(mine.read_text() + "# changed\n")
    assert plan()["trial"] != first["trial"]


def test_weights_from_a_file(mine, tmp_path, here, monkeypatch):
    monkeypatch.setenv(WEIGHTS.variable, "")
    name = Registry.discover().chosen("backbones", f"{mine}:Net")
    own, x = built(name, width=3), torch.rand(4, 1, 8, 8)
    own.backbone.net.conv.bias.data.fill_(0.5)
    held = {**own.backbone.net.state_dict(), "fc.weight": own.head.weight + 1, "fc.bias": own.head.bias}
    expected = torch.nn.functional.linear(own.backbone(x), held["fc.weight"], held["fc.bias"])
    torch.save(held, tmp_path / "own.pt")
    save_file(held, tmp_path / "own.safetensors")
    torch.save({"state_dict": {**held, "fc.weight": torch.zeros(3, 192)}}, tmp_path / "other.pt")
    for path in ("own.pt", "own.safetensors"):
        fresh = built(name, width=3)
        load_weights(fresh, WEIGHTS.find(WEIGHTS.known_as(str(tmp_path / path))))
        assert torch.equal(fresh(x), expected)
    fresh = built(name, width=3)
    load_weights(fresh, tmp_path / "other.pt")  # a head of other classes stays as it is
    assert torch.equal(fresh.backbone(x), own.backbone(x)) and torch.equal(fresh.head.weight, own.head.weight)
    with pytest.raises(UserError, match=r"those of the network; got conv.bias, conv.weight"):
        load_weights(built("mlp"), tmp_path / "own.pt")
    (tmp_path / "bad.pt").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"safetensors, or a state_dict saved with torch.save; got"):
        load_weights(fresh, tmp_path / "bad.pt")

    def plan(file, *more):
        words = (
            "--backbone",
            f"{mine}:Net",
            "--backbone.width",
            3,
            "--weights",
            tmp_path / file,
            "--dry-run",
            "--json",
        )
        return here("run", "backbone.train", *words, *more)

    first = plan("own.pt").json["trials"][0]
    assert first["config"]["weights"].startswith("own.pt@")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "own.pt").write_bytes((tmp_path / "own.pt").read_bytes())
    assert plan("elsewhere/own.pt").json["trials"][0]["trial"] == first["trial"]
    torch.save({**held, "fc.bias": held["fc.bias"] + 1}, tmp_path / "own.pt")
    assert plan("own.pt").json["trials"][0]["trial"] != first["trial"]
    with pytest.raises(UserError, match="given as it was planned"):
        WEIGHTS.find("own.pt@" + "0" * 16)
    missing = plan("none.pt", "--lr", -1)
    assert missing.code == 2 and "--lr must be greater than 0" in missing.err
    assert "--weights must be a file that can be read" in missing.err
