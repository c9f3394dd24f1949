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
        further: each picture takes the values of the next one, where its own are resampled; a placebo needs one more.

    Attributes:
        logits: [B, K], of the pictures as they are.
    """

    def __init__(self, network: Network, means: Sequence[Tensor], images: Tensor, further: int) -> None:
        self.network, self.means = network, means
        self.others: list[list[Tensor]] = []
        for shift in range(further, -1, -1):
            self.logits = network.look(images[shift : len(images) - further + shift])
            self.others.insert(0, list(network.stages))

    def values(self, stage: int, how: SetTo, shift: int = 0) -> Tensor:
        """What a whole stage is set to, [S, B, C, H, W], of which some dimensions may be 1.

        Args:
            stage: its number.
            how: see `SetTo`.
            shift: 0: for the pictures; 1: for the next of each.
        """
        if how == "mean":
            return self.means[stage]
        own = self.others[shift][stage]
        return self.others[shift + 1][stage] if how == "resample" else own.new_zeros(1, 1, own.shape[2], 1, 1)

    def variant(self, cause: Cause, how: SetTo, held: Sequence[Place] = ()) -> Variant:
        """A cause that is set, while places behind it are held at what they have without that."""
        values = self.values(cause.stage, how)
        if cause.channel is not None:
            values = values[:, :, cause.channel : cause.channel + 1]
        return Variant(cause.place, values, tuple(held))

    def placebo(self, stage: int, how: SetTo, direction: Tensor) -> Variant:
        """A stage moved along a direction, as far as the *next* picture would be if it were set along it.

        As large a change as that of a channel, which has nothing to do with the picture: its effect is about 0.

        Args:
            direction: [C], of length 1.
        """
        change = self.values(stage, how, shift=1) - self.others[1][stage]
        far = torch.einsum("sbchw,c->sbhw", change, direction).unsqueeze(2)
        return Variant(Place(stage), self.others[0][stage] + far * direction.view(-1, 1, 1))
