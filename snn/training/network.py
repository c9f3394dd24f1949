"""The trainable spiking network: a traced graph run over time, its state an argument and a result."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from engram.backbone.contract import Row, Tap
from engram.backbone.errors import must
from engram.backbone.nets.recompute import unchanged_statistics
from engram.backbone.nets.shapes import value_shapes
from engram.backbone.nets.taps import stage_values
from engram.snn.engines.layer import SpikingLayer
from engram.snn.graph.constants import constant_nodes, known_nodes, needed
from engram.snn.graph.stepping import Stepped
from engram.snn.graph.taps import GraphTap
from engram.snn.graph.timed import AlongTime, TimeFolded, neuron_layers, steps_first
from engram.snn.neurons.firing import State, start
from engram.snn.neurons.timed import TimedNeurons
from engram.snn.training.options import SpikingOptions

MEMORY = 2**28
"""Bytes the largest values of one part of a batch may take when no gradient is wanted."""

States = Mapping[str, State]
"""The state of every neuron layer, by module name."""


class SpikingActivation(TimedNeurons):
    """Spiking neurons in the units of the activation they replace: ``y[t] = c s[t]``, driven by ``x[t] / c``.

    Args:
        options: what neurons; with ``learn_scale`` the scale c > 0 is a parameter, otherwise it is 1.
        channels: of the activation, dimension 1.

    With a threshold of 1, IF neurons with soft reset and a constant drive this is a quantised ReLU clipped at c.
    """

    def __init__(self, options: SpikingOptions, channels: int) -> None:
        super().__init__()
        self.layer = SpikingLayer(options)
        self.scale = nn.Parameter(torch.ones(channels)) if options.learn_scale else None
        self.head_start = options.start

    def scan(self, drive: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """drive: [T, B, C, ...] -> (spikes in {0, 1} of the same shape, the state after step T)."""
        constant = drive.stride(0) == 0 and len(drive) > 1
        one = self.scaled(drive[:1] if constant else drive)
        drive = one.expand_as(drive) if constant else one
        first = self.first(drive[0]) if state is None else None
        if first is not None:
            params = self.layer.params(drive.ndim - 1)
            rest = start(drive[0], params)
            state = rest._replace(v=rest.v + first * params.threshold)
        return self.layer.scan(drive, state)

    def scaled(self, drive: Tensor) -> Tensor:
        """drive: [T, B, C, ...] -> the same in units of the scale."""
        return drive if self.scale is None else drive / self._scale_of(drive)

    def first(self, one_step: Tensor) -> Tensor | float | None:
        """The potential before the first step, in thresholds, for ``one_step`` [B, C, ...]; None for zero."""
        return self.head_start or None

    def send(self, spikes: Tensor) -> Tensor:
        """spikes: [T, B, C, ...] in {0, 1} -> what the next layers get."""
        return spikes if self.scale is None else spikes * self._scale_of(spikes)

    def forward(self, drive: Tensor) -> Tensor:
        """drive: [T, B, C, ...] -> the same, from the state of rest."""
        return self.send(self.scan(drive, None)[0])

    def _scale_of(self, like: Tensor) -> Tensor:
        assert self.scale is not None
        return self.scale.to(like.dtype).view(1, 1, -1, *[1] * (like.ndim - 3))


class Unrolled(TimeFolded):
    """One run of some steps.

    Args:
        graph: the network's graph.
        steps: how many.
        frames: the input is timed.
        states: after the steps before; empty at first.
        keep: names of nodes whose means over time are wanted in ``kept``.
        tap: sees values of the run, and may replace them.
        again: nodes that ran for earlier steps of the same images: their BatchNorm counts these no second time.

    Attributes:
        states: after the last step.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        steps: int,
        frames: bool,
        states: States,
        keep: Collection[str] = (),
        tap: GraphTap | None = None,
        again: Collection[fx.Node] = (),
    ) -> None:
        super().__init__(graph, steps, frames, keep, tap)
        self.states, self.again = dict(states), again

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_module" or n not in self.again:
            return super().run_node(n)
        with unchanged_statistics(self.submodules[str(n.target)]):
            return super().run_node(n)

    def fire(self, n: fx.Node, neurons: TimedNeurons, drive: Tensor) -> Tensor:
        assert isinstance(neurons, SpikingActivation)  # nothing else stands in a graph of ours
        name = str(n.target)
        spikes, self.states[name] = neurons.scan(drive, self.states.get(name))
        return neurons.send(spikes if self.tap is None else self.tap.neurons(name, spikes))


class SpikingNetwork(Stepped):
    """A network of spiking neurons under the `engram.backbone.contract.Backbone` contract; one step is one step of
    spikes.

    Everything between neurons runs once, with time folded into the batch, batch normalisation included: its statistics
    are over time and batch together, with threshold 1 the threshold-dependent ones of the source. What a still image
    passes before the first neurons is the same at every step and runs once.

    Args:
        graph: a traced network whose activations are `SpikingActivation`.
        in_shape: (C, H, W) of one image.
        feature_dim, stage_channels: as in the network it was made from.
        stage_nodes: names of the graph's nodes that hold its stages.
        options: steps and what bounds memory.

    With ``recompute`` set and no ``checkpoint_steps``, training keeps the states of every sqrt(T)-th step.

    Source: Zheng et al. 2021 (arXiv 2011.05280), section 4 (normalisation over time and batch).
    """

    readout: Literal["mean", "last"] = "mean"
    recompute = False
    any_layout = True
    verdicts: Sequence[Row] = ()

    def __init__(
        self,
        graph: fx.GraphModule,
        in_shape: tuple[int, int, int],
        feature_dim: int,
        stage_channels: tuple[int, ...],
        stage_nodes: Sequence[str],
        options: SpikingOptions,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.in_shape, self.feature_dim, self.stage_channels = in_shape, feature_dim, stage_channels
        self.stage_nodes, self.options, self.steps = tuple(stage_nodes), options, options.steps
        self.values_per_step = largest_values(graph, in_shape)

    def neurons(self) -> dict[str, SpikingActivation]:
        """The neuron layers by name, in the order they run."""
        return neuron_layers(self.graph, SpikingActivation)

    def as_graph(self) -> fx.GraphModule:
        """The graph that is run."""
        return self.graph

    def chunk(self, steps: int) -> int:
        """How many images to run at once without a gradient, within the memory set aside."""
        return max(1, MEMORY // (4 * self.values_per_step * steps))

    def stage_units(self) -> Sequence[Tensor]:
        """What 1 in the node of every stage stands for, [C] or [1]; none where nodes hold what stages are."""
        return ()

    def run_chunk(self, x: Tensor | Mapping[str, Tensor], states: States, steps: int) -> tuple[Tensor, States]:
        """Run some steps.

        Args:
            x: [B, K, C, H, W] frames of these steps; [B, C, H, W] a still image, or what `constants` made of it.
            states: after the steps before; {} at first.
            steps: K.

        Returns: (features [K, B, feature_dim], the states after these steps).
        """
        if isinstance(x, Tensor) and x.ndim == 5:
            run = Unrolled(self.graph, steps, True, states)
            features = run.run(steps_first(x))
        else:
            known = self.constants(x) if isinstance(x, Tensor) else x
            run = Unrolled(self.graph, steps, False, states)
            skipped = self._known_nodes()
            run.constant |= skipped
            features = run.run(initial_env={node: known.get(node.name) for node in skipped})
        return features.unflatten(0, (steps, -1)), run.states

    def run_tapped(
        self, x: Tensor, states: States, steps: int, tap: Tap, first: int = 0, nodes: bool = False
    ) -> tuple[Tensor, States]:
        """As `run_chunk`, but under a tap: what is the same at every step is run for it as well.

        Args:
            x: [B, K, C, H, W] frames of these steps, or [B, C, H, W] a still image.
            states: after the steps before; {} at first.
            steps: K.
            tap: sees, and may replace, what is at every site.
            first: the number of the first of these steps.
            nodes: let it see the values of all nodes of the graph.
        """
        on_graph = GraphTap(tap, self.stage_nodes, self.stage_units(), first, nodes)
        again = self._constant_nodes() if first and x.ndim == 4 else ()
        run = Unrolled(self.graph, steps, x.ndim == 5, states, (), on_graph, again)
        features = run.run(steps_first(x))
        return on_graph.features(features.unflatten(0, (steps, -1))), run.states

    def constants(self, x: Tensor) -> dict[str, Tensor]:
        """What a still image gives before the first neurons, where it is needed at every step. x: [B, C, H, W]."""
        nodes = self._constant_nodes()
        run = fx.Interpreter(self.graph, garbage_collect_values=False)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                run.env[node] = x.contiguous(memory_format=torch.channels_last)
            elif node in nodes or node.op == "get_attr":
                run.env[node] = run.run_node(node)
        return {node.name: run.env[node] for node in needed(self._known_nodes())}

    def _constant_nodes(self) -> set[fx.Node]:
        """Nodes that depend on a still image and on no neurons."""
        return constant_nodes(self.graph.graph, self.graph)

    def _known_nodes(self) -> set[fx.Node]:
        """Those of them that a run of some steps need not compute again."""
        return known_nodes(self.graph.graph, self._constant_nodes())

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [T, B, feature_dim]; with no gradient and no tap, part by part."""
        if tap is not None or torch.is_grad_enabled():
            return self._unroll(x, tap)
        steps = x.shape[1] if x.ndim == 5 else self.steps
        return torch.cat([self._unroll(part) for part in x.split(self.chunk(steps))], 1)

    def stage_steps(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the output of every stage at every step, each [S, B, C_i, H_i, W_i]."""
        return stage_values(self, x)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim], the mean over steps."""
        return self.forward_steps(x).mean(0)

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the mean over steps of every stage, each [B, C_i, H_i, W_i]."""
        frames = x.ndim == 5
        run = Unrolled(self.graph, x.shape[1] if frames else self.steps, frames, {}, self.stage_nodes)
        run.run(steps_first(x))
        return [run.kept[name] for name in self.stage_nodes]

    def _unroll(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        frames = x.ndim == 5
        steps = x.shape[1] if frames else self.steps
        wanted, truncate = self._checkpoint_steps(steps), self.options.truncate
        if (wanted is None and truncate is None) or not torch.is_grad_enabled():
            return self.run_chunk(x, {}, steps)[0] if tap is None else self.run_tapped(x, {}, steps, tap)[0]
        known: Tensor | Mapping[str, Tensor] = x if frames or tap is not None else self.constants(x)
        features, states = [], {}
        for first, last in pieces(steps, wanted, truncate):
            part = known[:, first:last] if frames and isinstance(known, Tensor) else known
            if truncate is not None and first % truncate == 0:
                states = {name: state.detached() for name, state in states.items()}
            if tap is not None and isinstance(part, Tensor):
                out, states = self.run_tapped(part, states, last - first, tap, first)
            else:
                run = self.run_chunk if wanted is None else self._run_again
                out, states = run(part, states, last - first)
            features.append(out)
        return torch.cat(features)

    def _run_again(self, x: Tensor | Mapping[str, Tensor], states: States, steps: int) -> tuple[Tensor, States]:
        """`run_chunk`, but what lies between its two ends is computed again for the backward pass."""

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), unchanged_statistics(self.graph)

        return checkpoint(self.run_chunk, x, states, steps, use_reentrant=False, context_fn=contexts)  # type: ignore[return-value]

    def _checkpoint_steps(self, steps: int) -> int | None:
        recompute = self.options.checkpoint_steps is None and self.recompute and self.training
        wanted = math.ceil(steps**0.5) if recompute else self.options.checkpoint_steps
        if (wanted or self.options.truncate) and torch.is_grad_enabled() and self._looks_back():
            raise must(
                "--truncate, --checkpoint-steps and --gradient-checkpointing",
                "left out for a network with max pools over time, or features of first spikes",
                "one of them",
                "Train with fewer steps or smaller batches instead.",
            )
        return wanted

    def _looks_back(self) -> bool:
        """Whether layers look at earlier steps of which the states of neurons say nothing."""
        return any(isinstance(module, AlongTime) for module in self.graph.modules())


def pieces(steps: int, *lengths: int | None) -> Iterator[tuple[int, int]]:
    """Parts of a run that end wherever one of some lengths ends.

    >>> list(pieces(8, 3, 4))
    [(0, 3), (3, 4), (4, 6), (6, 8)]
    """
    ends = {steps}.union(*(range(length, steps, length) for length in lengths if length is not None))
    first = 0
    for last in sorted(ends):
        yield first, last
        first = last


def largest_values(graph: fx.GraphModule, in_shape: tuple[int, int, int]) -> int:
    """How many numbers the two largest neighbouring values of one image and step hold."""
    found = value_shapes(graph, in_shape, (TimedNeurons,))
    sizes = [found[node].numel() if node in found and node.op != "get_attr" else 0 for node in graph.graph.nodes]
    return max(a + b for a, b in zip([0, *sizes], sizes, strict=False))
