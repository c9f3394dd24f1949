"""A saved network comes back as it was, whatever has changed meanwhile, or is refused in one line."""

import json
from dataclasses import replace

import pytest
import torch

from engram.backbone.contract import Named
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import build
from engram.backbone.saved.model import load_model, save_model


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
