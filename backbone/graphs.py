"""Forward and backward passes recorded as CUDA graphs, so that a GPU need not wait for Python to launch each kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.stateless import _reparametrize_module

from backbone.hardware import Precision, autocast
from backbone.nets.blocks import StaticBackbone
from backbone.nets.classifier import Classifier

RECORD_AFTER = 10
"""Passes of one shape before it is recorded: the first steps of a stream may be of many shapes."""

lists: Any = torch
"""torch, whose operations on lists of tensors its stubs leave out."""

Key = tuple[int, torch.Size, tuple[int, ...]]


def can_record(model: Classifier, device: str) -> bool:
    """Whether a pass is the same kernels every time: a feed-forward network without hooks, on a GPU.

    A CPU gains nothing; an adapter may count, compile or look at what it computes.
    """
    plain = isinstance(model.backbone, StaticBackbone) and not model.backbone.recompute
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return device.startswith("cuda") and plain and not hooked


class _Halves(torch.autograd.Function):
    """fp32 weights -> the same in bf16, all of them in one launch, and so their gradients back."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return _cast(weights, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return _cast(grads, torch.float32)


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    made = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    lists._foreach_copy_(made, list(tensors))
    return tuple(made)


class _Pass(nn.Module):
    """Images, normalised -> logits in fp32, as `backbone.training.Trainer.forward` computes them.

    In bf16 the weights of plain convolutions and linear layers are cast all at once, where autocast would launch a
    kernel for each, a third of those of a residual network; and so batches are counted. The numbers are the same.
    """

    def __init__(self, model: Classifier, device: str, precision: Precision) -> None:
        super().__init__()
        self.model, self.device = model, device
        self.precision: Precision = precision
        self.cast: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            if precision == "bf16" and type(module) in (nn.Linear, nn.Conv2d):
                own = module.named_parameters(name, recurse=False)
                self.cast |= {key: p for key, p in own if p.dtype == torch.float32 and p.requires_grad}
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
        self.norms = [norm for norm in norms if _counter(norm) is not None and norm.momentum is not None]

    def forward(self, images: Tensor) -> Tensor:
        halves = dict(zip(self.cast, _Halves.apply(*self.cast.values()), strict=True)) if self.cast else {}
        with autocast(self.device, self.precision), _reparametrize_module(self.model, halves), self._counting():
            return self.model.forward_normalised(images).float()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        counters = [_counter(norm) for norm in self.norms]
        for norm in self.norms:
            norm.num_batches_tracked = None
        try:
            yield
        finally:
            for norm, counter in zip(self.norms, counters, strict=True):
                norm.num_batches_tracked = counter
        if counters:
            lists._foreach_add_(counters, 1)


def _counter(norm: _BatchNorm) -> Tensor | None:
    return norm.num_batches_tracked


class Passes:
    """The training passes of one network. The first, second, ... of a step are recorded apart: all live until backward.

    Numbers are those of the same passes launched kernel by kernel, running statistics and dropout included. Logits are
    overwritten by the same pass of the next step. Gradients of gradients are not to be had.

    Args:
        model: on its device; a recording is of its tensors where they lie now (`renew`).
    """

    def __init__(self, model: Classifier, device: str, precision: Precision) -> None:
        self.model, self.device = model, device
        self.precision: Precision = precision
        self._seen: Counter[Key] = Counter()
        self._recorded: dict[Key, Callable[[Tensor], Tensor]] = {}
        self._places = self._where()
        self._number = 0

    def begin(self) -> None:
        """A step begins."""
        self._number = 0

    def renew(self) -> None:
        """Forget all recordings when the network's tensors lie elsewhere now."""
        places = self._where()
        if places != self._places:
            self._recorded.clear()
        self._places = places

    def __call__(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W] float, normalised, without a gradient -> logits [N, K] float32."""
        key = (self._number, images.shape, images.stride())
        self._number += 1
        found = self._recorded.get(key)
        if found is None:
            self._seen[key] += 1
            found = _Pass(self.model, self.device, self.precision)
            if self._seen[key] > RECORD_AFTER:
                found = self._recorded[key] = self._record(found, images)
        return found(images)

    def _record(self, run: _Pass, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Recording runs the network a few times: what that changes is put back."""
        random = torch.cuda.get_rng_state(self.device)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        recorded: Any = torch.cuda.make_graphed_callables(run, (images.clone(),), allow_unused_input=True)
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        torch.cuda.set_rng_state(random, self.device)
        return recorded

    def _where(self) -> list[int]:
        return [tensor.data_ptr() for part in (self.model.parameters(), self.model.buffers()) for tensor in part]
