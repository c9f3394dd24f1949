"""Forward and backward passes recorded as CUDA graphs, so that a GPU need not wait for Python to launch each kernel."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.stateless import _reparametrize_module

from engram.backbone.hardware import Precision, autocast
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.tapped import attached
from engram.backbone.training.optim import lists

RECORD_AFTER = 10
"""Passes of one shape before it is recorded: the first steps of a stream may be of many shapes."""
MOST = 8
"""Recordings of a network: each holds all that a pass computes, and a gradient for every weight."""

Key = tuple[int, torch.Size, tuple[int, ...]]


def can_record(model: Classifier, device: str) -> bool:
    """Whether a pass is the same kernels every time: a feed-forward network on the current GPU, nobody looking in.

    A CPU gains nothing; an adapter may count, compile or look at what it computes; hooks would not be called; and
    BatchNorm that averages over all batches asks how many there were.
    """
    net = model.backbone
    plain = isinstance(net, StaticBackbone) and not net.recompute and not attached(net)
    return device == "cuda" and plain and not any(_is_watched(module) for module in model.modules())


def _is_watched(module: nn.Module) -> bool:
    """Whether Python has a say in what a module computes."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    on_weights = any(p._backward_hooks for p in module.parameters(recurse=False))
    return any(hooks) or on_weights or (isinstance(module, _BatchNorm) and module.momentum is None)


class _Halves(torch.autograd.Function):
    """fp32 weights -> the same in bf16, all of them in one launch, and so their gradients back."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        ctx.set_materialize_grads(False)
        return _cast(weights, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        cast = iter(_cast([grad for grad in grads if grad is not None], torch.float32))
        return tuple(None if grad is None else next(cast) for grad in grads)


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    made = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    lists._foreach_copy_(made, list(tensors))
    return tuple(made)


class _Pass(nn.Module):
    """Images, normalised -> logits in fp32, as `engram.backbone.training.loop.Trainer.forward` computes them.

    In bf16 the weights of plain convolutions and linear layers are cast all at once, where autocast would launch a
    kernel for each, a third of those of a residual network. The numbers are the same.
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

    def forward(self, images: Tensor) -> Tensor:
        halves = dict(zip(self.cast, _Halves.apply(*self.cast.values()), strict=True)) if self.cast else {}
        with autocast(self.device, self.precision), _reparametrize_module(self.model, halves):
            return self.model.forward_normalised(images).float()


class Passes:
    """The training passes of one network. The first, second, ... of a step are recorded apart: all live until backward.

    Numbers are those of the same passes launched kernel by kernel, running statistics and dropout included. Logits are
    overwritten by the same pass of the next step, and a pass goes backward once: there are no gradients of gradients.

    Args:
        model: on its device; a recording is of its tensors where they lie now (`renew`).
    """

    def __init__(self, model: Classifier, device: str, precision: Precision) -> None:
        self.model, self.device = model, device
        self.precision: Precision = precision
        self._seen: Counter[Key] = Counter()
        self._recorded: dict[Key, Callable[[Tensor], Tensor]] = {}
        self._places = self._where()
        self._number, self._launched = 0, False

    def begin(self) -> None:
        """A step begins."""
        self._number, self._launched = 0, False

    def renew(self) -> None:
        """Forget all recordings when the network's tensors lie elsewhere now, or others of them are trained."""
        places = self._where()
        if places != self._places:
            self._recorded.clear()
            gc.collect()  # recordings refer to themselves, and hold memory of the device
        self._places = places

    def __call__(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W] float, normalised, without a gradient -> logits [N, K] float32."""
        key = (self._number, images.shape, images.stride())
        self._number += 1
        found = self._recorded.pop(key, None)
        if found is None:
            self._seen[key] += 1
            found = _Pass(self.model, self.device, self.precision)
            # an earlier pass of the step that was not recorded is alive, on the stream that no recording may touch
            if self._launched or self._seen[key] <= RECORD_AFTER:
                self._launched = True
                return found(images)
            if len(self._recorded) == MOST:
                del self._recorded[next(iter(self._recorded))]
                gc.collect()
            found = self._record(found, images)
        self._recorded[key] = found  # the last one used is the last to go
        return found(images)

    def _record(self, run: _Pass, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Recording runs the network a few times: what that changes is put back."""
        quiet = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
        if quiet is not None:  # gradients are added up on the stream of the recording, and waited for
            quiet(False)
        random = torch.cuda.get_rng_state(self.device)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        recorded: Any = torch.cuda.make_graphed_callables(run, (images.clone(),), allow_unused_input=True)
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        torch.cuda.set_rng_state(random, self.device)
        return recorded

    def _where(self) -> list[tuple[int, bool]]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors]
