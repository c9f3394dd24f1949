"""Any network under interventions, through taps: also one with a memory or with steps, whose stages run again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engram.backbone.contract import Site
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.readout import read
from engram.backbone.nets.tapped import tapped_steps
from engram.causal.effects.variants import Variant


class Tapping:
    """A classifier that is run in full for every variant.

    Args:
        model: in evaluation mode, on its device.

    Attributes:
        stages: the output of every stage for the images last looked at, [S, B, C, H, W].
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self.stages: list[Tensor] = []
        self._images = torch.empty(0)

    @torch.inference_mode()
    def look(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] normalised -> logits [B, K]."""
        parts: dict[int, list[Tensor]] = {}

        def see(site: Site, value: Tensor) -> Tensor:
            if site.stage is not None:
                parts.setdefault(site.stage, []).append(value.clone())
            return value

        features, self._images = tapped_steps(self.model.backbone, x, see), x
        self.stages = [torch.cat(parts[stage]) for stage in sorted(parts)]
        return self._read(features)

    @torch.inference_mode()
    def answers(self, variants: Sequence[Variant]) -> Tensor:
        """Logits of the images last looked at under each of the variants, [G, B, K]."""
        return torch.stack([self._answer(each) for each in variants])

    def _answer(self, variant: Variant) -> Tensor:
        def tap(site: Site, value: Tensor) -> Tensor:
            if site.stage is None:
                return value
            steps = slice(site.step, site.step + len(value))
            if site.stage == variant.place.stage:
                new = variant.values
                value = variant.place.put(site, value, new if len(new) == 1 else new[steps])
            for place in variant.held:
                if place.stage == site.stage:
                    value = place.put(site, value, place.taken(site, self.stages[site.stage][steps]))
            return value

        return self._read(tapped_steps(self.model.backbone, self._images, tap))

    def _read(self, features: Tensor) -> Tensor:
        return self.model.head(read(self.model.backbone, features))
