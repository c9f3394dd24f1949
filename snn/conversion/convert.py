"""From a trained network to a spiking one, step by step; no runner, no files."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Wrapping
from engram.backbone.errors import TrialError, must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.folding import stage_names, trace
from engram.backbone.nets.layout import arranged
from engram.backbone.nets.plain import copied
from engram.backbone.nets.shapes import note_shapes
from engram.backbone.nets.traced import TracedBackbone
from engram.snn.conversion.balancing import Thresholds, thresholds
from engram.snn.conversion.calibration import calibrate
from engram.snn.conversion.methods import Conversion, Correction, Frames
from engram.snn.conversion.recurrence import LastStep, inside, require_plain, stage_places
from engram.snn.conversion.scaling import absorb
from engram.snn.graph.operations import is_activation, place
from engram.snn.graph.rewriting import Rises, analog_front, has_positive_factors, normal_form
from engram.snn.neurons.integrate_fire import HALF, IntegrateFire, per_neuron
from engram.snn.neurons.quantised import QCFS
from engram.snn.simulation.network import SpikingBackbone

N = TypeVar("N", bound=nn.Module)
FOLD_TOLERANCE = 1e-4
"""Largest difference that folding may make, relative to the largest feature: float32 rounding and no more."""
CHECKED = 32
"""Images on which the network in units of its thresholds is compared with the trained one."""
LEFT_OUT = 2
"""Steps after which the read-out of a QCFS network begins, unless told otherwise."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions in true float32: TF32, which GPUs use by default, would shift spikes."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def lower(backbone: nn.Module, rises: Rises = has_positive_factors) -> fx.GraphModule:
    """The graph of a network whose pre-flight passed, in `normal_form`."""
    graph = normal_form(trace(backbone), stage_names(backbone), rises)
    note_shapes(graph, backbone.in_shape)  # type: ignore[arg-type]
    return graph.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def check_folding(backbone: nn.Module, graph: fx.GraphModule, images: Tensor) -> float:
    """The largest relative difference folding made on normalised images [B, C, H, W].

    Quantised activations count as ReLUs here: rounding at the edge of a level would make a whole level of difference.
    A network with recurrence is compared with the same recurrence around the folded one.

    Raises:
        TrialError: it is more than rounding.
    """
    folded: nn.Module = graph
    if isinstance(backbone, Wrapping):
        inner = inside(backbone)
        stages = stage_places(inner, {node.name for node in graph.graph.nodes})
        backbone, folded = backbone.around(inner), backbone.around(TracedBackbone(graph, inner, stages))
    error = _difference(_continuous(backbone)(arranged(images, backbone)), _continuous(folded)(images))
    if not error <= FOLD_TOLERANCE:  # NaN included
        raise TrialError(
            f"the folded network must compute what the trained one does; its features differ by {error:.1e} of the"
            f" largest, over {FOLD_TOLERANCE:.0e}. Look for a BatchNorm variance near zero, or NaN weights."
        )
    return error


@torch.no_grad()
def check_units(backbone: nn.Module, graph: fx.GraphModule, found: Mapping[str, Thresholds], images: Tensor) -> float:
    """The largest relative difference that absorbing thresholds made, on normalised images [B, C, H, W].

    Compared are features of the network with those of the graph in units of its thresholds, its activations (as ReLUs,
    see `check_folding`) still in place. Other images follow in the same batch there: none may change what one gives.

    Raises:
        TrialError: it is more than rounding; with the first layer that computes something else.
    """
    plain, images = _continuous(graph), images[:CHECKED]
    scaled = copy.deepcopy(plain)
    shape: tuple[int, int, int] = backbone.in_shape  # type: ignore[assignment]
    units = absorb(scaled, {name: each.threshold for name, each in found.items()}, shape)
    more = torch.cat([images, -images.flip(0)]).contiguous(memory_format=torch.channels_last)
    error = _difference(_continuous(backbone)(arranged(images, backbone)), scaled(more))
    if not error <= FOLD_TOLERANCE:
        values, ours = _Values(plain).of(images), _Values(scaled).of(more)
        nodes = (node for node in plain.graph.nodes if node.name in units)
        wrong = (node for node in nodes if not _same(values[node.name], ours[node.name], units[node.name]))
        first = next((str(n.target) if n.op == "call_module" else place(n) for n in wrong), "the last layer")
        raise TrialError(
            f"the network in units of its thresholds must compute what the trained one does; its features differ by"
            f" {error:.1e} of the largest, first behind {first}. Write that layer with Conv2d, Linear, AvgPool2d,"
            " Flatten or addition, or keep a front of the network that contains it analog (--hybrid N)."
        )
    return error


class _Values(fx.Interpreter):
    """The values of all nodes, copied before anything overwrites them."""

    def of(self, x: Tensor) -> dict[str, Tensor]:
        self.found: dict[str, Tensor] = {}
        self.run(x)
        return self.found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n.name] = value.clone()
        return value


def _same(value: Tensor, ours: Tensor, unit: Tensor) -> bool:
    """value: [B, C, ...]; ours: [2 B, C, ...] in units [C] or [1]."""
    if ours.ndim != value.ndim or ours.shape[1:] != value.shape[1:] or value.ndim < 2:
        return ours.ndim == value.ndim and bool((ours == value).all())
    return _difference(value, ours * per_neuron(unit, ours)) <= FOLD_TOLERANCE


def _difference(expected: Tensor, found: Tensor) -> float:
    """Of the first images of a batch, relative to the largest value."""
    found = found[: len(expected)]
    if found.shape != expected.shape:
        return float("inf")
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12))


def _continuous(network: N) -> N:
    """The network with ReLUs for its QCFS activations; itself where there are none."""
    names = [name for name, module in network.named_modules() if isinstance(module, QCFS)]
    if names:
        network = copied(network)
        for name in names:
            network.set_submodule(name, nn.ReLU())
    return network


def with_neurons(
    backbone: nn.Module,
    graph: fx.GraphModule,
    thresholds: Mapping[str, Thresholds],
    steps: int,
    *,
    start: float = HALF,
    delay: int = 0,
    pre_simulation: int = 0,
    frames: Frames = "steps",
) -> SpikingBackbone:
    """Put integrate-and-fire neurons where the activations of a lowered graph are, thresholds into the weights.

    Args:
        backbone: the network that was lowered; it gives the shapes and the stages.
        graph: what `lower` made of it; left as it is.
        thresholds: of every activation that becomes neurons, by module name; the others stay analog.
        steps: simulation steps T.
        start, delay, pre_simulation, frames: see `IntegrateFire` and `SpikingBackbone`.
    """
    shape: tuple[int, int, int] = backbone.in_shape  # type: ignore[assignment]
    channels: tuple[int, ...] = backbone.stage_channels  # type: ignore[assignment]
    graph = copy.deepcopy(graph)
    units = absorb(graph, {name: found.threshold for name, found in thresholds.items()}, shape)
    for name, found in thresholds.items():
        graph.set_submodule(name, IntegrateFire(found.threshold.clone(), found.silent.clone(), start))
    stages = {name: units[name] for name in stage_places(backbone, units)}
    return SpikingBackbone(
        graph,
        shape,
        int(backbone.feature_dim),  # type: ignore[arg-type]
        channels,
        stages,
        steps,
        delay=delay,
        pre_simulation=pre_simulation,
        frames=frames,
    )


def convert(model: Classifier, batches: Iterable[Tensor], images: int, **options: Any) -> Classifier:
    """A spiking classifier from an analog one whose pre-flight passed.

    Args:
        model: in evaluation mode; left as it is.
        batches: training images as the model takes them, [b, C, H, W] uint8 or float in [0, 1], of recordings all
            frames; gone through again and again, so no iterator.
        images: how many there are in all batches.
        options: fields of `engram.snn.conversion.methods.Conversion`; ``steps`` is needed.

    Raises:
        UserError: an option cannot be, activations are not finite, or no neuron of a layer is ever active.
        TrialError: folding, or thresholds in the weights, changed what the network computes.
    """
    how = Conversion(**options)
    recurrent, inner = isinstance(model.backbone, Wrapping), inside(model.backbone)
    if recurrent:
        require_plain(how)
    with torch.inference_mode(False), torch.no_grad(), full_float32():
        graph = lower(inner)
        shared = _Normalised(model, batches)
        first = next(iter(shared), None)
        if first is None:
            raise must("the calibration images", "at least one", 0, "Give more training images.")
        found = thresholds_of(graph, shared, images, how, LastStep(model.backbone, graph) if recurrent else graph)
        check_folding(model.backbone, graph, first)
        check_units(inner, graph, found, first)
        made = rebuild(model, graph, found, how)
        method = "none" if recurrent else correction(graph, how)
        if method != "none":
            net: SpikingBackbone = made.backbone  # type: ignore[assignment]
            calibrate(net, graph, shared, method, calibration_steps(graph, how))
    return made


def correction(graph: fx.GraphModule, how: Conversion) -> Literal["none"] | Correction:
    """The calibration that ``auto`` stands for: potentials behind ReLUs, weights behind QCFS activations of few steps.

    Neurons repeat QCFS activations of L levels but for spikes that come unevenly. That costs most at L steps, and is
    over soon after 2 L: then calibration for few steps costs more than it mends, as validation images of CIFAR-10 say.
    """
    if how.calibration != "auto":
        return how.calibration
    levels = quantisation(graph)
    if not levels:
        return "potential"
    return "weights" if how.steps <= 2 * levels else "none"


def calibration_steps(graph: fx.GraphModule, how: Conversion) -> int:
    """The simulation length that calibration aims at: where neurons repeat what they stand for, if there is one."""
    levels = quantisation(graph)
    return min(how.steps, levels) if levels and how.calibration_steps is None else how.fitted_steps


def left_out(graph: fx.GraphModule, how: Conversion) -> int:
    """The steps that the read-out leaves out at the beginning. Chosen for QCFS on validation images of CIFAR-10."""
    if how.delay is not None:
        return how.delay
    return min(LEFT_OUT, how.steps // 2) if quantisation(graph) else 0


def quantisation(graph: fx.GraphModule) -> int:
    """The most levels of any QCFS activation, 0 where there is none."""
    return max((module.levels for module in graph.modules() if isinstance(module, QCFS)), default=0)


def thresholds_of(
    graph: fx.GraphModule, batches: Iterable[Tensor], images: int, how: Conversion, run: nn.Module | None = None
) -> dict[str, Thresholds]:
    """Thresholds of all activations that become neurons: QCFS brings its own, ReLUs need the images.

    Args:
        graph: what `lower` made of a network.
        batches: normalised training images.
        images: how many there are.
        how: which thresholds.
        run: what is run, with the activations of the graph; the graph itself unless said.

    Raises:
        UserError: no neuron of a layer is ever active, or an activation is not finite.
    """
    modules = dict(graph.named_modules())
    front = analog_front(graph, how.hybrid)
    layers = [str(node.target) for node in graph.graph.nodes if is_activation(node, modules)]
    quantised = {name: module for name in layers if isinstance(module := modules[name], QCFS)}
    measured = thresholds(
        run or graph,
        layers,
        lambda: batches,
        images,
        method=how.threshold,
        per=how.per,
        percentile=how.percentile,
        levels=how.fitted_steps,
    )
    found = {}
    for name in layers:
        if bool(measured[name].silent.all()):
            raise must(
                f"layer {name}",
                "active on some calibration image",
                "zeros alone",
                "Its input never exceeds zero: train the network again (lower learning rate, BatchNorm), or give other"
                " images with --calibration-images.",
            )
        if name in front:
            continue
        own = quantised.get(name)
        found[name] = Thresholds(own.theta().detach().clone(), measured[name].silent) if own else measured[name]
    return found


def times(graph: fx.GraphModule, how: Conversion) -> dict[str, Any]:
    """What a converted network does when: arguments of `with_neurons`."""
    return {
        "start": how.start,
        "delay": left_out(graph, how),
        "pre_simulation": how.pre_simulation,
        "frames": how.frames,
    }


def rebuild(model: Classifier, graph: fx.GraphModule, found: Mapping[str, Thresholds], how: Conversion) -> Classifier:
    """A spiking classifier with the preprocessing and head of ``model``, and its recurrence, not calibrated."""
    normalise, whole = model.normalise, model.backbone
    net: nn.Module = with_neurons(inside(whole), graph, found, how.steps, **times(graph, how))
    net = whole.around(net) if isinstance(whole, Wrapping) else net
    return Classifier(net, copy.deepcopy(model.head), normalise.mean, normalise.std).to(normalise.mean.device).eval()


class _Normalised:
    """Batches of images as the backbone takes them, as many times as they are asked for."""

    def __init__(self, model: Classifier, batches: Iterable[Tensor]) -> None:
        self.model, self.batches = model, batches

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches:
            yield self.model.normalise(batch).contiguous(memory_format=torch.channels_last)
