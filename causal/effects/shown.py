"""A network for some pictures, and for others whose values it is given in their place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engram.causal.effects.causes import Cause
from engram.causal.effects.options import SetTo
from engram.causal.effects.variants import Network, Variant
from engram.causal.intervening.place import Place


class Shown:
    """What every stage of a network has for some pictures, and what each of them is set to.

    Args:
        network: is left looking at the pictures.
        means: the mean of every stage, [S, 1, C, H, W].
        images: the pictures, normalised, and behind them the ``further`` next ones.
        further: each picture takes the values of the next one where its own are resampled; placebos need one more.

    Attributes:
        logits: [B, K], of the pictures as they are.
        others: the output of every stage, [S, B, C, H, W], for the pictures, and for the next of each and so on.
    """

    def __init__(self, network: Network, means: Sequence[Tensor], images: Tensor, further: int) -> None:
        self.network, self.means = network, means
        self.others: list[list[Tensor]] = []
        for shift in range(further, -1, -1):
            self.logits = network.look(images[shift : len(images) - further + shift])
            self.others.insert(0, list(network.stages))

    def values(self, stage: int, how: SetTo) -> Tensor:
        """What a whole stage is set to, [S, B, C, H, W], of which some dimensions may be 1."""
        if how == "mean":
            return self.means[stage]
        own = self.others[0][stage]
        return self.others[1][stage] if how == "resample" else own.new_zeros(1, 1, own.shape[2], 1, 1)

    def variant(self, cause: Cause, how: SetTo, held: Sequence[Place] = ()) -> Variant:
        """A cause that is set, while places behind it are held at what they have without that."""
        values = self.values(cause.stage, how)
        if cause.channel is not None:
            values = values[:, :, cause.channel : cause.channel + 1]
        return Variant(cause.place, values, tuple(held))

    def along(self, stage: int, direction: Tensor, values: Tensor) -> Variant:
        """What a stage has along a direction is set to what other values have there.

        Args:
            direction: [C], of length 1.
            values: [S, B, C, H, W], of which some dimensions but C may be 1.
        """
        own = self.others[0][stage]
        far = torch.einsum("sbchw,c->sbhw", values - own, direction).unsqueeze(2)
        return Variant(Place(stage), own + far * direction.view(-1, 1, 1))
