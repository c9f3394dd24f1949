"""How much each pixel did for an answer: integrated gradients and occlusion by captum, Grad-CAM of ours.

Captum asks the first two of the network as a whole, which is right for any network. Its Grad-CAM keeps what a module
gave when it was last called; a network with steps calls its modules once a step, so ours looks at a stage through a
tap, at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.causal.explaining.asking import Asked
from engram.causal.explaining.configs import ExplainConfig, Method

TOGETHER = 256
"""Images that captum shows to the network at a time, so that memory does not grow with the points of an integral."""
Attribution = Callable[[Tensor, Tensor], Tensor]
"""x: [B, C, H, W] normalised, classes: [B] int64 -> what each value did for the logit of its class, [B, C, H, W]."""


def captum_part(module: str, name: str) -> Any:
    """Something of captum, which is looked for before a trial starts."""
    from importlib import import_module

    return getattr(import_module(f"captum.{module}"), name)


def attribution(asked: Asked, config: ExplainConfig, method: Method) -> Attribution:
    """The explanation by one method, as a function of images and classes."""
    if method == "integrated-gradients":
        found = captum_part("attr", "IntegratedGradients")(asked.logits)

        def integrated(x: Tensor, classes: Tensor) -> Tensor:
            with torch.enable_grad():
                baseline = asked.baseline(x, config.baseline)
                each = max(TOGETHER, len(x))
                return found.attribute(
                    x, baselines=baseline, target=classes, n_steps=config.points, internal_batch_size=each
                ).detach()

        return integrated
    if method == "occlusion":
        hides = captum_part("attr", "Occlusion")(asked.logits)

        def occluded(x: Tensor, classes: Tensor) -> Tensor:
            size = max(x.shape[-2] // 4, 1) if config.window is None else min(config.window, *x.shape[-2:])
            stride = max(size // 2, 1)
            with torch.no_grad():
                return hides.attribute(
                    x,
                    sliding_window_shapes=(x.shape[1], size, size),
                    strides=(x.shape[1], stride, stride),
                    baselines=asked.baseline(x, config.baseline),
                    target=classes,
                    perturbations_per_eval=max(TOGETHER // len(x), 1),
                ).float()

        return occluded
    return lambda x, classes: grad_cam(asked, x, classes).unsqueeze(1).expand_as(x) / x.shape[1]


def grad_cam(asked: Asked, x: Tensor, classes: Tensor) -> Tensor:
    """Where a stage speaks for a class, as large as the picture.

        m = sum_t max(0, sum_c a_tc A_tc),   a_tc = mean over places of d logit / d A_tc

    A_t: the stage's output at step t, of which each step has its own weights a_t.

    Args:
        x: [B, C, H, W] normalised; classes: [B] int64.

    Returns: [B, H, W], at least 0; of a network without steps it is Grad-CAM of Selvaraju et al. 2017 (arXiv
        1610.02391).
    """
    values, grads = stage_gradients(asked, x, classes)
    maps = (grads.mean((-2, -1), keepdim=True) * values).sum(2).clamp(min=0).sum(0)
    return F.interpolate(maps.unsqueeze(1), x.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)


def stage_gradients(asked: Asked, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The output of the stage at every step, and the gradient of the logits of these classes, each [S, B, C, h, w].

    The gradient of a step goes through all that follows it, later steps included; it is 0 for steps that only look for
    a state that the last ones start from, as those of an equilibrium do.
    """
    with torch.enable_grad():
        logits, values = asked.at_stage(x.detach().requires_grad_())
        chosen = logits.gather(1, classes.unsqueeze(1)).sum()
        on_the_way = [value for value in values if value.requires_grad]
        found = iter(torch.autograd.grad(chosen, on_the_way, allow_unused=True, materialize_grads=True))
    grads = [next(found) if value.requires_grad else torch.zeros_like(value) for value in values]
    return torch.cat(values).detach(), torch.cat(grads)


def completeness(asked: Asked, x: Tensor, classes: Tensor, attributions: Tensor, baseline: str) -> Tensor:
    """By how much attributions fail to add up to the difference that they explain, as a share of it, [B].

        | sum_i phi_i - (f(x) - f(x')) | / max(|f(x) - f(x')|, 0.001)

    Integrated gradients of a network whose gradients are its derivatives add up, as the integral has more points. The
    gradients of spiking networks are surrogates, which nothing obliges to add up.
    """
    with torch.no_grad():
        rows = classes.unsqueeze(1)
        there = asked.logits(x).gather(1, rows).squeeze(1)
        gone = asked.logits(asked.baseline(x, baseline)).gather(1, rows).squeeze(1)
    difference = (there - gone).double()
    total = attributions.double().flatten(1).sum(1)
    return (total - difference).abs() / difference.abs().clamp(min=1e-3)
