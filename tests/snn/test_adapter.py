"""The adapter snn.spiking against networks run step by step, and the bounds it puts on memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import Backbone, Named
from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import PooledConv2d, StaticBackbone
from engram.backbone.nets.making import build
from engram.snn.neurons.quantised import QCFS
from engram.snn.training.adapter import spiking
from engram.snn.training.options import QCFSOptions, SpikingOptions
from engram.snn.training.qcfs import qcfs

SHAPE = (1, 12, 12)


def model_of(name, /, width=0.25, normalisation="none", **options):
    torch.manual_seed(0)
    adapters = [Named("snn.spiking", 1, options)]
    net = {"width": width, "normalisation": normalisation}
    model = build(name, net, SHAPE, 3, torch.zeros(1), torch.ones(1), adapters=adapters)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.5)  # so that there are spikes in every layer
    return model


@pytest.mark.parametrize("normalisation", ["none", "batch"])
@pytest.mark.parametrize("name", ["mlp", "lenet5", "vgg-tiny", "resnet-tiny", "airnet"])
def test_every_network_keeps_the_contract_and_learns(name, normalisation):
    model = model_of(name, normalisation=normalisation, steps=3)
    net, x = model.backbone, torch.randn(4, *SHAPE)
    assert isinstance(net, Backbone) and (net.steps, net.readout) == (3, "mean")
    net.prepare(x)
    steps = net.train().forward_steps(x)
    assert steps.shape == (3, 4, net.feature_dim)
    assert [stage.shape[1] for stage in net.stages(x)] == list(net.stage_channels)
    torch.testing.assert_close(net.eval()(x), net.forward_steps(x).mean(0))
    model.train()(x).square().sum().backward()
    trained = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert net(torch.randn(2, 5, *SHAPE)).shape == (2, net.feature_dim)


def by_hand(net, x, decay):
    """conv - LIF - pool - conv - LIF - flatten - linear - LIF, one step at a time, threshold 1, soft reset."""
    conv1, conv2, linear = (m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    v1 = v2 = v3 = 0.0
    out = []
    for frame in x.unbind(1):
        v1 = decay * v1 + conv1(frame)
        s1 = (v1 >= 1).float()
        v1 = v1 - s1
        v2 = decay * v2 + conv2(F.avg_pool2d(s1, 2))
        s2 = (v2 >= 1).float()
        v2 = v2 - s2
        v3 = decay * v3 + linear(s2.flatten(1))
        s3 = (v3 >= 1).float()
        v3 = v3 - s3
        out.append(s3)
    return torch.stack(out)


@torch.no_grad()
def test_against_a_loop_over_steps_bit_for_bit(sequential_net, images):
    net = spiking(sequential_net, SpikingOptions(steps=5, decay=0.5))
    frames = torch.stack([images, images.flip(2), -images, images.flip(3), 2 * images], 1)
    expected = by_hand(sequential_net, frames, 0.5)
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(net.forward_steps(frames), expected)
    still = images[:, None].expand(-1, 5, -1, -1, -1)
    assert torch.equal(net.forward_steps(images), by_hand(sequential_net, still, 0.5))


def test_what_comes_before_the_first_neurons_runs_once(sequential_net, images):
    net, calls = spiking(sequential_net, SpikingOptions(steps=6, checkpoint_steps=2)), []
    net.graph.get_submodule("body.0.0").register_forward_hook(lambda _m, _i, out: calls.append(len(out)))
    net.train().forward_steps(images)
    assert calls == [len(images)]


@pytest.mark.parametrize("kind", ["sequential_net", "residual_net"])
@pytest.mark.parametrize("neuron", ["if", "plif", "cuba-lif", "adaptive-lif"])
@torch.no_grad()
def test_parts_give_what_the_whole_gives_bit_for_bit(kind, neuron, request, images):
    net = spiking(request.getfixturevalue(kind), SpikingOptions(neuron=neuron, steps=7, refractory=1))
    for x in (images, torch.stack([images] * 3 + [-images] * 4, 1)):
        whole, states, parts = net.forward_steps(x), {}, []
        for first, last in ((0, 2), (2, 3), (3, 7)):
            piece = x[:, first:last] if x.ndim == 5 else net.constants(x)
            out, states = net.run_chunk(piece, states, last - first)
            parts.append(out)
        assert torch.equal(torch.cat(parts), whole)
        assert set(states) == set(net.neurons())


def gradients(x, name="vgg-tiny", **options):
    model = model_of(name, steps=x.shape[1] if x.ndim == 5 else 7, decay=0.9, **options).train()
    out = model(x)
    out.square().sum().backward()
    return out.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), model


@pytest.mark.parametrize("frames", [False, True])
def test_checkpointing_over_time_changes_no_gradient(frames):
    x = torch.randn(3, 7, *SHAPE) if frames else torch.randn(3, *SHAPE)
    out, plain, _ = gradients(x)
    assert plain.norm() > 1
    for steps in (1, 3, 7, 9):
        again, kept, _ = gradients(x, checkpoint_steps=steps)
        torch.testing.assert_close(again, out)
        torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-4)


def test_checkpointing_counts_a_batch_once():
    x = torch.randn(3, 7, *SHAPE)
    _, _, model = gradients(x, normalisation="batch", checkpoint_steps=7)
    _, _, plain = gradients(x, normalisation="batch")
    for (name, ours), theirs in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_normalisation_is_over_time_and_batch():
    model = model_of("vgg-tiny", normalisation="batch", steps=4, neuron="if").train()
    seen = []
    norm = model.backbone.graph.get_submodule("body.1.1")
    norm.register_forward_hook(lambda _m, inputs, out: seen.append((inputs[0], out)))
    model(torch.randn(5, *SHAPE))
    ((drive, out),) = seen
    assert drive.shape[0] == 4 * 5
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(out.shape[1]), atol=1e-5, rtol=0)


def test_truncation_cuts_the_gradient_and_nothing_else():
    x = torch.randn(3, 7, *SHAPE)
    out, plain, _ = gradients(x)
    again, cut, _ = gradients(x, truncate=2)
    torch.testing.assert_close(again, out)
    assert (cut - plain).norm() > 0.05 * plain.norm()
    _, both, _ = gradients(x, truncate=2, checkpoint_steps=3)
    torch.testing.assert_close(both, cut, rtol=1e-4, atol=1e-4)
    frame = x.clone().requires_grad_()
    net = model_of("vgg-tiny", truncate=2, decay=0.9, steps=7).backbone
    net.forward_steps(frame)[-1].sum().backward()  # the last step, of a part that began at step 6
    reached = frame.grad.abs().amax((0, 2, 3, 4)) > 0
    assert reached.tolist() == [False] * 6 + [True]


def kept_bytes(steps, **options):
    """Bytes held between forward and backward pass, counted by whole storages."""
    model, held = model_of("vgg-tiny", neuron="if", steps=steps, **options).train(), {}
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            held[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    x = torch.randn(2, steps, *SHAPE)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    live = sum(size for size, _ in held.values())
    return live, out


def test_memory_between_the_passes_does_not_grow_with_the_steps_of_a_part():
    plain, kept = ([kept_bytes(t, checkpoint_steps=c)[0] for t in (8, 32)] for c in (None, 8))
    assert plain[1] > 3.5 * plain[0]
    assert kept[1] < 0.3 * plain[1]


def test_gradient_checkpointing_keeps_the_states_of_every_square_root_of_t():
    net = model_of("vgg-tiny", steps=10).backbone.train()
    calls = []
    net.graph.get_submodule("body.1.0").register_forward_hook(lambda _m, _i, out: calls.append(len(out)))
    net.recompute = True
    net.forward_steps(torch.randn(2, *SHAPE)).sum().backward()
    assert sorted(calls) == [2 * 2] * 2 + [4 * 2] * 4  # parts of 4, 4 and 2 steps, each twice


def test_parts_of_a_batch_give_the_same(monkeypatch):
    net, x = model_of("resnet-tiny", steps=3).backbone.eval(), torch.randn(5, *SHAPE)
    with torch.no_grad():
        whole = net.forward_steps(x)
        monkeypatch.setattr("engram.snn.training.network.MEMORY", 1)
        torch.testing.assert_close(net.forward_steps(x), whole)


# --- making it --------------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """A shared ReLU module and a functional one."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.ReLU()

    def forward(self, x):
        return F.relu(self.relu(self.b(self.relu(self.a(x)))) - 0.5, inplace=True)


def test_every_use_of_an_activation_has_neurons_of_its_own(exact, images):
    net = exact(StaticBackbone((2, 8, 8), [Odd()], nn.Flatten()))
    ours = spiking(net, SpikingOptions(steps=4, neuron="if"))
    assert len(ours.neurons()) == 3
    with torch.no_grad():
        v, odd, expected = [0.0] * 3, net.body[0], []
        for _ in range(4):
            x = images
            for place, layer in enumerate((odd.a, odd.b, lambda y: y - 0.5)):
                v[place] = v[place] + layer(x)
                x = (v[place] >= 1).float()
                v[place] = v[place] - x
            expected.append(x.flatten(1))
        assert torch.equal(ours.forward_steps(images), torch.stack(expected))


def test_composed_layers_keep_the_parameters_that_are_trained():
    net = model_of("airnet", steps=2).backbone
    pooled = [module for module in net.modules() if isinstance(module, PooledConv2d)]
    assert pooled and all(module.weight.shape[-1] == 3 for module in pooled)


def test_preparing_reaches_the_spiking_copy():
    net = model_of("airnet", steps=2).backbone
    before = net.graph.get_submodule("body.0.0").weight.clone()
    net.prepare(torch.randn(64, *SHAPE))
    assert not torch.equal(net.graph.get_submodule("body.0.0").weight, before)


def test_scales_from_a_trained_network_make_it_fire_as_the_converted_one():
    """One layer of IF neurons on constant drive: after L steps exactly what the QCFS activation gives."""
    torch.manual_seed(0)
    net = StaticBackbone((2, 8, 8), [nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())], nn.Flatten())
    quantised, x = qcfs(net, QCFSOptions(levels=4)), torch.randn(16, 2, 8, 8)
    quantised.calibrate(x)
    options = SpikingOptions(steps=4, neuron="if", start=0.5, learn_scale=True)
    ours = spiking(quantised, options)
    ours.calibrate(x)
    (layer,) = (module for module in quantised.modules() if isinstance(module, QCFS))
    (neurons,) = ours.neurons().values()
    assert torch.equal(neurons.scale, layer.threshold)
    torch.testing.assert_close(ours.double()(x.double()), quantised.double()(x.double()))
    analog = spiking(net, options)
    analog.calibrate(x)
    (again,) = analog.neurons().values()
    torch.testing.assert_close(again.scale.double(), neurons.scale)  # found from ReLU activations, at T levels


def test_scales_are_learned():
    model = model_of("vgg-tiny", steps=3, learn_scale=True)
    model(torch.randn(4, *SHAPE)).sum().backward()
    assert all(layer.scale.grad.abs().sum() > 0 for layer in model.backbone.neurons().values())


def test_copies_and_saved_weights_compute_the_same():
    model, x = model_of("resnet-tiny", normalisation="batch", steps=3, neuron="plif").eval(), torch.randn(2, *SHAPE)
    again = model_of("resnet-tiny", normalisation="batch", steps=3, neuron="plif").eval()
    for parameter in again.parameters():
        parameter.data.zero_()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x)) and torch.equal(copy.deepcopy(model)(x), model(x))


class Branching(StaticBackbone):
    def features(self, x):
        return super().features(x) if x.sum() > 0 else x.flatten(1)


def test_what_cannot_become_spiking():
    layers = [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softmax(1))]
    with pytest.raises(UserError, match=r"a network for snn\.spiking must be one with activations; got none"):
        spiking(StaticBackbone(SHAPE, layers, nn.Flatten()), SpikingOptions())
    with pytest.raises(UserError, match="must be Traceable, so that its features"):
        spiking(Branching(SHAPE, layers, nn.Flatten()), SpikingOptions())
