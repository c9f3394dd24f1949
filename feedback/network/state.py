"""What one step hands to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class State(NamedTuple):
    """What one step hands to the next. Nothing in it is written into.

    Attributes:
        image: [B, C, H, W], what was seen.
        sources: what connections read in the next step, by their names: [B, C, h, w] each.
        held: the output of the lowest stage that a connection changes, before that change: it stays while the image
            does. None where it does not.
        stages: the outputs of all stages, where images take a step from one to the next; else ().
        reached: how many stages the image has reached.
        memory: what layers of the wrapped network remember, where they do, and what stages do.
    """

    image: Tensor
    sources: Mapping[str, Tensor] = {}
    held: Tensor | None = None
    stages: tuple[Tensor, ...] = ()
    reached: int = 0
    memory: Mapping[str, Any] = {}


def detached(state: State) -> State:
    """The same, without the way it came about.

    What is of the image alone keeps its way: it is the same in all steps, and its gradients are those of later ones
    too.
    """
    return _cut(state)._replace(image=state.image, held=state.held)


def _cut(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {name: _cut(each) for name, each in value.items()}
    if isinstance(value, tuple):
        parts = [_cut(each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
