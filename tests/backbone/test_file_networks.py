"""Networks that come as a file of another tool, under a prefix of a plugin's: ``--backbone toynet:FILE``."""

import json
import os
from dataclasses import replace

import pytest
import torch

import engram as face
from engram.backbone.errors import UserError
from engram.backbone.given_files import NETWORKS
from engram.backbone.nets.making import build
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model, save_model

CODE = """
from dataclasses import dataclass
from engram.backbone.contract import Entry, Plugin

ME = "{module}"
PLUGIN = Plugin(name="ztoynet", backbones={{"toynet": Entry(
    target=ME + ":make", content=ME + ":content", options=ME + ":Options", takes_path=True, summary="One layer")}})


@dataclass(frozen=True, kw_only=True)
class Options:
    gain: float = 1.0
    normalise: bool = False


def content(path):
    import json
    from engram.backbone.errors import must
    try:
        return json.dumps({{"outputs": len(json.loads(path.read_bytes()))}})
    except ValueError as error:
        raise must(f"the file {{path}}", "JSON", error, "Mend it.") from None


def make(in_shape, options, content, path):
    import json, math, torch
    from engram.backbone.nets.blocks import FeedForward

    class Toy(FeedForward):
        stage_channels = ()

        def __init__(self):
            super().__init__()
            self.in_shape, self.feature_dim = in_shape, json.loads(content)["outputs"]
            self.raw = not options.normalise
            self.fc = torch.nn.Linear(math.prod(in_shape), self.feature_dim, bias=False)
            if path is not None:
                self.fc.weight.data = torch.tensor(json.loads(path.read_bytes()))

        def features(self, x):
            return options.gain * self.fc(x.flatten(1))

        def image_stages(self, x):
            return []

        def shown_features(self, x, show):
            return self.features(x)

        def initialise(self, module):
            if isinstance(module, torch.nn.Linear) and module.weight.shape == (self.feature_dim, self.feature_dim):
                torch.nn.init.eye_(module.weight)
                torch.nn.init.zeros_(module.bias)

    return Toy()
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A file with a layer for digits, and the plugin that reads it."""
    module = f"ztoynet_plugin_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(CODE.format(module=module))
    info = tmp_path / "ztoynet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ztoynet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[engram.plugins]\nztoynet = {module}:PLUGIN\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(NETWORKS.variable, "")
    path = tmp_path / "net.toy"
    path.write_text(json.dumps(torch.randn(10, 64, generator=torch.Generator().manual_seed(0)).tolist()))
    return path


def built(name, options=None, content=""):
    return build(name, options or {}, (1, 8, 8), 10, torch.zeros(1), torch.ones(1), content=content)


def test_a_network_is_known_by_the_bytes_of_its_file(toy, tmp_path):
    registry = Registry.discover()
    name = registry.chosen("backbones", f"toynet:{toy}")
    assert name.startswith("toynet:net.toy@") and len(name) == len("toynet:net.toy@") + 16
    assert registry.chosen("backbones", name) == name and registry.content(name) == '{"outputs": 10}'
    assert registry.plugin_of("backbones", name) == "ztoynet"
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(built(name)(x), x.flatten(1) @ torch.tensor(json.loads(toy.read_text())).T)
    assert torch.equal(built(name, {"gain": 2.0})(x), 2 * built(name)(x))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "net.toy").write_bytes(toy.read_bytes())
    assert registry.chosen("backbones", f"toynet:{tmp_path}/elsewhere/net.toy") == name
    toy.write_text("[[1.0]]")
    assert registry.chosen("backbones", f"toynet:{toy}") != name


def test_what_cannot_be_read_is_said_in_a_line(toy, monkeypatch):
    registry = Registry.discover()
    with pytest.raises(UserError, match="backbone 'toynet' must be given with a path; got 'toynet'"):
        registry.chosen("backbones", "toynet")
    with pytest.raises(UserError, match=r"the file of --backbone must be a file that can be read; got .*none.toy"):
        registry.chosen("backbones", f"toynet:{toy.parent}/none.toy")
    name = registry.chosen("backbones", f"toynet:{toy}")
    monkeypatch.setenv(NETWORKS.variable, "")
    with pytest.raises(UserError, match=r"given as it was planned \(net.toy@.*Set ENGRAM_NETWORKS=PATH/net.toy"):
        built(name)
    toy.write_text("no")
    with pytest.raises(UserError, match=r"the file .*net.toy must be JSON"):
        registry.chosen("backbones", f"toynet:{toy}")


def test_a_saved_one_needs_no_file(toy, tmp_path, made_of, monkeypatch):
    registry = Registry.discover()
    name = registry.chosen("backbones", f"toynet:{toy}")
    model, x = built(name), torch.rand(3, 1, 8, 8)
    made = made_of(name, {}, classes=tuple(map(str, range(10))), in_shape=(1, 8, 8))
    made = replace(made, backbone=replace(made.backbone, content=registry.content(name)))
    save_model(tmp_path / "model", model, made)
    monkeypatch.setenv(NETWORKS.variable, "")
    toy.unlink()
    assert torch.equal(load_model(tmp_path / "model")[0](x), model.eval()(x))
    assert torch.equal(face.load(tmp_path / "model").module(x), model(x))


@pytest.fixture
def words(toy, here):
    here.env["PYTHONPATH"] = os.pathsep.join([str(toy.parent), here.environment()["PYTHONPATH"]])
    return ("--backbone", f"toynet:{toy}", "--dataset", "digits", "--json", "--device", "cpu")


def test_it_is_scored_as_it_is(words, here):
    scored = here("run", "backbone.evaluate", *words)
    assert scored.code == 0, scored.err
    assert 0 < scored.json["metrics"]["test/accuracy"] < 0.4
    wrong = here("run", "backbone.evaluate", "--backbone", "mlp", "--json")
    assert wrong.code == 2 and "a network that comes with its weights" in wrong.err and "--dataset must be" in wrong.err


@pytest.mark.slow
def test_it_is_trained_on(toy, words, here):
    trained = here("run", "backbone.train", *words, "--epochs", 2)
    assert trained.code == 0, trained.err
    assert trained.json["metrics"]["test/accuracy"] > 0.4
    toy.unlink()
    again = here("run", "backbone.evaluate", "--from", trained.json["trial"], "--json")
    assert again.code == 0, again.err
    assert again.json["metrics"]["test/accuracy"] == trained.json["metrics"]["test/accuracy"]
