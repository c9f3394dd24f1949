"""The spiking network a converted one is: the graph it came from, with neurons where its activations were."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Site, Tap
from engram.backbone.errors import must
from engram.backbone.nets.readout import read_out
from engram.backbone.nets.taps import stage_values
from engram.snn.graph.segments import layer_nodes
from engram.snn.graph.stepping import Memory, Stepped
from engram.snn.graph.taps import GraphTap, unchanged
from engram.snn.graph.timed import AlongTime, TimeFolded, empty_over_time, folded, neuron_layers, over_time, steps_first
from engram.snn.neurons.integrate_fire import IntegrateFire, per_neuron
from engram.snn.neurons.timed import TimedNeurons
from engram.snn.simulation import events
from engram.snn.simulation.counting import Tally, relay
from engram.snn.simulation.crossover import pays
from engram.snn.simulation.events import Driven, Spikes

MEMORY = 2**28
"""Bytes one chunk of images may take in a simulation: within what large caches and small machines forgive."""

# What returns memory of its own, which neurons may overwrite with their spikes.
_FRESH = (nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, AlongTime)
_FRESH_CALLS = ("add", "mul")


class Simulation(TimeFolded):
    """One run of a converted graph, in place where memory may be overwritten, counting spikes and operations.

    Where it can, spikes stay what `engram.snn.simulation.events` takes, and layers follow them; whoever needs a tensor
    gets one.

    Args:
        tally: counts spikes and operations.
        keep: names of nodes whose means over time are wanted in ``kept``.
        silenced: layer -> [B, C, ...] bool, neurons that must not fire.
        folded_frames: how many frames of a recording follow one another in the batch; the tally counts them one by one.
        tap: sees values of the run, as tensors, and may replace them; what it returns unchanged stays spikes.

    Attributes:
        residual: layer -> [B, C, ...] the potentials after the last step, when ``keep_residual`` is set.
    """

    keep_residual = False

    def __init__(
        self,
        graph: fx.GraphModule,
        steps: int,
        frames: bool,
        tally: Tally | None = None,
        keep: Collection[str] = (),
        silenced: Mapping[str, Tensor] | None = None,
        tap: GraphTap | None = None,
        folded_frames: int | None = None,
    ) -> None:
        super().__init__(graph, steps, frames, keep, tap)
        self.folded_frames = folded_frames
        self.tally, self.silenced = tally, silenced or {}
        self.residual: dict[str, Tensor] = {}
        self.follows_spikes = events.usable(graph)

    def value(self, node: fx.Node) -> Tensor:
        return _dense(super().value(node))

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple, dict]:
        return fx.node.map_arg(n.args, self.value), fx.node.map_arg(n.kwargs, self.value)  # type: ignore[return-value]

    def run_node(self, n: fx.Node) -> Any:
        value = self._compact(n) if self.follows_spikes and n.op == "call_module" else None
        if value is not None:
            self.timed.add(n)
            if self.tap is not None:
                value = self._compact_tapped(self.tap, n, value)
            if n.name in self.keep:
                self.kept[n.name] = _dense(value).unflatten(0, (self.steps, -1)).mean(0)
        else:
            value = super().run_node(n)
        if self.tally is not None and relay(n) in self.tally.fan_out:
            self._count(self.tally, relay(n), self.in_time(n, _dense(value)) != 0)
        return value

    def _count(self, tally: Tally, name: str, sent: Tensor) -> None:
        """sent: [T, B, C, ...]; of folded frames, each of which counts as one step: [steps, B * T, C, ...]."""
        if self.folded_frames is not None:
            sent = sent.float().sum(0).unflatten(0, (-1, self.folded_frames)).transpose(0, 1)
        tally.add(name, sent)

    def _compact(self, n: fx.Node) -> Spikes | Driven | Tensor | None:
        """What a node gives while spikes are bytes; None where it takes tensors."""
        module, (source, *others) = self.submodules[str(n.target)], n.all_input_nodes
        value = self.env[source]
        if others or events.is_watched(module):
            return None
        if isinstance(module, IntegrateFire):
            return self._fire_compactly(n, module, source)
        if not isinstance(value, Spikes):
            return None
        if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            return events.pooled(value, module)
        if not pays(value, module):
            return None
        (user, *more), layer = n.users, Driven(value, module)  # type: ignore[arg-type]
        neurons = self.submodules.get(str(user.target)) if user.op == "call_module" else None
        alone = not more and n.name not in self.keep and (self.tap is None or n.name not in self.tap.stage_nodes)
        return layer if alone and isinstance(neurons, IntegrateFire) else layer.dense()

    def _compact_tapped(self, tap: GraphTap, n: fx.Node, value: Spikes | Driven | Tensor) -> Spikes | Driven | Tensor:
        module = self.submodules[str(n.target)]
        neurons = isinstance(module, IntegrateFire)
        if not neurons and not tap.sees(n, module):
            return value
        shown = self.in_time(n, _dense(value))
        found = tap.neurons(str(n.target), shown) if neurons else shown
        found = tap.value(n, module, found) if tap.sees(n, module) else found
        return value if unchanged(found, shown) else folded(found)

    def _fire_compactly(self, n: fx.Node, neurons: IntegrateFire, source: fx.Node) -> Spikes | None:
        drive, name = self.env[source], str(n.target)
        if neurons.current.ndim > 1 or (isinstance(drive, Tensor) and drive.dtype != torch.float32):
            return None
        current = neurons.current if bool(neurons.current.any()) else None
        if isinstance(drive, Driven):
            spikes, v = events.convolved_and_fired(drive, self._begin(name, neurons, drive.like()), current)
        else:
            drive = _dense(drive)
            drive = drive.unflatten(0, (self.steps, -1)) if source in self.timed else over_time(drive, self.steps)
            spikes, v = events.fired(drive, self._begin(name, neurons, drive[0]), current)
        self._note_fired(name, spikes.channels_first(), v)
        return spikes

    def fire(self, n: fx.Node, neurons: TimedNeurons, drive: Tensor) -> Tensor:
        if not isinstance(neurons, IntegrateFire):
            return neurons(drive)
        (source,) = n.all_input_nodes
        v = self._begin(str(n.target), neurons, drive[0])
        mine = source in self.timed and len(source.users) == 1 and self._is_fresh(source)
        mine = mine and (self.tap is None or source.name not in self.tap.stage_nodes)
        spikes = neurons(drive, drive if mine else empty_over_time(self.value(source), drive), v)
        self._note_fired(str(n.target), spikes, v)
        return spikes if self.tap is None else self.tap.neurons(str(n.target), spikes)

    def _begin(self, name: str, neurons: IntegrateFire, one_step: Tensor) -> Tensor:
        v = neurons.begin(one_step)
        return v.masked_fill_(self.silenced[name], -torch.inf) if name in self.silenced else v

    def _note_fired(self, name: str, spikes: Tensor, v: Tensor) -> None:
        """spikes: [T, B, C, ...]; v: [B, C, ...] after the last step."""
        if self.keep_residual:
            self.residual[name] = v
        if self.tally is not None:
            self._count(self.tally, name, spikes)

    def _is_fresh(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.submodules[str(node.target)], _FRESH)
        return getattr(node.target, "__name__", "") in _FRESH_CALLS


def _dense(value: Any) -> Any:
    return value.dense() if isinstance(value, Spikes | Driven) else value


class SpikingBackbone(Stepped):
    """A converted network under the `engram.backbone.contract.Backbone` contract: one step of it is one step of spikes.

    Args:
        graph: a lowered network in units of its thresholds (`engram.snn.conversion.scaling.absorb`), `IntegrateFire`
            in place of its activations; features leave it in analog units.
        in_shape: (C, H, W) of one image.
        feature_dim, stage_channels: as in the analog network.
        stage_units: node that holds a stage -> unit of its channels, [C]; in the order of the stages.
        steps: simulation steps T for a still image, fed as a constant.
        delay: steps the read-out leaves out, while the first spikes are still on their way.
        pre_simulation: steps simulated beforehand to find the neurons that would end below zero; these stay silent.
            Frames are shown from the first on, and again when they are over.
        frames: what frames [B, T, C, H, W] are. "steps": one step each. "anew": still images by themselves, each fed
            for ``steps`` steps to neurons that begin anew; then one step of the contract is one frame, its features the
            mean over the frame's steps after ``delay``, and a tap sees every step of every frame.

    Source: pre-simulation: Hao et al. 2023 (arXiv 2302.02091), algorithm 1.
    """

    readout: Literal["mean", "last"] = "mean"
    any_layout = True

    def __init__(
        self,
        graph: fx.GraphModule,
        in_shape: tuple[int, int, int],
        feature_dim: int,
        stage_channels: tuple[int, ...],
        stage_units: Mapping[str, Tensor],
        steps: int,
        *,
        delay: int = 0,
        pre_simulation: int = 0,
        frames: Literal["steps", "anew"] = "steps",
    ) -> None:
        super().__init__()
        self.graph = graph
        self.in_shape, self.feature_dim, self.stage_channels = in_shape, feature_dim, stage_channels
        self.stage_nodes, self.steps = tuple(stage_units), steps
        self.frames, self.pre_simulation = frames, pre_simulation
        self.delay, self.frame_delay = (delay, 0) if frames == "steps" else (0, delay)
        for place, unit in enumerate(stage_units.values()):
            self.register_buffer(f"stage_unit_{place}", unit)
        self.bytes_per_step = peak_bytes(graph, in_shape)

    def neurons(self) -> dict[str, IntegrateFire]:
        """The neuron layers by name, in the order they run."""
        return neuron_layers(self.graph, IntegrateFire)

    def chunk(self, steps: int) -> int:
        """How many images of so many steps, or frames, to simulate at once, within the memory set aside."""
        return max(1, MEMORY // (self.bytes_per_step * max(self.simulated(steps), self.pre_simulation)))

    def simulated(self, frames: int) -> int:
        """How many steps of the simulation so many frames take, beside `pre_simulation`."""
        return frames * (self.steps if self.frames == "anew" else 1)

    def simulate(self, x: Tensor, tally: Tally | None = None) -> Tensor:
        """x: [B, C, H, W] normalised images, or [B, T, C, H, W] -> features [T, B, feature_dim], all images at once."""
        return self._run(x, tally)[0]

    def observe(self, x: Tensor, tally: Tally | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """As `simulate`, and the mean over steps of the spikes of every layer: layer -> [B, C, ...] in [0, 1].

        Where frames begin anew, of every frame by itself: [B * T, C, ...].
        """
        names = {layer: node for layer, node in layer_nodes(self.graph).items() if layer in self.neurons()}
        features, kept = self._run(x, tally, names.values())
        return features, {layer: kept[node] for layer, node in names.items()}

    def as_graph(self) -> fx.GraphModule:
        """The graph that is run."""
        return self.graph

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [T, B, feature_dim], without a tap chunk by chunk."""
        if tap is not None:
            on_graph = GraphTap(tap, self.stage_nodes, self.stage_units())
            anew = x.ndim == 5 and self.frames == "anew"
            inside = replace(on_graph, tap=_in_order(tap, x.shape[1])) if anew else on_graph
            return on_graph.features(self._run(x, tap=inside)[0])
        steps = x.shape[1] if x.ndim == 5 else self.steps
        return torch.cat([self.simulate(part) for part in x.split(self.chunk(steps))], 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim], the mean over the steps after ``delay``."""
        features = self.forward_steps(x)
        return read_out(features, [len(features)], self.readout, self.delay)[0]

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the mean over steps of every stage in analog units, each [B, C_i, H_i, W_i]."""
        kept = self._run(x, None, self.stage_nodes)[1]
        pairs = zip(self.stage_nodes, self.stage_units(), strict=True)
        return [kept[name] * per_neuron(unit, kept[name]) for name, unit in pairs]

    def stage_steps(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> every stage at every step in analog units, [S, B, C_i, H_i, W_i]."""
        return stage_values(self, x)

    def stage_units(self) -> Sequence[Tensor]:
        """What one spike in the node of every stage stands for, [C] or [1]."""
        return [self.get_buffer(f"stage_unit_{place}") for place in range(len(self.stage_nodes))]

    def apply_stage(self, index: int, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """One step of one stage in analog units, [B, C, H, W]; see `engram.snn.graph.stepping.Stepped`.

        Raises:
            UserError: steps are simulated beforehand, frames begin anew, or a gradient is wanted.
        """
        self._require_steps(x)
        with torch.no_grad():
            return super().apply_stage(index, x, memory, tap)

    def apply_tail(self, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """x: the output of the last stage at this step, [B, C, H, W] -> features [B, feature_dim]."""
        self._require_steps(x)
        with torch.no_grad():
            return super().apply_tail(x, memory, tap)

    def _require_steps(self, x: Tensor) -> None:
        """See that one step after another is all that there is to this network."""
        what = "a converted network that is run step by step"
        if self.pre_simulation:
            got = f"--pre-simulation {self.pre_simulation}"
            raise must(what, "one without steps beforehand, after which neurons begin again", got, "Leave it out.")
        if self.frames == "anew":
            got, remedy = "one of recordings, each of whose frames is many steps", "Convert one for pictures."
            raise must(what, "one whose frames are steps", got, remedy)
        if torch.is_grad_enabled() and x.requires_grad:
            remedy = "Make it trainable first: --adapter snn.spiking,..."
            raise must(what, "used as it is", "a gradient that is wanted through its neurons", remedy)

    @torch.no_grad()
    def _run(
        self, x: Tensor, tally: Tally | None = None, keep: Collection[str] = (), tap: GraphTap | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if x.ndim not in (4, 5) or x.shape[-3:] != self.in_shape or 0 in x.shape:
            rule = "[B, {0}, {1}, {2}] or frames [B, T, {0}, {1}, {2}]".format(*self.in_shape)
            raise must("images for this network", rule, list(x.shape), "Check --dataset, or reshape them.")
        if x.ndim == 5 and self.frames == "anew":
            return self._run_anew(x, tally, keep, tap)
        silenced = self._pre_simulate(x, tally) if self.pre_simulation else None
        frames = x.ndim == 5
        steps = x.shape[1] if frames else self.steps
        run = Simulation(self.graph, steps, frames, tally, keep, silenced, tap)
        features = run.run(steps_first(x))
        return features.unflatten(0, (steps, -1)), run.kept

    def _run_anew(
        self, x: Tensor, tally: Tally | None, keep: Collection[str], tap: GraphTap | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames as still images in one batch, each recording's after one another -> features [T, B, feature_dim]."""
        count = x.shape[1]
        run = Simulation(self.graph, self.steps, False, tally, keep, tap=tap, folded_frames=count)
        features = run.run(steps_first(x.flatten(0, 1))).unflatten(0, (self.steps, -1))
        shown = features[self.frame_delay :].mean(0)
        return shown.unflatten(0, (-1, count)).transpose(0, 1), run.kept

    def _pre_simulate(self, x: Tensor, tally: Tally | None) -> dict[str, Tensor]:
        """Neurons that end below zero, having sent more than they got: layer -> [B, C, ...] bool.

        Their spikes until then are paid for as well, whatever the number of steps that follow.
        """
        frames, steps = x.ndim == 5, self.pre_simulation
        x = x[:, torch.arange(steps, device=x.device) % x.shape[1]] if frames else x
        before = Tally(tally.fan_out, [steps]) if tally is not None else None
        run = Simulation(self.graph, steps, frames, before)
        run.keep_residual = True
        run.run(steps_first(x))
        if tally is not None and before is not None:
            tally.merge(before)
        return {name: v < 0 for name, v in run.residual.items()}


def _in_order(tap: Tap, frames: int) -> Tap:
    """A tap of values in the order of time, for a run on frames that are folded into the batch."""

    def ordered(site: Site, value: Tensor) -> Tensor:
        steps, folded_batch, *_ = value.shape
        timed = value.unflatten(1, (folded_batch // frames, frames)).movedim(2, 0).flatten(0, 1)
        found = tap(site, timed)
        return value if found is timed else found.unflatten(0, (frames, steps)).movedim(0, 2).flatten(1, 2)

    return ordered


@torch.no_grad()
def rates(
    graph: fx.GraphModule, batches: Iterable[Tensor], steps: int, nodes: Collection[str]
) -> Iterator[dict[str, Tensor]]:
    """Means over time of some values of a spiking graph, node -> [b, ...], for chunks of still images that fit memory.

    Args:
        batches: normalised images, [b, C, H, W] each.
        steps: T.
        nodes: names of nodes.
    """
    chunk = 0
    for batch in batches:
        channels, height, width = batch.shape[1:]
        chunk = chunk or max(1, MEMORY // (peak_bytes(graph, (channels, height, width)) * steps))
        for part in batch.split(chunk):
            run = Simulation(graph, steps, frames=False, keep=nodes)
            run.run(steps_first(part))
            yield run.kept


def peak_bytes(graph: fx.GraphModule, in_shape: tuple[int, int, int]) -> int:
    """Bytes that the values alive at the same time take, at most, for one image and step."""
    device = next(chain(graph.parameters(), graph.buffers())).device
    sizes: dict[fx.Node, int] = {}

    class Measure(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            sizes[n] = value.numel() * value.element_size() if isinstance(value, Tensor) and n.op != "get_attr" else 0
            return value

        def call_module(self, target: Any, args: tuple, kwargs: dict) -> Any:
            neurons = isinstance(self.submodules[str(target)], TimedNeurons)
            return args[0].clone() if neurons else super().call_module(target, args, kwargs)

    with torch.no_grad():
        Measure(graph).run(torch.zeros(1, *in_shape, device=device))
    order = list(graph.graph.nodes)
    last = {node: max((order.index(user) for user in node.users), default=i) for i, node in enumerate(order)}
    return max(sum(sizes[node] for node in order[: i + 1] if last[node] >= i) for i in range(len(order)))
