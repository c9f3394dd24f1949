"""A .net file as a backbone: simulated in whole numbers, trained on, saved and made again without the file."""

from dataclasses import replace

import pytest
import torch

from engram.backbone.contract import Backbone
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model, save_model
from engram.snn.interchange.netx.layers import layers_of
from engram.snn.interchange.netx.network import make
from engram.snn.interchange.netx.options import NetxOptions
from engram.snn.interchange.netx.reading import read
from engram.snn.interchange.netx.structure import as_text, content, from_text
from engram.snn.interchange.netx.writing import write
from engram.snn.interchange.screening import screened
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Integrator, Population, Synapses
from engram.snn.loihi.simulator import Simulator

pytest.importorskip("h5py")


def whole(generator, shape, least, most):
    return torch.randint(least, most + 1, shape, generator=generator, dtype=torch.int32)


def digits_network(recurrent=False):
    """8x8 pixels, a convolution, a row, ten sums; weights to the ends of their ranges."""
    g = torch.Generator().manual_seed(0)
    kernels, wide = whole(g, (4, 1, 3, 3), -128, 127), 2 * whole(g, (12, 36), -40, 40)
    kernels[0, 0, 0, 0], wide[0, 0] = -128, -256
    conv = Synapses(source=INPUT, kind="conv", weight=kernels, in_shape=(1, 8, 8), stride=(2, 2))
    dense = Synapses(source="a", kind="dense", weight=wide, in_shape=(4, 3, 3))
    late = replace(
        dense, source="b", weight=whole(g, (10, 12), -60, 60), in_shape=(12,), delays=whole(g, (10, 12), 0, 2)
    )
    again = replace(late, weight=whole(g, (12, 12), -9, 9), delays=None, delay=1)
    populations = (
        Population(name="a", shape=(4, 3, 3), neurons=LIF(vth=30000, dv=100), synapses=(conv,)),
        Population(
            name="b", shape=(12,), neurons=LIF(vth=60, du=2047), synapses=(dense, again) if recurrent else (dense,)
        ),
        Population(
            name="c", shape=(10,), neurons=Integrator(bias=whole(g, (10,), -9, 9)), synapses=(late,), scale=0.001
        ),
    )
    return ChipNetwork(input=Input(shape=(1, 8, 8), gain=255.0), populations=populations, steps=8)


@pytest.fixture
def file(tmp_path):
    write(digits_network(), tmp_path / "a.net")
    return tmp_path / "a.net"


def simulated(network, x):
    return Simulator(network).run(network.input.whole(x)).logits[-1]


@pytest.mark.parametrize("recurrent", [False, True])
def test_it_is_simulated_in_whole_numbers(tmp_path, recurrent):
    write(digits_network(recurrent), tmp_path / "a.net")
    network, x = read(tmp_path / "a.net"), torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    net = make((1, 8, 8), NetxOptions(), "", tmp_path / "a.net").eval()
    assert isinstance(net, Backbone) and net.raw and (net.feature_dim, net.steps) == (10, 8)
    torch.testing.assert_close(net(x), simulated(network, x), rtol=1e-6, atol=1e-6)
    signed = make((1, 8, 8), NetxOptions(pixels="signed", steps=3), "", tmp_path / "a.net").eval()
    assert signed.steps == 3
    torch.testing.assert_close(signed(x), simulated(replace(network, steps=3), 2 * x - 1), rtol=1e-6, atol=1e-6)
    if recurrent:
        with pytest.raises(UserError, match="an earlier population"):
            signed.train()(x)


def test_training_learns_whole_numbers(file):
    net, x = make((1, 8, 8), NetxOptions(), "", file), torch.rand(8, 1, 8, 8)
    net.train()(x).square().sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in net.weights)
    with torch.no_grad():
        net.weights[2].add_(0.3 * net.weights[2].abs().max())
    changed = net.network()
    assert not torch.equal(changed.populations[2].synapses[0].weight, net.base.populations[2].synapses[0].weight)
    torch.testing.assert_close(net.eval()(x), simulated(changed, x), rtol=1e-6, atol=1e-6)


def test_a_saved_one_is_made_again_without_the_file(file, tmp_path, made_of):
    registry = Registry.discover()
    name = registry.chosen("backbones", f"netx:{file}")
    model = build(name, {}, (1, 8, 8), 10, torch.zeros(1), torch.ones(1))
    x = torch.rand(3, 1, 8, 8)
    expected = model.eval()(x)
    assert torch.equal(expected, model.backbone(x))  # its outputs are its logits
    made = made_of(name, {}, classes=tuple(map(str, range(10))), in_shape=(1, 8, 8))
    made = replace(made, backbone=replace(made.backbone, content=registry.content(name)))
    save_model(tmp_path / "model", model, made)
    file.unlink()
    assert torch.equal(load_model(tmp_path / "model")[0](x), expected)


def test_its_structure_as_text(file):
    text = content(file)
    assert as_text(from_text(text)) == text == as_text(layers_of(screened(file, ""), "a.net"))
    for wrong in (
        "",
        "[]",
        "{}",
        text.replace('"kind": "dense"', '"sort": 1'),
        text.replace("[12, 36]", "[99999, 99999]"),
    ):
        with pytest.raises(UserError, match="the structure of a saved"):
            from_text(wrong)


def test_other_images_are_refused(file):
    with pytest.raises(UserError, match=r"of images of 1x8x8, as the file's input; got 3x9x9"):
        make((3, 9, 9), NetxOptions(), "", file)


@pytest.mark.slow
def test_from_the_command_line(file, here):
    words = ("--backbone", f"netx:{file}", "--dataset", "digits", "--json", "--device", "cpu")
    scored = here("run", "backbone.evaluate", *words[:5])
    assert scored.code == 0, scored.err
    trained = here("run", "backbone.train", *words, "--epochs", 2)
    assert trained.code == 0, trained.err
    assert trained.json["metrics"]["test/accuracy"] > scored.json["metrics"]["test/accuracy"] + 0.1
    file.unlink()
    again = here("run", "backbone.evaluate", "--from", trained.json["trial"], "--json")
    assert again.code == 0, again.err
    assert again.json["metrics"]["test/accuracy"] == trained.json["metrics"]["test/accuracy"]
