"""How far an explanation can be trusted: curves of insertion and deletion, infidelity, sensitivity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engram.backbone.seeding import derive
from engram.causal.explaining.asking import Asked
from engram.causal.explaining.attributions import Attribution, captum_part

FRACTIONS = 20
"""Points of a curve after its first."""
NOISE = 0.2
"""The deviation of what infidelity adds to normalised values, and"""
RADIUS = 0.02
"""how far sensitivity moves them, at most."""
DRAWS = 10
"""Draws of either for each picture."""


@torch.no_grad()
def curve(asked: Asked, x: Tensor, baseline: Tensor, classes: Tensor, maps: Tensor, *, insert: bool) -> Tensor:
    """The probability of a class while pixels come, or go, the most important first.

    Args:
        x: [B, C, H, W] normalised.
        baseline: the same shape: what pixels are that are not there.
        classes: [B] int64.
        maps: [B, H, W], how important pixels are; equal ones come in their order.
        insert: pixels come into the baseline; otherwise they go from the picture.

    Returns: [B, `FRACTIONS` + 1], from none of the pixels to all of them.

    Source: Petsiuk, Das, Saenko 2018 (arXiv 1806.07421), section 4.
    """
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=x.device).expand_as(order))
    rank = rank.view(len(x), 1, *x.shape[-2:])
    begin, end = (baseline, x) if insert else (x, baseline)
    counts = torch.linspace(0, order.shape[1], FRACTIONS + 1, dtype=torch.float64).round().long().tolist()
    found = [asked.logits(torch.where(rank < count, end, begin)).softmax(1) for count in counts]
    return torch.stack([each.gather(1, classes.unsqueeze(1)).squeeze(1) for each in found], 1)


def area(curves: Tensor) -> Tensor:
    """curves: [B, K] at equal distances -> the area below each over a width of 1, [B], by the trapezoidal rule."""
    return torch.trapezoid(curves.double(), dx=1 / (curves.shape[1] - 1))


def infidelity(asked: Asked, x: Tensor, classes: Tensor, attributions: Tensor, seed: int, part: int) -> Tensor:
    """How far attributions are from telling what small changes do, [B]; 0 for a linear network's own weights.

        E[ (b I . phi - (f(x) - f(x - I)))^2 ],   I normal of deviation `NOISE`

    b is the factor under which it is least, as explanations have scales of their own.

    Source: Yeh et al. 2019 (arXiv 1901.09392), definition 2.1; captum's.
    """

    def changed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn_like(inputs) * NOISE
        return noise, inputs - noise

    with torch.random.fork_rng(_gpu(x)), torch.no_grad():
        torch.manual_seed(derive(seed, "infidelity", part))
        return captum_part("metrics", "infidelity")(
            asked.logits, changed, x, attributions, target=classes, n_perturb_samples=DRAWS, normalize=True
        ).double()


def sensitivity(found: Attribution, x: Tensor, classes: Tensor, seed: int, part: int) -> Tensor:
    """How much an explanation changes, at most and as a share of itself, when the picture hardly does, [B].

    Source: Yeh et al. 2019 (arXiv 1901.09392), definition 3.1; captum's. An explanation that is 0 everywhere has none:
    0.
    """

    def again(inputs: Any, target: Tensor) -> Any:  # captum repeats what is called target
        return found(inputs, target) if isinstance(inputs, Tensor) else (found(inputs[0], target),)

    with torch.random.fork_rng(_gpu(x)):
        torch.manual_seed(derive(seed, "sensitivity", part))
        value = captum_part("metrics", "sensitivity_max")(
            again, x, perturb_radius=RADIUS, n_perturb_samples=DRAWS, target=classes
        )
    return value.detach().double().nan_to_num(0.0, 0.0, 0.0)


def on_foreground(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of what speaks for a class that lies on the object, [B]; nan where nothing speaks for it.

    maps: [B, H, W]; masks: [B, H, W] bool.
    """
    positive = maps.double().clamp(min=0).flatten(1)
    return (positive * masks.flatten(1)).sum(1) / positive.sum(1)


def _gpu(x: Tensor) -> list[torch.device]:
    """The devices beside the CPU whose random state is put back."""
    return [x.device] if x.is_cuda else []
