"""A converted network as one that can be trained: the same weights, and neurons with a surrogate gradient."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor

from engram.backbone.errors import must
from engram.snn.neurons.integrate_fire import IntegrateFire, per_neuron
from engram.snn.simulation.network import SpikingBackbone
from engram.snn.training.network import SpikingActivation, SpikingNetwork
from engram.snn.training.options import SpikingOptions


class ConvertedActivation(SpikingActivation):
    """Neurons in the units of `IntegrateFire` ones, which they go on from: same start, same current at every step.

    Buffers are those of the neurons replaced, under the same names; a learned scale has one value per threshold.
    """

    threshold: Tensor
    silent: Tensor
    start: Tensor
    current: Tensor

    def __init__(self, options: SpikingOptions, neurons: IntegrateFire) -> None:
        super().__init__(options, len(neurons.threshold))
        for name, value in neurons.named_buffers():
            self.register_buffer(name, value.clone())

    def scaled(self, drive: Tensor) -> Tensor:
        """drive: [T, B, C, ...] -> with the current added, in units of the scale."""
        current = per_neuron(self.current, drive[0]).to(drive.dtype) if bool(self.current.any()) else None
        return super().scaled(drive if current is None else drive + current)

    def first(self, one_step: Tensor) -> Tensor:
        """The calibrated potential before the first step."""
        return per_neuron(self.start, one_step)


class ConvertedNetwork(SpikingNetwork):
    """A `SpikingNetwork` made from a converted one, whose graph works in units of thresholds.

    Args:
        source: the converted network; it is left as it is.
        options: of the neurons. The start is the converted network's, whatever they say.

    Raises:
        UserError: it leaves out steps or pre-simulates some, which training knows nothing of.

    Source: Rathi et al. 2020 (arXiv 2005.01807), hybrid training: weights and thresholds of the conversion, then
    surrogate gradients.
    """

    def __init__(self, source: SpikingBackbone, options: SpikingOptions) -> None:
        if source.delay or source.pre_simulation:
            got = f"--delay {source.delay} --pre-simulation {source.pre_simulation}"
            remedy = "Convert the network again without them."
            raise must("a network to go on training", "converted without delay and pre-simulation", got, remedy)
        graph = copy.deepcopy(source.graph).requires_grad_(True)
        for name, neurons in source.neurons().items():
            graph.set_submodule(name, ConvertedActivation(options, neurons))
        shape, width, channels = source.in_shape, source.feature_dim, source.stage_channels
        super().__init__(graph, shape, width, channels, source.stage_nodes, options)
        for name, unit in source.named_buffers(recurse=False):
            self.register_buffer(name, unit.clone())

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the mean over steps of every stage in analog units."""
        pairs = zip(super().stages(x), self.stage_units(), strict=True)
        return [stage * per_neuron(unit, stage) for stage, unit in pairs]

    def stage_units(self) -> Sequence[Tensor]:
        """What 1 in the node of every stage stands for, [C] or [1]."""
        return [self.get_buffer(f"stage_unit_{place}") for place in range(len(self.stage_nodes))]
