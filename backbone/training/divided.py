"""One step of a training divided among processes by the rows of its batch, with the numbers of the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from engram.backbone.contract import Hook, Outputs
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.ranks import Ranks
from engram.backbone.training.augment import Rows, all_rows
from engram.backbone.training.options import TrainingOptions

_ROWS = {"logits": 0, "steps": 1, "features": 0, "given": 0, "counterfactual": 0, "concepts": 0}
"""Which dimension of the outputs the rows are; others cannot be gathered."""
_BY_CONTENT = ("event_drop", "time_jitter")
"""Options of augmentations that draw for every event there is."""
_TOGETHER = (*_BY_CONTENT, "randaugment", "time_shift")
"""Options of augmentations that change all images of a batch at once."""
_MOST_STEPS = 10_000
_FACTORS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
"""What multiplies every row by factors that are drawn."""


class Divided:
    """Which rows of a batch are this process's, and how the others' come to it.

    Args:
        ranks: the processes.
        device: where they compute.
        batch_size: rows of a batch.
        options: of the training.
        hooks: around its steps.

    Attributes:
        step_seconds: how long a step takes here.

    Raises:
        UserError: a batch has fewer rows than there are processes, or hooks look at it.
    """

    def __init__(
        self, ranks: Ranks, device: str, batch_size: int, options: TrainingOptions, hooks: Sequence[Hook]
    ) -> None:
        if batch_size < ranks.count:
            raise must("--devices", f"at most the images of a batch, {batch_size}", ranks.count, "Use fewer.")
        if hooks:
            rule, got = "1 where something is called around every step", ranks.count
            raise must("--devices", rule, got, "Leave it out.")
        self.ranks, self.device = ranks, device
        self.together, self.by_content = (
            any(getattr(options, name) for name in names) for names in (_TOGETHER, _BY_CONTENT)
        )
        self.step_seconds = math.inf

    def unit(self, seconds: float, model: nn.Module) -> int:
        """How many steps take about so long, as many for all processes.

        Raises:
            UserError: the network is not the same in all of them any more: something in it keeps what it saw in one.
        """
        tensors = dict((*model.named_parameters(), *model.named_buffers()))
        sums = torch.stack([each.detach().double().sum().nan_to_num() for each in tensors.values()])
        every = self.ranks.every(sums)
        if other := (every != every[0]).any(0).nonzero().flatten().tolist():
            got = f"others in {list(tensors)[other[0]]}"
            raise must("the values of a network", "the same in all processes of --devices", got, "Leave out --devices.")
        return self.ranks.agreed(max(1, int(min(seconds / self.step_seconds, _MOST_STEPS))))

    def take_over(self, model: nn.Module) -> None:
        """Let the model be the first process's."""
        self.ranks.take_over([*model.parameters(), *model.buffers()])

    def batches(self, data: Split, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As ``data.batches(order, size, device)``, but of the images this process's alone; of none any one."""
        whole = order.split(size)
        own = [self._own(rows) for rows in whole]
        labels = data.labels.to(self.device)
        most = max((len(rows) for rows in own), default=1)
        read = data.batches(torch.cat(own), most, self.device)  # all are as long but the last, as those of a pass are
        for (images, _, _), rows in zip(read, whole, strict=True):
            yield images, labels[rows.to(self.device, non_blocking=True)], rows

    def _own(self, rows: Tensor) -> Tensor:
        own = rows[self.ranks.share(len(rows))]
        return own if len(own) else rows[:1]

    def changed(self, raw: Tensor, rows: int, change: Callable[[Tensor, Rows], Tensor]) -> Tensor:
        """This process's rows of a changed batch, which are changed as all of them would be.

        Args:
            raw: this process's images.
            rows: of the whole batch.
            change: augments those images of a batch that it is told.
        """
        share = self.ranks.share(rows)
        here = share if share.start < share.stop else slice(0, 1)
        if not self.together:
            return change(raw, Rows(rows, here))
        if self.by_content:
            whole = self.ranks.gathered(raw, rows)
        else:
            whole = raw.new_zeros(rows, *raw.shape[1:])
            whole[share] = raw[: share.stop - share.start]
        return change(whole, all_rows(whole))[here]

    def add_gradients(self, model: nn.Module) -> None:
        """Make every gradient that of the whole batch."""
        self.ranks.add_up([weight.grad for weight in model.parameters() if weight.grad is not None])


class AsWhole(TorchFunctionMode):
    """While it is on, layers that look at a whole batch do: BatchNorm normalises by all rows, dropout draws for all.

    What else draws random numbers is refused: those of the whole batch are not known. Layers that are computed again
    for the backward pass run within it as well.

    Args:
        divided: the processes.
        rows: of the whole batch.
    """

    def __init__(self, divided: Divided, rows: int) -> None:
        super().__init__()
        self.ranks, self.device, self.rows = divided.ranks, divided.device, rows
        self.share = self.ranks.share(rows)
        self.idle = self.share.start == self.share.stop
        self.drawn: Tensor | None = self._random()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is F.batch_norm:
            return self._normalised(*args, **given)
        if func in _FACTORS:
            return self._dropped(func, *args, **given)
        return func(*args, **given)

    def __enter__(self) -> Any:
        self.ranks.part = (self.share.stop - self.share.start) / self.rows
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        self.ranks.part = 1.0
        super().__exit__(*raised)

    def outputs(self, own: Outputs) -> Outputs:
        """The outputs for all rows of the batch, of which a gradient goes back to this process's.

        Raises:
            UserError: something drew random numbers for this process's rows alone, or the outputs are not of rows.
        """
        self._require_no_draws()
        self.drawn = None
        there = {field.name: value for field in fields(own) if (value := getattr(own, field.name)) is not None}
        if others := [name for name in there if name not in _ROWS]:
            got = f"one that looks at {others[0]}"
            raise must("the objective beside --devices", "one of outputs of rows", got, "Leave out --devices.")
        for name, value in there.items():
            there[name] = self.ranks.gathered(value.transpose(0, _ROWS[name]), self.rows).transpose(0, _ROWS[name])
        return replace(own, **there)

    def backward(self, loss: Tensor) -> None:
        """As ``loss.backward()``, which would switch this off while layers are computed again."""
        engine: Any = torch.autograd.Variable._execution_engine
        engine.run_backward(
            (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )

    def _normalised(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        mean, var, count = self._moments(x.detach())
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
        channels = mean.new_ones(len(mean)) if weight is None else weight
        return _Normalised.apply(
            x, channels, torch.zeros_like(mean) if bias is None else bias, mean, var, count, eps, self
        )

    @torch.no_grad()
    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance of every channel over the rows of all processes, and how many values each is of."""
        channels = x.shape[1]
        sums = x.new_zeros(2 * channels + 1, dtype=torch.float64)
        if not self.idle:
            count = float(x.numel() // channels)
            mean, var = (each.double() for each in _channel_moments(x, count))
            sums = count * torch.cat((mean, var + mean.square(), mean.new_ones(1)))
        first, second, whole = self.ranks.total(sums).split((channels, channels, 1))
        mean = first / whole  # in float64 the difference below loses nothing that float32 has
        return mean.float(), (second / whole - mean.square()).clamp_min(0).float(), whole.float()

    def _dropped(self, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return x
        if not self.idle and len(x) != self.share.stop - self.share.start:
            rule, got = "left out beside --devices where steps or frames are rows as well", f"dropout {p:g}"
            raise must("dropout", rule, got, "Leave out --devices.")
        if self.drawn is not None:
            self._require_no_draws()
        form = torch.channels_last if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else None
        ones = torch.ones(self.rows, *x.shape[1:], dtype=x.dtype, device=x.device)
        ones = ones if form is None else ones.contiguous(memory_format=form)
        factors = func(ones, p, True)
        if self.drawn is not None:
            self.drawn = self._random()
        return x * (factors[:1] if self.idle else factors[self.share])

    def _random(self) -> Tensor:
        """The state of the generator that layers draw from."""
        if self.device.startswith("cuda"):
            return torch.cuda.get_rng_state(self.device)
        return torch.default_generator.get_state()

    def _require_no_draws(self) -> None:
        if self.drawn is not None and not torch.equal(self.drawn, self._random()):
            rule, got = "none but dropout beside --devices", "a layer that draws for the rows of one process"
            raise must("what a network draws while it is trained", rule, got, "Leave out --devices.")


def _channel_moments(x: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel of x [N, C, ...], [C] float32 each, by BatchNorm's own kernel."""
    mean = x.new_zeros(x.shape[1], dtype=torch.float32)
    var = torch.ones_like(mean)
    if count == 1:
        return x.float().reshape(-1), torch.zeros_like(mean)
    torch.batch_norm_update_stats(x, mean, var, 1.0)  # what it returns is no variance on a GPU, and rounded in bf16
    return mean, var * ((count - 1) / count)


class _Normalised(torch.autograd.Function):
    """BatchNorm by moments of all processes' rows.

    Backward, with n values a channel: dx = w s (dy - sum dy / n - x' sum(dy x') / n) for x' = (x - mean) s.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        count: Tensor,
        eps: float,
        whole: AsWhole,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.ranks, ctx.idle = eps, whole.ranks, whole.idle
        return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, var, count = ctx.saved_tensors
        backward = torch.ops.aten.native_batch_norm_backward
        found, dw, db = backward(grad, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True])
        sums = ctx.ranks.total(torch.stack((db, dw))) / count
        if not ctx.idle:
            scale = (var + ctx.eps).rsqrt()
            slope = weight * scale.square() * sums[1]
            offset = weight * scale * sums[0] - slope * mean
            # slope x + offset of every channel in one pass, by BatchNorm's own kernel with nothing to normalise by
            line = (slope, offset, torch.zeros_like(mean), torch.ones_like(mean))
            found = found.sub_(torch.native_batch_norm(x, *line, False, 0.0, 0.0)[0])
        return found, dw, db, None, None, None, None, None
