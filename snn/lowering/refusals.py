"""What cannot be said as populations and connections, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram.backbone.errors import UserError


@dataclass(frozen=True)
class Refusal:
    """One layer that cannot be said.

    Attributes:
        layer, kind: its name in the network, and its class or function.
        reason: why not.
        remedy: what to do, a sentence without its full stop.
    """

    layer: str
    kind: str
    reason: str
    remedy: str


def refused(found: Sequence[Refusal]) -> UserError:
    """The error that says all of them."""
    got = "; ".join(f"{each.kind} at {each.layer} ({each.reason})" for each in found)
    remedies = ". ".join(dict.fromkeys(each.remedy for each in found))
    return UserError(
        f"every layer must be affine, or neurons that a chip can have, to be lowered; got {got}. {remedies}."
    )
