"""Gradient checkpointing that changes no number: BatchNorm must not count a recomputed batch twice.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``, whose inner activations are computed again in the backward pass instead of being kept."""

    def contexts() -> tuple[object, object]:
        return nullcontext(), unchanged_statistics(module)

    out = checkpoint(module, x, use_reentrant=False, context_fn=contexts)  # type: ignore[arg-type]
    assert isinstance(out, Tensor)
    return out


@contextmanager
def unchanged_statistics(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm use the statistics of the batch, but leave its running ones and its count alone."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.num_batches_tracked is not None]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        assert norm.num_batches_tracked is not None
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
