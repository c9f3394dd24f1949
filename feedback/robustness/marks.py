"""Which answers were right: of every network, under every condition, after each of its steps, on every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engram.feedback.robustness.metrics import ONE_STEP


class Condition(NamedTuple):
    """What was done to the pictures: a kind of corruption and its severity, or nothing (``clean``, 0)."""

    kind: str
    severity: int


CLEAN = Condition("clean", 0)
NETWORK = "network"


@dataclass
class Marks:
    """Answers of several networks to the same pictures.

    Attributes:
        conditions: `CLEAN`, then every kind with every severity.
        steps: of each network the numbers of steps after which it was asked.
        first: of the network itself, which of these is its first.
        right: [conditions, steps, N] bool, by network.
        withstood: [N'] bool, whether the answer stayed right under an attack, by network and attack, of the first N'
            pictures.
    """

    conditions: tuple[Condition, ...]
    steps: Mapping[str, tuple[int, ...]]
    first: int
    right: dict[str, Tensor]
    withstood: dict[str, dict[str, Tensor]]

    @classmethod
    def empty(
        cls,
        kinds: Sequence[str],
        severities: Sequence[int],
        steps: Mapping[str, tuple[int, ...]],
        first: int,
        count: int,
    ) -> Marks:
        """Those of ``count`` pictures that nobody has been shown."""
        conditions = (CLEAN, *(Condition(kind, severity) for kind in kinds for severity in severities))
        right = {name: torch.zeros(len(conditions), len(each), count, dtype=torch.bool) for name, each in steps.items()}
        return cls(conditions, steps, first, right, {})

    @property
    def networks(self) -> list[str]:
        """The names of all that are compared, the network at one step included."""
        names = list(self.steps)
        return [names[0], ONE_STEP, *names[1:]] if len(self.steps[NETWORK]) > 1 else names

    def final(self, network: str) -> Tensor:
        """[conditions, N] bool, at the last step; of `ONE_STEP` the network's at its first."""
        if network == ONE_STEP:
            return self.right[NETWORK][:, self.first]
        return self.right[network][:, -1]

    def rows(self, kind: str | None = None, severity: int | None = None) -> list[int]:
        """The places of the corruptions of a kind, of a severity, or of all."""
        return [
            place
            for place, each in enumerate(self.conditions)
            if each != CLEAN and kind in (None, each.kind) and severity in (None, each.severity)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"right": dict(self.right), "withstood": {name: dict(each) for name, each in self.withstood.items()}}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.right = dict(saved["right"])
        self.withstood = {name: dict(each) for name, each in saved["withstood"].items()}
