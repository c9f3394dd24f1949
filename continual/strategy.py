"""What our strategies start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from engram.backbone import contract
from engram.backbone.contract import Setting
from engram.backbone.nets.plain import copied

M = TypeVar("M", bound=nn.Module)


class StrategyBase(contract.Strategy):
    """Base of the strategies of this package: keeps options, setting and model, and counts the bytes it holds."""

    def __init__(self, options: Any, setting: Setting, model: nn.Module) -> None:
        self.options, self.setting = options, setting

    def samples(self) -> int:
        stored = self.stored()
        return 0 if stored is None or not len(stored["images"]) else len(stored["images"].flatten(1).unique(dim=0))

    def bytes(self) -> int:
        return total_bytes(self.state_dict())


def frozen(module: M) -> M:
    """A copy that shares nothing with a module, in evaluation mode, and is not trained."""
    return copied(module).eval().requires_grad_(False)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters an optimizer moves."""
    return [p for p in model.parameters() if p.requires_grad]


def total_bytes(state: Any) -> int:
    """Bytes of all tensors in a nest of containers."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(total_bytes(value) for value in state.values())
    return sum(total_bytes(value) for value in state) if isinstance(state, list | tuple) else 0
