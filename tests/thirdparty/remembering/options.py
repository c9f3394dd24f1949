from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Gt

from engram.backbone.contract import AskingOptions, Asks, StrategyOptions, Traits


@dataclass(frozen=True, kw_only=True)
class FirstOptions(StrategyOptions):
    rows: Annotated[int, Ge(1)] = 8
    """Replayed in a step."""
    unaware: bool = False
    """Do without boundaries, and keep the first images of all."""

    def traits(self, declared: Traits, path: str) -> Traits:
        return replace(declared, boundaries=not self.unaware)


@dataclass(frozen=True, kw_only=True)
class WorstOptions(AskingOptions):
    rate: Annotated[float, Gt(0)] = 1.0
    """Of the weights of groups."""
    column: str = "group"
    """Whose values are the groups."""

    def asks(self, declared: Asks) -> Asks:
        return replace(declared, columns=(self.column,))
