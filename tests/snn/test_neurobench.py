"""NeuroBench's metrics: by its formulas written out, and beside the package itself where that is installed.

The package pulls tonic (GPL-3), numba and torchaudio, so that no development extra installs it and the tests against it
are skipped. They were run with neurobench 2.3.0, snntorch 1.0.0 and torch 2.12.1 (``pip install --no-deps neurobench``;
its metrics import only torch, snntorch and tqdm). Compared, with equal weights, some of them zero: a ReLU network, a
network of snnTorch's Leaky cells with max pooling and one with average pooling, on frames of numbers and of spikes;
and the layers of a converted network.
Footprint, both sparsities, dense and effective operations and membrane updates agree exactly, the split into AC and MAC
where it does not depend on the batch.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.snn.conversion.convert import convert
from engram.snn.engines.layer import SpikingLayer
from engram.snn.graph.timed import TimeFolded
from engram.snn.measures.neurobench import Workload, connection_sparsity, footprint_bytes, neurobench
from engram.snn.neurons.integrate_fire import IntegrateFire
from engram.snn.neurons.options import NeuronOptions
from engram.snn.neurons.timed import TimedNeurons
from engram.snn.simulation.counting import synapses
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions

STEPS, IMAGES, DECAY = 5, 6, 0.5


class Tracer(fx.Tracer):
    def is_leaf_module(self, m, module_qualified_name):
        return isinstance(m, TimedNeurons) or super().is_leaf_module(m, module_qualified_name)


def layers(pool, activation):
    """conv - activation - pool - conv - activation - fc - activation, with weights of which some are zero."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), activation(), pool),
        *(nn.Conv2d(4, 6, 3, stride=2, padding=1), activation()),
        *(nn.Flatten(), nn.Linear(24, 5), activation()),
    )
    for parameter in net.parameters():
        if parameter.ndim:
            parameter.data = torch.randint(-2, 4, parameter.shape, generator=generator) / 16
    # so that all neurons fire, but no potential reaches two thresholds: what is left then, snnTorch takes a step later
    net[3].weight.data *= 3 if isinstance(pool, nn.AvgPool2d) else 1.5
    net[6].weight.data *= 2
    return net.eval()


def lif():
    return SpikingLayer(NeuronOptions(neuron="lif", decay=DECAY, threshold=0.99, engine="fused"))


def run_folded(net, frames):
    """frames: [B, T, C, H, W] -> [T, B, 5]; returns the output and the row."""
    graph = fx.GraphModule(net, Tracer().trace(net))
    flat = frames.transpose(0, 1).flatten(0, 1)
    with torch.no_grad(), Workload(net) as work:
        out = TimeFolded(graph, frames.shape[1], True).run(flat).unflatten(0, (frames.shape[1], -1))
    return out, work.row(len(frames))


def frames_of(kind):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(IMAGES, STEPS, 2, 8, 8, generator=generator)
    return (x > 0.7).float() if kind == "spikes" else x.where(x > 0.4, 0.0)


class ByHand:
    """The same network step by step, every quantity counted where it arises; reset by subtraction at once."""

    def __init__(self, net):
        self.net, self.binary, self.effective, self.dense = net, {}, {}, {}
        self.active = self.total = self.updates = 0

    def layer(self, name, module, x):
        ones = [tensor.double() for tensor in (x != 0, module.weight != 0)]
        full = [torch.ones_like(tensor) for tensor in ones]
        run = (
            F.linear
            if isinstance(module, nn.Linear)
            else lambda x, w: F.conv2d(x, w, None, module.stride, module.padding)
        )
        self.effective[name] = self.effective.get(name, 0) + float(run(*ones).sum())
        self.dense[name] = self.dense.get(name, 0) + float(run(*full).sum())
        self.binary[name] = self.binary.get(name, True) and set(x.unique().tolist()) <= {-1, 0, 1}
        return module(x)

    def neurons(self, v, x):
        u = x if v is None else DECAY * v + x
        spikes = (u >= 0.99).float()
        after = u - 0.99 * spikes
        self.updates += after.numel() if v is None else int((after != v).sum())
        self.active, self.total = self.active + int(spikes.sum()), self.total + spikes.numel()
        return spikes, after

    def run(self, frames):
        potentials = {}
        for x in frames.unbind(1):
            for name, module in self.net.named_children():
                if isinstance(module, SpikingLayer):
                    x, potentials[name] = self.neurons(potentials.get(name), x)
                elif isinstance(module, nn.Conv2d | nn.Linear):
                    x = self.layer(name, module, x)
                else:
                    x = module(x)


@torch.no_grad()
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
@pytest.mark.parametrize("kind", ["spikes", "numbers"])
def test_against_counting_every_step_by_hand(pool, kind):
    net, frames = layers(pool, lif), frames_of(kind)
    _, row = run_folded(net, frames)
    hand = ByHand(net)
    hand.run(frames)
    acs = sum(count for name, count in hand.effective.items() if hand.binary[name])
    assert row["effective_acs"] == acs / IMAGES
    assert row["effective_macs"] == (sum(hand.effective.values()) - acs) / IMAGES
    assert row["dense_operations"] == sum(hand.dense.values()) / IMAGES
    assert row["membrane_updates"] == hand.updates / IMAGES
    assert row["activation_sparsity"] == pytest.approx(1 - hand.active / hand.total, abs=1e-12)
    assert hand.active > 0
    # what makes a layer's operations multiplications: pooled spikes, and inputs that are no spikes
    assert hand.binary == {"0": kind == "spikes", "3": isinstance(pool, nn.MaxPool2d), "6": True}


def test_weights_and_memory():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(4, 3))
    net[0].weight.data.fill_(1)
    net[3].weight.data.fill_(1)[0, :3] = 0
    assert connection_sparsity(net) == 3 / (18 + 12)
    # float32 everywhere, but the number of batches that BatchNorm counts in int64
    assert footprint_bytes(net) == 4 * (18 + 2 + 12 + 3 + 4 + 4) + 8


def test_nothing_is_left_behind():
    net, frames = layers(nn.MaxPool2d(2), lif), frames_of("spikes")
    with Workload(net) as work:
        pass
    run_folded(net, frames)
    assert (work.row(1)["dense_operations"], work.activations) == (0, 0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert "scan" not in vars(net[1])


def converted(pool):
    """The same layers with ReLUs, converted: unequal thresholds in the weights, calibrated starts and currents."""
    net = layers(pool, nn.ReLU)
    backbone = StaticBackbone((2, 8, 8), [net[:3], net[3:5]], net[5:7]).eval()
    head = nn.Linear(5, 3)
    head.weight.data.fill_(0.5)[0, :3] = 0
    model = Classifier(backbone, head, torch.zeros(2), torch.ones(2)).eval()
    made = convert(model, [frames_of("numbers")[:, 0]], IMAGES, steps=STEPS, calibration="bias", start=0.25)
    for place, neurons in enumerate(made.backbone.neurons().values()):
        shape = [(4, 1, 1), (6, 2, 2)][place]
        neurons.start = torch.rand(shape, generator=torch.Generator().manual_seed(place)) / 2
    return made


def fire(neurons, v, x):
    """One step of `IntegrateFire`: (spikes, potential)."""
    u = v + x + neurons.current.view(-1, *[1] * (x.ndim - 2))
    spikes = (u >= 1).float()
    return spikes, u - spikes


class ConvertedByHand(ByHand):
    """A converted network whose layers run in a row; max pooling of running sums."""

    def __init__(self, model):
        graph = model.backbone.graph
        calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
        super().__init__(None)
        self.rows = [*((name, graph.get_submodule(name)) for name in calls), ("head", model.head)]

    def run(self, frames):
        potentials, sums, before, logits = {}, {}, {}, []
        for t, x in enumerate(frames.unbind(1)):
            for name, module in self.rows:
                if isinstance(module, IntegrateFire):
                    v = potentials.get(name, module.start.expand_as(x))
                    x, potentials[name] = fire(module, v, x)
                    self.updates += x.numel() if t == 0 else int((potentials[name] != v).sum())
                    self.active, self.total = self.active + int(x.sum()), self.total + x.numel()
                elif isinstance(module, nn.Conv2d | nn.Linear):
                    x = self.layer(name, module, x)
                elif isinstance(module, nn.MaxPool2d):
                    sums[name] = sums.get(name, 0) + x
                    now = F.max_pool2d(sums[name], 2)
                    x, before[name] = now - before.get(name, 0), now
                else:
                    x = module(x)
            logits.append(x)
        return torch.stack(logits)


@torch.no_grad()
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
@pytest.mark.parametrize("kind", ["spikes", "numbers"])
def test_a_converted_network_against_counting_every_step_by_hand(pool, kind):
    model, frames = converted(pool), frames_of(kind)
    row = neurobench(model, [frames[:4], frames[4:]])
    hand = ConvertedByHand(model)
    torch.testing.assert_close(hand.run(frames), model.head(model.backbone.forward_steps(frames)))
    acs = sum(count for name, count in hand.effective.items() if hand.binary[name])
    assert row["effective_acs"] == acs / IMAGES > 0
    assert row["effective_macs"] == (sum(hand.effective.values()) - acs) / IMAGES
    assert row["dense_operations"] == sum(hand.dense.values()) / IMAGES
    assert row["membrane_updates"] == hand.updates / IMAGES
    assert row["activation_sparsity"] == pytest.approx(1 - hand.active / hand.total, abs=1e-12)
    assert row["connection_sparsity"] == connection_sparsity(model) > 0
    binary = [hand.binary[name] for name, module in hand.rows if isinstance(module, nn.Conv2d | nn.Linear)]
    assert binary == [kind == "spikes", isinstance(pool, nn.MaxPool2d), True, False]


@torch.no_grad()
def test_potentials_of_integrate_and_fire_neurons():
    neurons = IntegrateFire(torch.ones(1), torch.zeros(1, dtype=torch.bool))
    drive = torch.tensor([[0.0, 0.25, 1.0], [0.0, 0.25, 1.0], [0.0, 0.25, 0.5]]).view(3, 1, 3)
    with Workload(nn.Sequential(neurons)) as work:
        spikes = neurons(drive)
    # all of the first step; then the first never moves, the second twice, the third once: 1 in and 1 out is no change
    assert work.membrane_updates == 3 + 0 + 2 + 1
    assert torch.equal(spikes.sum(0), torch.tensor([[0.0, 1.0, 3.0]]))


@torch.no_grad()
def test_a_classifier_with_one_step():
    torch.manual_seed(0)
    model = build("vgg-tiny", {}, (1, 8, 8), 10, torch.tensor([0.5]), torch.tensor([0.3])).eval()
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    row = neurobench(model, [images[:7], images[7:]])
    assert row == neurobench(model, [images])
    assert row["effective_acs"] == row["membrane_updates"] == 0
    assert 0 < row["effective_macs"] < row["dense_operations"]
    assert 0 < row["activation_sparsity"] < 1


@torch.no_grad()
def test_a_trainable_network_in_parts_of_its_steps_counts_as_in_one():
    torch.manual_seed(0)
    model = build("vgg-tiny", {}, (1, 8, 8), 10, torch.tensor([0.5]), torch.tensor([0.3])).eval()
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    rows = []
    for pieces in ({}, {"checkpoint_steps": 3}):
        model.backbone = spiking(copy.deepcopy(analog := model.backbone), SpikingOptions(steps=4, **pieces)).eval()
        rows.append(neurobench(model, [images]))
        neurons = sum(layer.numel() for layer in synapses(model.backbone.graph, model.head, (1, 8, 8)).fan_out.values())
        model.backbone = analog
    assert rows[0] == rows[1]
    assert rows[0]["activation_sparsity"] < 1
    assert neurons < rows[0]["membrane_updates"] <= 4 * neurons  # all at the first step, then those that moved


# --- beside the package ----------------------------------------------------------------------------------------------


def by_the_package(model, data, spiking, batch_size=3):
    """Its metrics under our names."""
    static, workload = (pytest.importorskip(f"neurobench.metrics.{kind}") for kind in ("static", "workload"))
    benchmarks = pytest.importorskip("neurobench.benchmarks")
    labels = torch.zeros(len(data))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data, labels), batch_size)
    metrics = [workload.ActivationSparsity, workload.SynapticOperations]
    metrics += [workload.MembraneUpdates] if spiking else []
    listed = [[static.Footprint, static.ConnectionSparsity], metrics]
    found = benchmarks.Benchmark(model, loader, [], [], listed).run(quiet=True)
    return {
        "footprint_bytes": found["Footprint"],
        "connection_sparsity": found["ConnectionSparsity"],
        "activation_sparsity": found["ActivationSparsity"],
        "effective_acs": found["SynapticOperations"]["Effective_ACs"],
        "effective_macs": found["SynapticOperations"]["Effective_MACs"],
        "dense_operations": found["SynapticOperations"]["Dense"],
        "membrane_updates": found.get("MembraneUpdates", 0),
    }


def agree(ours, theirs, *, without=()):
    for name in ours.keys() - set(without):
        digits = 4 if name == "connection_sparsity" else 12  # the package rounds that one
        assert round(ours[name], digits) == pytest.approx(theirs[name], rel=1e-12), name


def test_relu_network_agrees_with_the_package():
    models = pytest.importorskip("neurobench.models")
    net, images = layers(nn.MaxPool2d(2), nn.ReLU), frames_of("numbers")[:, 0]
    with torch.no_grad(), Workload(net) as work:
        net(images)
    ours = work.row(IMAGES)
    agree(ours, by_the_package(models.TorchModel(net), images, spiking=False))
    assert 0 < ours["effective_macs"] < ours["dense_operations"]


class PerStep(nn.Module):
    """What the package wants of a network: one step, (spikes, potential)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def reset(self):
        """Between batches; the package's own way misses cells that are not children of the network itself."""
        for module in self.net:
            if hasattr(module, "reset_mem"):
                module.reset_mem()


def snntorch_twin(net, cells):
    """The same layers, and snnTorch's cells where ours are: reset by subtraction, in the step of the spike."""
    twin = []
    for place, module in enumerate(net):
        last = place == len(net) - 1
        cell = cells.Leaky(DECAY, threshold=0.99, init_hidden=True, reset_delay=False, output=last)
        twin.append(cell if isinstance(module, SpikingLayer) else module)
    return PerStep(nn.Sequential(*twin)).eval()


@torch.no_grad()
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
@pytest.mark.parametrize("kind", ["spikes", "numbers"])
def test_spiking_network_agrees_with_the_package(pool, kind):
    models, cells = pytest.importorskip("neurobench.models"), pytest.importorskip("snntorch")
    net, frames = layers(pool, lif), frames_of(kind)
    model = models.SNNTorchModel(snntorch_twin(net, cells))
    out, ours = run_folded(net, frames)
    assert torch.equal(model(frames).transpose(0, 1), out)  # spike for spike the same network
    # snnTorch keeps the potentials of the last batch as buffers, so that the footprint is asked of the same object
    footprint = footprint_bytes(model.net)
    theirs = by_the_package(model, frames, spiking=True)
    agree(ours, theirs, without=["footprint_bytes"])
    assert footprint == theirs["footprint_bytes"]
    assert ours["effective_acs"] > 0  # of the last layer, at least: spikes came that far


class Steps(nn.Module):
    """A converted network as the package wants one, which finds no neurons but cells of snnTorch."""

    def __init__(self, model):
        super().__init__()
        self.layers = nn.ModuleList(module for _, module in ConvertedByHand(model).rows)
        self.potentials = {}

    def forward(self, x):
        for place, module in enumerate(self.layers):
            if isinstance(module, IntegrateFire):
                v = self.potentials.get(place, module.start.expand_as(x))
                x, self.potentials[place] = fire(module, v, x)
            else:
                x = module(x)
        return x, None

    def reset(self):
        self.potentials.clear()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["spikes", "numbers"])
def test_a_converted_network_agrees_with_the_package(kind):
    models = pytest.importorskip("neurobench.models")
    model, frames = converted(nn.AvgPool2d(2)), frames_of(kind)
    ours = neurobench(model, [frames])
    steps = models.SNNTorchModel(Steps(model))
    torch.testing.assert_close(steps(frames).transpose(0, 1), model.head(model.backbone.forward_steps(frames)))
    theirs = by_the_package(steps, frames, spiking=False)
    agree(ours, theirs, without=["footprint_bytes", "activation_sparsity", "membrane_updates"])
    assert ours["effective_acs"] > 0


@torch.no_grad()
def test_the_packages_split_depends_on_the_batch_and_ours_does_not():
    models, cells = pytest.importorskip("neurobench.models"), pytest.importorskip("snntorch")
    net = layers(nn.MaxPool2d(2), lif)
    frames = torch.cat([frames_of("numbers")[:3], frames_of("spikes")[:3]])
    model = models.SNNTorchModel(snntorch_twin(net, cells))
    whole, halves = (by_the_package(model, frames, spiking=True, batch_size=size) for size in (6, 3))
    assert halves["effective_acs"] > whole["effective_acs"]  # a batch of nothing but spikes
    with torch.no_grad(), Workload(net) as work:
        graph = fx.GraphModule(net, Tracer().trace(net))
        for part in frames.split(3):
            TimeFolded(graph, STEPS, True).run(part.transpose(0, 1).flatten(0, 1))
    assert work.row(IMAGES)["effective_acs"] == whole["effective_acs"] == run_folded(net, frames)[1]["effective_acs"]
