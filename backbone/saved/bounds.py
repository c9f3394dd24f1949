"""How much memory a network may ask for while it is built: a stranger's file may ask for any size."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

MANIFOLD = 8
"""Times as many values as it saved a network may need while it is built: adapters begin with an analog one."""
LEAST = 2**27
"""Values that any network may need, half a GB of them."""
_MAKERS = {"empty", "empty_strided", "zeros", "ones", "full", "rand", "randn"}
_MAKERS |= {f"new_{name}" for name in _MAKERS}


def bounded(saved: int) -> AbstractContextManager[object]:
    """Let code make no more tensors than a network of so many saved values needs.

    Raises:
        ValueError: in the context, where more are asked for; before there is memory for them.
    """
    return _Bounded(max(LEAST, MANIFOLD * saved))


class _Bounded(TorchDispatchMode):
    def __init__(self, values: int) -> None:
        super().__init__()
        self.values, self.made = values, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.name().partition("::")[2].partition(".")[0] in _MAKERS:
            self.made += math.prod(next((arg for arg in args if isinstance(arg, list | tuple)), ()))
            if self.made > self.values:
                raise ValueError(f"a network of {self.made} values or more, for weights that are far fewer")
        return func(*args, **(kwargs or {}))
