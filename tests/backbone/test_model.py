"""A saved network comes back as it was, whatever has changed meanwhile, or is refused in one line."""

import json
import sys
import types
from dataclasses import field, make_dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from engram.backbone.contract import Entry, Named, Plugin
from engram.backbone.errors import UserError
from engram.backbone.nets.making import LINEAR, build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry, resolve
from engram.backbone.saved.made import from_json, to_json
from engram.backbone.saved.model import load_model, save_model
from engram.snn.training.options import SpikingOptions


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


@pytest.fixture
def saved(tmp_path, randomise, made_of):
    """A folder with a model, and the model."""
    options = {"width": 0.5, "pooling": "stride"}
    model = build("resnet-tiny", options, (2, 9, 12), 3, torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4]))
    randomise(model).to(memory_format=torch.channels_last)
    save_model(tmp_path / "model", model, made_of("resnet-tiny", options, in_shape=(2, 9, 12), classes=("a", "b", "é")))
    return tmp_path / "model", model.eval()


def test_a_model_comes_back_bit_for_bit(saved):
    folder, model = saved
    found, made = load_model(folder)
    assert not found.training and made.classes == ("a", "b", "é")
    wanted = model.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    for name, value in found.state_dict().items():
        assert value.dtype == wanted[name].dtype and torch.equal(value, wanted[name]), name
    x = torch.randint(0, 256, (4, 2, 9, 12), dtype=torch.uint8)
    torch.testing.assert_close(found(x), model(x))


def test_any_flipped_byte_of_the_weights_is_one_clear_error(saved):
    folder, _ = saved
    path = folder / "model.safetensors"
    for place in range(0, path.stat().st_size, 9973):
        flip(path, place)
        with pytest.raises(UserError, match=r"a whole trained model must be in .*sha256.* Train it again\."):
            load_model(folder)
        flip(path, place)
    load_model(folder)


def test_a_flipped_byte_of_the_manifest_is_never_a_crash(saved):
    folder, _ = saved
    path = folder / "model.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        flip(path, place)
        try:
            load_model(folder)
        except UserError as error:
            assert "\n" not in str(error)
        path.write_bytes(whole)


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors"])
def test_a_missing_file(saved, missing):
    folder, _ = saved
    (folder / missing).unlink()
    with pytest.raises(UserError, match=r"a whole trained model must be in .*got FileNotFoundError"):
        load_model(folder)


def rewrite(folder, **changes):
    """Another model.json, with changes to the entries of its parts: ``backbone={"name": "mlp"}``."""
    whole = json.loads((folder / "model.json").read_text())
    for key, change in changes.items():
        part = whole.get(key)
        whole[key] = {**part, **change} if isinstance(part, dict) and isinstance(change, dict) else change
    (folder / "model.json").write_text(json.dumps(whole))


def test_weights_of_another_network(saved):
    folder, _ = saved
    rewrite(folder, backbone={"name": "vgg-tiny"})
    with pytest.raises(UserError, match=r"got RuntimeError: Error\(s\) in loading state_dict"):
        load_model(folder)


HUGE = [
    {"in_shape": [2, 60_000, 60_000]},
    {"in_shape": [2, 8000, 8000]},
    {"backbone": {"name": "mlp", "options": {"width": 64, "depth": 64}}},
]


@pytest.mark.parametrize("asked", HUGE, ids=str)
def test_a_manifest_cannot_ask_for_more_than_its_weights(saved, asked):
    """Nothing of that size is made: a tensor of the largest here would be refused by the system itself."""
    folder, _ = saved
    rewrite(folder, classes=["a"], backbone={"name": "mlp", "options": {}})
    rewrite(folder, **asked)
    with pytest.raises(UserError, match=r"got ValueError: a network of \d+ values or more, for weights"):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        *({"in_shape": [2, 9]}, {"in_shape": [2, -9, 12]}, {"in_shape": [2, 10**400, 12]}, {"in_shape": [3, 9, 12]}),
        *({"classes": "abc"}, {"classes": 10**9}, {"backbone": {"options": [1]}}, {"backbone": 1}, {"backbone": None}),
        *({"adapters": {"name": "snn.qcfs"}}, {"adapters": [{"name": "snn.qcfs"}]}, {"sha256": 7}, {"data": "all"}),
        *({"head": {"version": "1"}}, {"format": "2"}, {"format": None}, {"meanings": ["ab"]}),
    ],
    ids=lambda change: str(change)[:30],
)
def test_a_manifest_of_another_shape_is_one_clear_error(saved, change):
    folder, _ = saved
    rewrite(folder, **change)
    with pytest.raises(UserError, match=r"a whole trained model must be in .*; got (Value|Type)Error") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', "{}"])
def test_a_manifest_that_is_none(saved, text):
    folder, _ = saved
    (folder / "model.json").write_text(text)
    with pytest.raises(UserError, match=r"a whole trained model must be in .*; got ValueError"):
        load_model(folder)


def test_a_format_of_a_later_time_is_refused(saved):
    folder, _ = saved
    rewrite(folder, format=3)
    with pytest.raises(UserError, match=r"^model\.json must be of format 1 or 2; got 3\. Install the engram"):
        load_model(folder)


def test_another_version_of_what_it_is_made_of_is_refused(saved):
    folder, _ = saved
    rewrite(folder, backbone={"version": 2})
    with pytest.raises(UserError, match=r"backbone 'resnet-tiny' of a saved network must be of version 2.*; got 1\."):
        load_model(folder)


def test_endless_nesting_in_a_manifest(saved):
    folder, _ = saved
    (folder / "model.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="a whole trained model must be in"):
        load_model(folder)


def test_a_network_comes_back_with_its_adapters(tmp_path, made_of):
    adapters = (Named("snn.qcfs", 1, {"levels": 7, "per": "channel", "threshold": None}),)
    args = ("vgg-tiny", {"width": 0.25}, (1, 8, 8), 2, torch.tensor([0.1]), torch.tensor([0.3]))
    model = build(*args, adapters=adapters)
    made = made_of("vgg-tiny", {"width": 0.25}, in_shape=(1, 8, 8), classes=("a", "b"), adapters=adapters)
    kept = save_model(tmp_path, model, made)
    found, again = load_model(tmp_path)
    assert again == kept == replace(made, sha256=kept.sha256)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(found(x), model.eval()(x)) and not torch.equal(found(x), build(*args).eval()(x))
    save_model(tmp_path, model, replace(made, adapters=(Named("no.such", 1, {}),)))
    with pytest.raises(UserError, match=r"adapter must be a registered name; got 'no\.such'"):
        load_model(tmp_path)


# --- what changes after it was saved --------------------------------------------------------------------------------


class Body(nn.Module):
    """A third party's network."""

    in_shape, stage_channels, steps, readout = (1, 8, 8), (64,), 1, "mean"

    def __init__(self, in_shape, options):
        super().__init__()
        self.gain, self.feature_dim = options.gain, options.hidden[-1]
        self.layer = nn.Linear(64, self.feature_dim)

    def forward(self, x):
        return self.gain * self.layer(x.flatten(1)).relu()


class Louder(nn.Module):
    """A third party's adapter."""

    def __init__(self, net, options, saved=None):
        super().__init__()
        self.net, self.gain, self.feature_dim = net, options.gain, net.feature_dim

    def forward(self, x):
        return self.gain * self.net(x)


class Loud(nn.Linear):
    """A third party's head."""

    def __init__(self, features, classes, options):
        super().__init__(features, classes)
        self.gain = options.gain

    def forward(self, features):
        return self.gain * super().forward(features)


@pytest.fixture
def strangers(monkeypatch):
    """``strangers(gain, spiking_steps)`` installs a third party's things, and snn.spiking with another default."""
    ours, module = Registry.discover(), types.ModuleType("strangers")
    module.Body, module.Louder, module.Loud = Body, Louder, Loud
    monkeypatch.setitem(sys.modules, "strangers", module)

    def install(gain, spiking_steps=4):
        resolve.cache_clear()
        new = [("gain", float, field(default=gain)), ("hidden", tuple[int, ...], field(default=(5,)))]
        module.Options = make_dataclass("Options", new, frozen=True, kw_only=True)
        steps = [("steps", int, field(default=spiking_steps))]
        module.Spiking = make_dataclass("Spiking", steps, bases=(SpikingOptions,), frozen=True, kw_only=True)
        made = {
            kind: {f"strangers.{name}": Entry(target=f"strangers:{name}", options="strangers:Options", summary=name)}
            for kind, name in (("backbones", "Body"), ("adapters", "Louder"), ("heads", "Loud"))
        }
        snn = ours.plugins["snn"]
        entry = replace(snn.adapters["snn.spiking"], options="strangers:Spiking")
        snn = replace(snn, adapters={**snn.adapters, "snn.spiking": entry})
        registry = Registry({**ours.plugins, "snn": snn, "strangers": Plugin(name="strangers", **made)})
        monkeypatch.setattr(Registry, "discover", classmethod(lambda _cls: registry))
        return registry

    return install


def build_in_full(registry, network, head, adapters):
    net = in_full(registry, "backbones", network, {})
    head = in_full(registry, "heads", head, {})
    steps = tuple(in_full(registry, "adapters", name, {}) for name in adapters)
    args = (net.name, net.options, (1, 8, 8), 3, torch.zeros(1), torch.ones(1))
    return build(*args, head=head, adapters=steps).eval(), net, head, steps


@pytest.mark.parametrize(
    ("network", "head", "adapters"),
    [("mlp", "linear", ["snn.spiking"]), ("strangers.Body", "strangers.Loud", ["strangers.Louder"])],
    ids=["ours", "a third party's"],
)
def test_a_default_that_changes_later_changes_no_saved_network(strangers, made_of, tmp_path, network, head, adapters):
    registry = strangers(gain=2.0)
    model, net, head_, steps = build_in_full(registry, network, head, adapters)
    made = made_of(network, in_shape=(1, 8, 8), classes=("a", "b", "c"), head=head_, adapters=steps)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that something spikes
    save_model(tmp_path, model, made)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    registry = strangers(gain=3.0, spiking_steps=9)
    found, again = load_model(tmp_path)
    assert torch.equal(found(images), model(images))
    assert again.backbone == net and again.adapters == steps and again.head == head_
    other = build_in_full(registry, network, head, adapters)[0]
    other.load_state_dict(model.state_dict())
    assert not torch.equal(other(images), model(images))  # the weights fit, and it is another network all the same


# --- files of format 1 ----------------------------------------------------------------------------------------------

FORMAT_1 = Path(__file__).parent / "format1"


def test_a_file_of_format_1_is_the_network_it_was():
    model, made = load_model(FORMAT_1)
    images = (torch.arange(64).reshape(4, 1, 4, 4) * 37 % 256).to(torch.uint8)
    wanted = [[0.54978752, 0.12787944, -0.05164945], [0.39485633, 0.64499485, -0.34889477]]
    wanted += [[-0.0421181, 2.01428699, 0.92916888], [0.20844242, 1.14326918, 0.90926635]]
    torch.testing.assert_close(model(images), torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    (adapter,) = made.adapters
    assert made.backbone.options["width"] == 0.03 and made.backbone.options["depth"] == 2
    assert adapter.options["decay"] == 0.6 and adapter.options["steps"] == 4 and made.head == LINEAR
    assert made.classes == ("a", "b or c", "d") and made.meanings == (("a",), ("b", "c"), ("d",))
    assert made.data.name == "folder:pictures" and made.data.view.name == "continual.stream"
    assert made.data.options == {"size": 4, "channels": None, "duplicates": "keep"}
    assert made.cautions and made.test_accuracy == 0.5 and made.precision == "fp32"
    assert from_json(to_json(made)) == made


def test_defaults_of_format_1_are_as_they_were_even_when_ours_change(strangers):
    strangers(gain=1.0, spiking_steps=9)
    assert load_model(FORMAT_1)[1].adapters[0].options["steps"] == 4
    assert load_model(FORMAT_1)[0].backbone.steps == 4
