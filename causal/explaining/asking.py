"""A classifier as explanations ask it: normalised images in, the logit of a class out, and stages on the way."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Site
from engram.backbone.errors import must
from engram.backbone.measures.anytime import logits_at
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.tapped import sites, tapped_steps
from engram.backbone.nets.taps import FEATURES

BLUR = 0.15
"""The deviation of the Gaussian that blurs a picture, as a share of its height."""


class Asked:
    """A classifier whose answers are explained; nothing of it changes.

    Args:
        model: in evaluation mode, on its device.
        stage: its number, from 0; None for the last whose output has more than one place.

    Attributes:
        stage: the number of the stage that is looked at.
        shape: of its output for one image, (C, h, w).

    Raises:
        UserError: there is no such stage, or gradients do not flow through the network.
    """

    def __init__(self, model: Classifier, stage: int | None = None) -> None:
        self.model = model
        stages = {site.stage: shape for site, shape in sites(model.backbone).items() if site.stage is not None}
        wide = [index for index, shape in stages.items() if index is not None and shape[-2:].numel() > 1]
        number = (wide[-1] if wide else len(stages) - 1) if stage is None else stage
        if number not in range(len(stages)):
            remedy = "Leave it out for the last with places."
            raise must("--stage", f"from 0 to {len(stages) - 1}, the stages of the network", number, remedy)
        self.stage = number
        self.shape = tuple(stages[self.stage][2:])
        blank = torch.zeros(2, *model.backbone.in_shape, device=model.normalise.mean.device)  # type: ignore[misc]
        try:
            flows = self.logits(blank.requires_grad_()).requires_grad
        except RuntimeError:
            flows = False
        if not flows:
            remedy = "Explain the network that it was made from."
            raise must("the network of causal.explain", "one that gradients flow through", "one that only runs", remedy)

    def logits(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] normalised -> [B, classes]."""
        return self.model.forward_normalised(x)

    def at_stage(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x: [B, C, H, W] normalised -> logits [B, classes], and the stage's output, [S, B, C, h, w] each for S of
        the steps, of which the logits have gradients.
        """
        values: list[Tensor] = []

        def see(site: Site, value: Tensor) -> Tensor:
            if site.stage != self.stage:
                return value
            values.append(value.clone())  # what is shown may be a view of what flows on: the copy does
            return values[-1]

        return self._under(see, x), values

    def rectified(self, x: Tensor) -> list[Tensor]:
        """The stage's output as `at_stage` gives it, with gradients of which activations let pass what is positive."""
        values: list[Tensor] = []

        def see(site: Site, value: Tensor) -> Tensor:
            if site.stage == self.stage:
                values.append(value.clone())
                return values[-1]
            activation = site.stage is None and site.name != FEATURES and ">" not in site.name
            return _Positive.apply(value) if activation else value  # type: ignore[no-any-return]

        self._under(see, x)
        return values

    def _under(self, see: Callable[[Site, Tensor], Tensor], x: Tensor) -> Tensor:
        features = tapped_steps(self.model.backbone, x, see)
        return logits_at(self.model, features, [len(features)])[0]

    def baseline(self, x: Tensor, kind: str) -> Tensor:
        """What pixels of x, [B, C, H, W] normalised, are that are not there; the same shape."""
        if kind == "mean":
            return torch.zeros_like(x)  # normalised images have this mean
        if kind == "black":
            return self.model.normalise(torch.zeros_like(x))
        return blurred(x)


class _Positive(torch.autograd.Function):
    """The value itself; gradients pass where they are positive (Springenberg et al. 2015, arXiv 1412.6806)."""

    @staticmethod
    def forward(_ctx: object, value: Tensor) -> Tensor:  # type: ignore[override]
        return value.view_as(value)

    @staticmethod
    def backward(_ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad.clamp(min=0)


def blurred(x: Tensor) -> Tensor:
    """x: [B, C, H, W] -> the same under a Gaussian of deviation `BLUR` of its height, edges repeated."""
    sigma = BLUR * x.shape[-2]
    reach = min(round(2 * sigma), x.shape[-2] - 1, x.shape[-1] - 1)
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / max(sigma, 1e-6)) ** 2)
    kernel = kernel / kernel.sum()
    flat = x.flatten(0, 1).unsqueeze(1)
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    return flat.squeeze(1).unflatten(0, x.shape[:2])
