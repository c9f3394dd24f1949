"""How much of a stage's next output comes from where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engram.backbone.errors import UserError, must


class Shares(NamedTuple):
    """Of one stage; what is left of feedforward and feedback to 1 is memory."""

    feedforward: float | Tensor
    feedback: float | Tensor
    correction: float | Tensor


class Mixing(nn.Module):
    """The shares of every stage: fixed ones, or ones that are learned.

    Learned shares are ``sigmoid(a_i) / sum_j sigmoid(a_j)`` of feedforward, feedback and memory, so that they stay
    shares; the correction is learned as it is. Nothing predicts the last stage, whose feedback is 0 and goes to memory.

    Args:
        stages: how many.
        feedforward: one share for all stages, or one for each.
        feedback: likewise.
        correction: likewise.
        learned: whether they are parameters: [1] where one value stands for all stages, else [stages].

    Raises:
        UserError: one line for everything that does not fit the stages, or is no share of one.

    Source: Alamia et al. 2023 (the sigmoids); Choksi et al. 2021 (a share for each stage).
    """

    def __init__(
        self,
        stages: int,
        feedforward: Sequence[float],
        feedback: Sequence[float],
        correction: Sequence[float],
        learned: bool,
    ) -> None:
        super().__init__()
        given = {"feedforward": feedforward, "feedback": feedback, "correction": correction}
        if problems := _problems(given, stages, learned):
            raise UserError("\n".join(map(str, problems)))
        self.stages, self.learned, self.given = stages, learned, given
        if learned:
            count = max(map(len, given.values()))
            spread = {name: list(values) * (count // len(values)) for name, values in given.items()}
            memory = [1 - ff - fb for ff, fb in zip(spread["feedforward"], spread["feedback"], strict=True)]
            self.feedforward = nn.Parameter(torch.tensor(spread["feedforward"]).logit())
            self.feedback = nn.Parameter(torch.tensor(spread["feedback"]).logit())
            self.memory = nn.Parameter(torch.tensor(memory).logit())
            self.correction = nn.Parameter(torch.tensor(spread["correction"]))

    def shares(self) -> list[Shares]:
        """Of every stage, from the first."""
        if self.learned:
            parts = torch.stack([self.feedforward, self.feedback, self.memory]).sigmoid()
            forward, back, _ = parts / parts.sum(0)
            columns = [forward.unbind(), back.unbind(), self.correction.unbind()]
        else:
            columns = list(self.given.values())
        rows = [Shares(*(column[min(stage, len(column) - 1)] for column in columns)) for stage in range(self.stages)]
        return [*rows[:-1], rows[-1]._replace(feedback=0.0)]


def _problems(given: dict[str, Sequence[float]], stages: int, learned: bool) -> list[UserError]:
    found: list[UserError] = []
    for name, values in given.items():
        if len(values) not in (1, stages):
            remedy = f"Give one, or {stages}."
            found.append(must(name, "one value, or one for each stage", f"{len(values)} values", remedy))
    if found:
        return found
    for stage in range(stages):
        forward, back = (given[name][min(stage, len(given[name]) - 1)] for name in ("feedforward", "feedback"))
        if forward + back > 1:
            rule, remedy = f"at most 1 together in stage {stage + 1}", "The rest is memory: lower one."
            found.append(must("feedforward and feedback", rule, f"{forward:g} and {back:g}", remedy))
        elif learned and not (forward > 0 and back > 0 and forward + back < 1):
            rule = f"above 0, with a rest for memory in stage {stage + 1}, where they are learned"
            got = f"{forward:g} and {back:g}"
            found.append(must("feedforward and feedback", rule, got, "Shares of 0 cannot be learned from."))
    return found
