"""What is kept of every picture: the answers of the network as it is, and with each of its parts set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engram.causal.effects.causes import Cause
from engram.causal.effects.options import SetTo
from engram.causal.effects.shown import Shown
from engram.causal.effects.variants import OUTCOMES, outcomes


class Effects:
    """Outcomes (`OUTCOMES`) of every picture, as the network is and with each cause set.

    An average causal effect is their mean difference, ``E_x[f(do(h = its own value))] - E_x[f(do(h = v))]``: above 0
    where what is there helps the right answer.

    Args:
        causes: what is set, one after another.
        how: to what.
        images: how many pictures there will be.

    Attributes:
        own: [3, N] float32.
        set_to: [ways, 3, causes, N] float32.
    """

    def __init__(self, causes: Sequence[Cause], how: Sequence[SetTo], images: int) -> None:
        self.causes, self.how = tuple(causes), tuple[SetTo, ...](how)
        self.own = torch.zeros(len(OUTCOMES), images)
        self.set_to = torch.zeros(len(self.how), len(OUTCOMES), len(self.causes), images)

    def measure(self, shown: Shown, targets: Tensor, at: slice, how: SetTo, which: slice) -> None:
        """Set some causes, one after another.

        Args:
            shown: the pictures.
            targets: [B] int64, their right outputs.
            at: their places among all.
            how: to what.
            which: which causes.
        """
        variants = [shown.variant(cause, how) for cause in self.causes[which]]
        self.own[:, at] = outcomes(shown.logits, targets).cpu()
        found = outcomes(shown.network.answers(variants), targets).cpu()
        self.set_to[self.how.index(how), :, which, at] = found

    def differences(self, how: SetTo) -> Tensor:
        """Of every picture, its outcome as it is less that with the cause set: [3, causes, N] float64."""
        return self.own.double().unsqueeze(1) - self.set_to[self.how.index(how)].double()

    def largest(self, how: SetTo, count: int) -> list[Cause]:
        """The channels of every stage with the largest effects on the probability, ``count`` of each stage."""
        sizes = dict(zip(self.causes, self.differences(how)[0].mean(1).abs().tolist(), strict=True))
        channels = [cause for cause in self.causes if cause.level == "channel"]
        found: list[Cause] = []
        for stage in sorted({cause.stage for cause in channels}):
            mine = [cause for cause in channels if cause.stage == stage]
            found += sorted(mine, key=lambda each: -sizes[each])[:count]
        return found

    def state_dict(self) -> dict[str, Tensor]:
        return {"own": self.own, "set_to": self.set_to}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(saved[name])
