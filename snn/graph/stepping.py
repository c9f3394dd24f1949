"""A spiking network run stage by stage and step by step, with what its layers remember in a dict of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Tap
from engram.backbone.nets.cutting import stage_graphs
from engram.backbone.nets.recompute import unchanged_statistics
from engram.snn.graph.constants import constant_nodes, known_nodes, needed
from engram.snn.graph.taps import GraphTap, unchanged
from engram.snn.graph.timed import AlongTime, TimeFolded
from engram.snn.neurons.firing import State
from engram.snn.neurons.timed import TimedNeurons

Memory = dict[str, Any]
"""What layers remember between steps: tensors by name, which nobody writes into."""
Watch = Callable[[str, Tensor], object]


class Stepped(nn.Module):
    """What makes a network that runs a graph over time a `engram.backbone.contract.Remembering` one.

    What a still image passes before the first neurons runs once, as long as the same tensor is given at every step.
    """

    remembers: Literal[True] = True
    watch: Watch | None = None
    """Is shown the spikes of every layer at every step, [1, B, C, ...], by its name, and which values are not zero at
    every other node, by ``%`` and its name."""
    graph: fx.GraphModule
    stage_nodes: Sequence[str]

    def stage_units(self) -> Sequence[Tensor]:
        """What 1 in the node of every stage stands for, [C] or [1]; none where nodes hold what stages are."""
        raise NotImplementedError

    def apply_stage(self, index: int, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """One step of one stage.

        Args:
            index: the number of the stage.
            x: [B, C, H, W] the images, or the output of stage ``index - 1`` at this step.
            memory: after the step before; what is new is put into it. None: the stage begins from rest.
            tap: sees, and may replace, the spikes of layers of neurons, [1, B, C, ...]; nothing is left out then.

        Returns: [B, C, H, W].

        Raises:
            UserError: more than one value leads from one stage to the next.
        """
        memory = {} if memory is None else memory
        value = self._run_part(index, x, memory, tap)
        if not self.stage_units():
            return value
        shown = value * self._unit(index)
        memory[f"{index}%output"], memory[f"{index}%shown"] = value, shown
        return shown

    def apply_tail(self, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """x: the output of the last stage at this step, [B, C, H, W] -> features [B, feature_dim]."""
        return self._run_part(len(self.stage_nodes), x, {} if memory is None else memory, tap)

    def _unit(self, index: int) -> Tensor:
        return self.stage_units()[index].view(-1, 1, 1)

    def _run_part(self, number: int, x: Tensor, memory: Memory, tap: Tap | None) -> Tensor:
        if number and self.stage_units():
            shown = memory.get(f"{number - 1}%shown")
            same = shown is not None and unchanged(x, shown)  # dividing by the unit again could round
            x = memory[f"{number - 1}%output"] if same else x / self._unit(number - 1)
        parts = stage_graphs(self.graph.graph, self.stage_nodes)
        neurons = any(self._has_neurons(part) for part in parts[:number])
        still = not neurons and _stays(memory, f"{number}%input", x)
        return Step(self.graph, parts[number], still, memory, f"{number}%", tap, self.watch).of(x)

    def _has_neurons(self, part: fx.Graph) -> bool:
        calls = (str(node.target) for node in part.nodes if node.op == "call_module")
        return any(isinstance(self.graph.get_submodule(name), TimedNeurons) for name in calls)


def _stays(memory: Memory, name: str, x: Tensor) -> bool:
    """Whether what comes in has been the same tensor since the first step; it is noted for the next one."""
    before = memory.get(name)
    same = before is None or (before.data_ptr() == x.data_ptr() and before.stride() == x.stride())
    memory[name] = x if same else x.new_empty(0)
    return same


class Step(TimeFolded):
    """One step of a part of a graph.

    Args:
        graph: the network's graph, whose modules are run.
        part: from one value to another.
        still: the input has been the same at all steps so far.
        memory: after the step before; what is new is put into it.
        prefix: of the part's own names in it.
        spikes: a tap on what layers of neurons send. Analog activations are modules, which hooks see: all of them run.
        watch: sees what is sent. Then nothing is left out either.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        part: fx.Graph,
        still: bool,
        memory: Memory,
        prefix: str,
        spikes: Tap | None,
        watch: Watch | None,
    ) -> None:
        super().__init__(graph, 1, not still, part=part)
        self.memory, self.prefix, self.spikes, self.watch = memory, prefix, spikes, watch
        constant = constant_nodes(part, graph, (TimedNeurons, AlongTime)) if still else set[fx.Node]()
        self.known = known_nodes(part, constant)
        self.wanted = needed(self.known)
        self.seen = still and all(self.prefix + node.name in memory for node in self.wanted)

    def of(self, x: Tensor) -> Tensor:
        """x: [B, ...] of this step -> what the part gives, [B, ...]."""
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        if not self.seen or self.spikes is not None or self.watch is not None:
            return self.run(x)
        self.constant |= self.known
        return self.run(x, initial_env={node: self.memory.get(self.prefix + node.name) for node in self.known})

    def run_node(self, n: fx.Node) -> Any:
        module = self.submodules.get(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, AlongTime) and n.all_input_nodes[0] in self.constant:
            self.look_back(n, module, self.value(n.all_input_nodes[0]).unsqueeze(0))  # for steps that may be others
        if self.seen and module is not None and n in self.known:
            with unchanged_statistics(module):
                value = super().run_node(n)
            self._show(n, value)
            return value
        value = super().run_node(n)
        if n in self.wanted:
            self.memory[self.prefix + n.name] = value
        self._show(n, value)
        return value

    def _show(self, n: fx.Node, value: Any) -> None:
        if self.watch is not None and isinstance(value, Tensor) and n.op not in ("get_attr", "output"):
            self.watch(f"%{n.name}", value.unsqueeze(0) != 0)

    def fire(self, n: fx.Node, neurons: TimedNeurons, drive: Tensor) -> Tensor:
        name = str(n.target)
        spikes, after = neurons.scan(drive, self._remembered(name))
        self.memory |= {f"{name}.{field}": value for field, value in after._asdict().items() if value is not None}
        if self.watch is not None:
            self.watch(name, spikes)
        return neurons.send(spikes if self.spikes is None else GraphTap(self.spikes, ()).neurons(name, spikes))

    def _remembered(self, neurons: str) -> State | None:
        if f"{neurons}.v" not in self.memory:
            return None
        return State(*(self.memory.get(f"{neurons}.{field}") for field in State._fields))  # type: ignore[arg-type]

    def look_back(self, n: fx.Node, layer: AlongTime, drive: Tensor) -> Tensor:
        name = self.prefix + n.name
        value, self.memory[name] = layer.along_time(drive, self.memory.get(name))
        return value
