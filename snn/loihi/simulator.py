"""Loihi 2 in whole numbers, for many images at once: what every neuron does at every step, and what it costs.

Populations are computed one after the other, all steps of one folded into the batch; those that drive each other go
step by step together.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from engram.backbone.errors import must
from engram.snn.loihi.arriving import Wires
from engram.snn.loihi.checking import check, check_images
from engram.snn.loihi.circles import groups
from engram.snn.loihi.network import ChipNetwork, Population, chip_delay, offsets
from engram.snn.loihi.populations import Neurons
from engram.snn.loihi.results import Run, joined
from engram.snn.loihi.running import Prepared, Running

MEMORY = 2**28
"""Bytes that the images of one chunk may take."""
KEPT = ("spikes", "u", "v")
Timing = Literal["aligned", "chip"]


class Simulator:
    """A network on a device, ready to run.

    Args:
        network: what is simulated.
        device: a torch device; CPUs and GPUs give the same numbers.
        timing: ``aligned``: a connection without delay takes no step; ``chip``: it takes one, as in Lava, populations
            lie `offsets` steps behind the input, and begin with whatever reaches them from the first step on until
            their state is set back at their offset.

    Raises:
        UserError: the chip cannot hold the network.
    """

    def __init__(self, network: ChipNetwork, device: str | torch.device = "cpu", timing: Timing = "aligned") -> None:
        check(network)
        self.network, self.device, self.timing = network, torch.device(device), timing
        self.offsets = offsets(network) if timing == "chip" else dict.fromkeys(offsets(network), 0)
        self._prepared = Prepared(
            network,
            groups(network.populations),
            {each.name: Neurons(each, self.device) for each in network.populations},
            {each.name: self._reaching(each) for each in network.populations},
            self.offsets,
        )

    def run(self, images: Tensor, keep: Collection[str] = ()) -> Run:
        """Simulate images.

        Args:
            images: [B, C, H, W], or [B, T, C, H, W] where the network takes frames; whole numbers as its input says.
            keep: of `KEPT`, what is wanted of every population at every step.

        Raises:
            UserError: these are not the network's images, or ``keep`` asks for something else.
        """
        check_images(self.network, images)
        if unknown := set(keep) - set(KEPT):
            raise must("keep", f"some of {', '.join(KEPT)}", ", ".join(sorted(unknown)), "Leave it out.")
        with torch.inference_mode():
            size, steps = max(1, MEMORY // self._bytes(images, keep)), self.steps(images)
            parts = [Running(self._prepared, part.to(self.device), steps, keep).run() for part in images.split(size)]
        return joined(parts)

    def steps(self, images: Tensor) -> int:
        """Steps that are read out, of images as `run` takes them."""
        return images.shape[1] if self.network.frames else self.network.steps

    def _reaching(self, population: Population) -> list[Wires]:
        made = []
        for one in population.synapses:
            delay = chip_delay(self.network, one, population.name) if self.timing == "chip" else one.delay
            if self.timing == "chip" and delay < 1:
                what = f"{population.name}: the way from {one.source}, on the chip's time"
                raise must(what, "at least a step", f"{delay} steps", f"Delay it by {1 - delay} more.")
            made.append(Wires(replace(one, delay=delay), population.shape, self.device))
        return made

    def _bytes(self, images: Tensor, keep: Collection[str]) -> int:
        """Of one image: what is sent, and the drive of the largest population."""
        sizes = [math.prod(each.shape) for each in self.network.populations]
        steps = self.steps(images) + max(self.offsets.values())
        return steps * (sum(sizes) * (1 + 4 * len(keep)) + 12 * max(*sizes, math.prod(self.network.input.shape)))
