"""Optimizers and learning-rate schedules of the training loop."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from engram.backbone.training.options import TrainingOptions

lists: Any = torch
"""torch, whose operations on lists of tensors its stubs leave out; its own optimizers are made of them."""

MUON_REST = 0.05  # AdamW's share of the learning rate, for the parameters Muon does not take


class Uncompiled(torch.optim.Optimizer):
    """What torch wraps to keep it from being compiled, without the wrapper, whose first call imports torch's compiler.

    That is as long as importing torch is, of every process that trains; nothing is compiled here.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class SGD(Uncompiled, torch.optim.SGD):
    pass


class AdamW(Uncompiled, torch.optim.AdamW):
    pass


class Muon(Uncompiled):
    """Momentum whose update of every matrix is replaced by the nearest orthogonal one.

    ``m <- mu m + g``; ``W <- (1 - lr wd) W - lr sqrt(max(1, rows / columns)) NS(g + mu m)``, with kernels
    [C_out, C_in, h, w] as matrices [C_out, C_in h w] and NS a few Newton-Schulz steps. torch.optim.Muon (2.12) takes
    matrices only, no kernels.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(self, params: ParamsT, lr: float, momentum: float = 0.6, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in (p for p in group["params"] if p.grad is not None):
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                buffer: Tensor = state["momentum"]
                buffer.mul_(group["momentum"]).add_(weight.grad)
                update = orthogonalise(weight.grad.add(buffer, alpha=group["momentum"]).flatten(1))
                gain = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * gain)


def orthogonalise(matrix: Tensor, steps: int = 3) -> Tensor:
    """matrix: [m, n] -> about U V^T of its singular value decomposition.

    Every step brings the singular values nearer to 1, small ones by a factor of up to 3.4, and in the end to within
    some 0.3 of it; they never settle there. Three steps are enough to train with.

    Source: Jordan et al. 2024 (quintic Newton-Schulz iteration and its coefficients).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Optimizers:
    """The optimizers of one model, stepped together, with one relative learning rate.

    Weight decay spares biases and norms (every parameter with fewer than two dimensions).

    Args:
        layers: outputs of ``model.head`` that are a layer of their own: lists of rows of its parameters, without a
            common one. Moments and their age belong to a layer; one that is not trained (`train`) does not move, for a
            gradient of zeros would let moments and decay go on moving it. None but the whole head when empty.
    """

    def __init__(
        self,
        model: nn.Module,
        kind: Literal["sgd", "adamw", "muon"],
        lr: float,
        momentum: float,
        weight_decay: float,
        layers: Sequence[Sequence[int]] = (),
    ) -> None:
        params = [p for p in model.parameters() if p.requires_grad]
        head = [p for name, p in model.named_parameters() if name.startswith("head.") and p.requires_grad]
        self.layers = [[_part(p, run) for p in head for run in runs(rows)] for rows in layers]
        self.train(range(len(layers)))
        self.divided = head if layers else []
        """Parameters of which every layer has a part."""
        if layers:
            head = [part for layer in self.layers for _, part, _ in layer]
            params = [p for p in params if not any(p is whole for whole in self.divided)] + head
        self.parts = _made(params, head, kind, lr, momentum, weight_decay)
        self.alike = len({(p.device, p.dtype) for p in params}) == 1
        self.peaks = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def train(self, layers: Iterable[int]) -> None:
        """Say which layers of the head are trained from now on; no effect where it is a single layer."""
        self.trained = [part for index in layers if self.layers for part in self.layers[index]]

    def step(self, relative_lr: float) -> None:
        """One step at ``relative_lr`` times the peak rates; clears the gradients."""
        for whole, part, rows in self.trained:
            part.grad = None if whole.grad is None else whole.grad[rows]
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * relative_lr
            if not (self.alike and step_at_once(part)):
                part.step()
            for group in part.param_groups:  # what zero_grad does, without its record for profilers: 24 us
                for weight in group["params"]:
                    weight.grad = None
        for whole in self.divided:
            whole.grad = None

    @torch.no_grad()
    def restart(self) -> None:
        """Forget all earlier gradients, and how many there were."""
        for remembered in (state for part in self.parts for state in part.state.values()):
            for value in remembered.values():
                value.zero_()

    @torch.no_grad()
    def still(self, parameter: Tensor, moving: Tensor) -> None:
        """Take the momentum from what does not move; ``moving``: 1 where a parameter does, 0 elsewhere."""
        for part in self.parts:
            state = part.state.get(parameter, {})
            for name in ("momentum", "momentum_buffer", "exp_avg"):
                if name in state:
                    state[name].mul_(moving)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        for part, state in zip(self.parts, saved["parts"], strict=True):
            part.load_state_dict(copy.deepcopy(state))  # torch would train on in the saved tensors themselves


def _made(
    params: list[nn.Parameter], head: list[nn.Parameter], kind: str, lr: float, momentum: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """What moves the parameters of a model; ``head`` are those of its last layer."""
    matrices = [p for p in params if p.ndim >= 2]
    rest = [p for p in params if p.ndim < 2]
    if kind == "muon":
        last = [p for p in matrices if any(p is h for h in head)]
        matrices = [p for p in matrices if not any(p is h for h in head)]
        hidden, others = _groups((matrices, weight_decay)), _groups((last, weight_decay), (rest, 0.0))
        muon: list[torch.optim.Optimizer] = [Muon(hidden, lr, momentum)] if hidden else []
        return muon + ([_adamw(others, lr * MUON_REST, (0.9, 0.95))] if others else [])
    if not weight_decay:  # nothing to spare anybody, and one fused call instead of two
        matrices, rest = params, []
    groups = _groups((matrices, weight_decay), (rest, 0.0))
    if kind == "adamw":
        return [_adamw(groups, lr, (momentum, 0.999))]
    # torch's SGD decay is not decoupled: it multiplies the gradient, as the papers that use it do
    sgd = SGD(groups, lr, momentum, nesterov=momentum > 0, fused=True)
    if momentum:  # a layer may begin late, and torch cannot step tensors with and without a buffer together
        sgd.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in params})
    return [sgd]


def _adamw(groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> AdamW:
    """With the state that torch makes in the first step, which imports its compiler."""
    adam = AdamW(groups, lr, betas, fused=True)
    for weight in (p for group in adam.param_groups for p in group["params"]):
        moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        adam.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}
    return adam


def _groups(*held: tuple[list[nn.Parameter], float]) -> list[dict[str, Any]]:
    return [{"params": params, "weight_decay": decay} for params, decay in held if params]


def _part(whole: nn.Parameter, rows: slice) -> tuple[nn.Parameter, nn.Parameter, slice]:
    """A parameter, some rows of it as one that lies in the same memory, and which."""
    return whole, nn.Parameter(whole.detach()[rows]), rows


def runs(rows: Sequence[int]) -> list[slice]:
    """The fewest slices that together select the given rows.

    >>> runs([7, 2, 3, 4])
    [slice(2, 5, None), slice(7, 8, None)]
    """
    found: list[slice] = []
    for row in sorted(rows):
        if found and found[-1].stop == row:
            found[-1] = slice(found[-1].start, row + 1)
        else:
            found.append(slice(row, row + 1))
    return found


@torch.no_grad()
def step_at_once(part: torch.optim.Optimizer) -> bool:
    """What ``part.step()`` does in the end: one fused kernel for the tensors of a group, all of one type and device.

    torch sorts the tensors by type and device and asks for hooks and profilers in every step, a tenth of that of a
    small network. False, and nothing done, for other optimizers and where there is no state, which torch makes.
    """
    adam = type(part) is AdamW
    if not adam and type(part) is not SGD:
        return False
    groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in part.param_groups]
    groups = [(group, weights) for group, weights in groups if weights]
    if any((adam or group["momentum"]) and not part.state.get(p) for group, weights in groups for p in weights):
        return False
    for group, weights in groups:
        grads = [p.grad for p in weights]
        common = {name: group[name] for name in ("lr", "weight_decay", "maximize")}
        common |= {"grad_scale": None, "found_inf": None}
        if adam:
            names = ("exp_avg", "exp_avg_sq", "step")
            first, second, steps = ([part.state[p][name] for p in weights] for name in names)
            beta1, beta2 = group["betas"]
            own = {"amsgrad": False, "beta1": beta1, "beta2": beta2, "eps": group["eps"]}
            lists._foreach_add_(steps, 1)
            lists._fused_adamw_(weights, grads, first, second, [], steps, **own, **common)
        else:
            momenta = [part.state[p]["momentum_buffer"] for p in weights] if group["momentum"] else []
            own = {name: group[name] for name in ("momentum", "dampening", "nesterov")}
            lists._fused_sgd_(weights, grads, momenta, is_first_step=False, **own, **common)
    return True


@torch.no_grad()
def add_l2(net: nn.Module, l2: float) -> None:
    """Add to the gradients of a network that of ``l2`` times the sum of all its squared weights."""
    if l2:
        held = [weight for weight in net.parameters() if weight.grad is not None]
        lists._foreach_add_([weight.grad for weight in held], held, alpha=2 * l2)


def rate_at(options: TrainingOptions, step: int, steps: int) -> float:
    """Learning rate relative to its peak in the step after ``step`` others, of a training of ``steps``."""
    return relative_rate(options.schedule, (step + 1) / (steps + 1), options.warmup)


def relative_rate(
    schedule: Literal["onecycle", "cosine", "exponential", "constant"], progress: float, warmup: float
) -> float:
    """Learning rate relative to its peak, at ``progress`` in [0, 1] of the training.

    >>> [round(relative_rate("onecycle", p, 0.25), 2) for p in (0.0, 0.25, 0.625, 1.0)]
    [0.0, 1.0, 0.5, 0.0]
    >>> [round(relative_rate("exponential", p, 0.0), 4) for p in (0.0, 0.4, 0.8, 1.0)]
    [1.0, 0.1, 0.01, 0.0032]
    """
    if progress < warmup:
        return progress / warmup
    left = (1 - progress) / (1 - warmup)
    if schedule == "onecycle":
        return left
    if schedule == "exponential":
        return 0.1 ** ((1 - left) / 0.4)
    return 1.0 if schedule == "constant" else 0.5 - 0.5 * math.cos(math.pi * left)
