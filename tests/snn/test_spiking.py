import pytest
import torch
from torch import nn

from engram.backbone.contract import Backbone
from engram.backbone.nets.blocks import Add, StaticBackbone
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import lower, with_neurons
from engram.snn.neurons.firing import Params, State
from engram.snn.neurons.integrate_fire import HALF, IntegrateFire, if_step
from engram.snn.simulation import network as simulator
from engram.snn.simulation.counting import Tally, synapses

THETA = [0.5, 1.0, 2.0, 4.0]  # powers of two: dividing by them rounds nothing


def converted(net, steps, **times):
    graph = lower(net)
    names = [name for name, module in graph.named_modules() if isinstance(module, nn.ReLU)]
    never = torch.zeros(1, dtype=torch.bool)
    found = {name: Thresholds(torch.tensor([THETA[k % 4]]), never) for k, name in enumerate(names)}
    return with_neurons(net, graph, found, steps, **times)


def with_state(net):
    """The reference, with thresholds in the neurons: the analog module itself, to be called once per step, its ReLUs
    replaced by neurons that keep their state and send their threshold. Returns the list their spikes go to.
    """
    neurons = iter(converted(net, 1).neurons().values())
    spikes = []

    class Neurons(nn.Module):
        def __init__(self, theta):
            super().__init__()
            self.theta, self.v = theta, None

        def forward(self, x):
            p = Params("if", torch.ones(()), 0.0, 0.0, 0.0, self.theta, "soft", False, 0, "arctan", 1.0)
            v = (HALF * self.theta).expand_as(x) if self.v is None else self.v
            s, state = if_step(x, State(v), p)
            self.v = state.v
            spikes.append(s)
            return s * self.theta

    def replace(module):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, Neurons(next(neurons).threshold.clone()))
            else:
                replace(child)

    replace(net)
    return spikes


def one_step_at_a_time(net, images, steps):
    spikes = with_state(net)
    return torch.stack([net.features(images) for _ in range(steps)]), sum(float(s.sum()) for s in spikes)


@pytest.mark.parametrize("kind", ["sequential_net", "residual_net"])
@torch.no_grad()
def test_time_folded_into_the_batch_is_the_step_by_step_simulation_bit_for_bit(kind, request, images):
    net = request.getfixturevalue(kind)
    fast = converted(net, 9)
    fan_out = synapses(fast.graph, nn.Linear(fast.feature_dim, 2), fast.in_shape).fan_out
    tally = Tally(fan_out, [9])
    features = fast.simulate(images, tally)
    expected, spikes = one_step_at_a_time(net, images, 9)
    assert torch.equal(features, expected)
    assert tally.spikes.sum() == spikes > 0


class Skip(nn.Module):
    """A branch that stays constant in time meets one that spikes."""

    def __init__(self):
        super().__init__()
        self.act, self.add, self.last = nn.ReLU(), Add(), nn.ReLU()

    def forward(self, x):
        return self.last(self.add(self.act(x), x))


@torch.no_grad()
def test_a_constant_branch_is_repeated_where_it_meets_spikes(exact, images):
    net = exact(StaticBackbone((2, 8, 8), [nn.Conv2d(2, 3, 1), Skip()], nn.Flatten()))
    features = converted(net, 5).simulate(images)
    assert torch.equal(features, one_step_at_a_time(net, images, 5)[0])


@torch.no_grad()
def test_the_drive_is_kept_when_something_else_needs_it(exact, images):
    class Before(nn.Module):
        """Pre-activation: the neurons' input is also the skip."""

        def __init__(self):
            super().__init__()
            self.act, self.conv = nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return x + self.conv(self.act(x))

    stem = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    net = exact(StaticBackbone((2, 8, 8), [stem, Before(), nn.ReLU()], nn.Flatten()))
    features = converted(net, 5).simulate(images)
    assert torch.equal(features, one_step_at_a_time(net, images, 5)[0])


@pytest.mark.parametrize("kind", ["sequential_net", "residual_net"])
@torch.no_grad()
def test_images_do_not_influence_each_other(kind, request, images):
    net = converted(request.getfixturevalue(kind), 6)
    together = net.simulate(images)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    apart = torch.cat([net.simulate(part) for part in images[order].split([1, 3, 2])], 1)
    assert torch.equal(together[:, order], apart)


@torch.no_grad()
def test_memory_sets_the_chunk_and_not_the_result(sequential_net, images, monkeypatch):
    net = converted(sequential_net, 6)
    expected = net.forward_steps(images)
    monkeypatch.setattr(simulator, "MEMORY", 2 * 6 * net.bytes_per_step)
    assert net.chunk(6) == 2
    assert torch.equal(net.forward_steps(images), expected)
    monkeypatch.setattr(simulator, "MEMORY", 1)
    assert net.chunk(6) == 1  # one image always goes


@torch.no_grad()
def test_contract(residual_net, images):
    net = converted(residual_net, 7)
    assert isinstance(net, Backbone)
    assert (net.steps, net.readout, net.feature_dim) == (7, "mean", residual_net.feature_dim)
    assert net.forward_steps(images).shape == (7, 6, net.feature_dim)
    assert torch.equal(net(images), net.forward_steps(images).mean(0))
    stages = net.stages(images)
    assert [stage.shape for stage in stages] == [stage.shape for stage in residual_net.stages(images)]
    assert tuple(stage.shape[1] for stage in stages) == net.stage_channels


@torch.no_grad()
def test_frames_that_stand_still_are_a_constant_image(sequential_net, images):
    net = converted(sequential_net, 5)
    frames = images.unsqueeze(1).expand(-1, 5, -1, -1, -1)
    assert torch.equal(net.forward_steps(frames), net.forward_steps(images))
    assert net.forward_steps(frames[:, :3]).shape[0] == 3


@pytest.mark.parametrize("kind", ["sequential_net", "residual_net"])
@torch.no_grad()
def test_stages_are_in_analog_units(kind, request, images):
    net = request.getfixturevalue(kind)
    got = converted(net, 8).stages(images)
    with_state(net)
    steps = [net.stages(images) for _ in range(8)]
    for stage, means in zip(got, zip(*steps, strict=True), strict=True):
        torch.testing.assert_close(stage, torch.stack(means).mean(0))


@torch.no_grad()
def test_the_delayed_read_out_leaves_out_the_first_steps(sequential_net, images):
    net = converted(sequential_net, 7, delay=3)
    assert torch.equal(net(images), net.forward_steps(images)[3:].mean(0))


@torch.no_grad()
def test_pre_simulation_silences_exactly_the_neurons_that_end_below_zero():
    net = StaticBackbone((3, 1, 1), [nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())], nn.Flatten()).eval()
    net.body[0][0].weight.copy_(torch.eye(3).view(3, 3, 1, 1))
    net.body[0][0].bias.zero_()
    drive = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, -0.25], [-1.0, 0.25, 0.0], [4.0, 4.0, 4.0]])
    frames = drive.view(1, 4, 3, 1, 1)  # thresholds are 0.5: after three steps the potentials are -1.25, 0, 0
    assert converted(net, 4).simulate(frames)[:, 0].tolist() == [[0.5, 0, 0], [0, 0, 0], [0, 0.5, 0], [0.5, 0.5, 0.5]]
    silenced = converted(net, 4, pre_simulation=3).simulate(frames)[:, 0]
    assert silenced.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0.5, 0], [0, 0.5, 0.5]]


@torch.no_grad()
def test_all_steps_asked_for_run_beforehand_and_fewer_frames_are_shown_again(sequential_net, images):
    frames = torch.stack([images, images.flip(0), images.roll(1, 0)], 1)  # [6, 3, 2, 8, 8]
    net, longer = (converted(sequential_net, 3, pre_simulation=steps) for steps in (7, 2))
    fan_out = synapses(net.graph, nn.Linear(5, 3), (2, 8, 8)).fan_out
    for each, shown in ((net, [0, 1, 2, 0, 1, 2, 0]), (longer, [0, 1])):
        tally, before, after = Tally(fan_out, [1, 3]), Tally(fan_out, [len(shown)]), Tally(fan_out, [1, 3])
        each.simulate(frames, tally)
        plain = converted(sequential_net, 3)
        run = simulator.Simulation(plain.graph, len(shown), True, before)
        run.keep_residual = True
        run.run(simulator.steps_first(frames[:, shown]))
        silenced = {name: v < 0 for name, v in run.residual.items()}
        simulator.Simulation(plain.graph, 3, True, after, silenced=silenced).run(simulator.steps_first(frames))
        assert torch.equal(tally.spikes, before.spikes + after.spikes)
        assert torch.equal(tally.operations, before.operations + after.operations)
        assert before.spikes.sum() > 0


@torch.no_grad()
def test_the_memory_estimate_covers_what_is_alive(sequential_net):
    floats = converted(sequential_net, 1).bytes_per_step / 4
    assert 2 * 4 * 8 * 8 <= floats <= 2 * 8 * 8 + 2 * 4 * 8 * 8  # the first layer's drive and spikes, and the image


def test_neurons_are_the_only_change(sequential_net):
    graph = converted(sequential_net, 2).graph
    assert sum(isinstance(module, IntegrateFire) for module in graph.modules()) == 3
    assert not any(isinstance(module, nn.ReLU) for module in graph.modules())
