"""What an objective asks of a trial, said before it is imported; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engram.backbone.contract.networks import Ability
from engram.backbone.contract.outputs import Wanted

MADE_BY: Mapping[Wanted, Ability] = {
    "predictions": "Predicting",
    "counterfactual": "Counterfactual",
    "halves": "Complementary",
}
"""What a network must be that makes what an objective wants; of the rest any network, or the head, makes it."""


@dataclass(frozen=True, kw_only=True)
class Asks:
    """What an objective asks of a trial; one that asks for what a trial does not have is refused when it is planned.

    Attributes:
        columns: of the data; those that it needs in every batch are `Objective.columns`.
        wants, by_rows, by_itself: as `Objective` has them.
        validation: it looks at images that are not trained on.
        reference: it begins from what a first network answers: an experiment that trains plans that network's training,
            unless it is given a trained one, and hands it over (`ObjectiveSetting.reference`).
        layer: the head is a `torch.nn.Linear` (`Entry.layer`).
    """

    columns: tuple[str, ...] = ()
    wants: tuple[Wanted, ...] = ()
    by_rows: bool = False
    by_itself: bool = False
    validation: bool = False
    reference: bool = False
    layer: bool = False


@dataclass(frozen=True, kw_only=True)
class AskingOptions:
    """Base for the options of an objective that asks for other things with some of them, or cannot have some together.

    Options of other objectives need no base.
    """

    def asks(self, declared: Asks) -> Asks:
        """What the objective asks for with these options; ``declared`` is what its entry says."""
        return declared

    def problems(self) -> list[str]:
        """Options that cannot be, each "<what> must be <rule>; got <value>. <next step>"."""
        return []
