"""Decoders of what is hidden, of every stage after every step: fitted to training pictures, tried on test pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engram.feedback.analysing.decoding import Decoder, behind, fit, seen, sought, told
from engram.feedback.analysing.looking import Inside
from engram.feedback.analysing.measuring import networks_of


class Place(NamedTuple):
    """Which features a decoder reads: of which network (`networks_of`), stage and step (the number of a point)."""

    network: int
    stage: str
    point: int


SEEN = "seen"
"""In place of a stage: what is not hidden, as it is."""


class Decoders:
    """First all training pictures are read, then test pictures; the network does not change.

    Args:
        inside: the network.
        images: how many test pictures there will be.
        seed: of what decoders draw by lot.

    Attributes:
        places: where features are read, without what is seen.
        errors: [places + 1, images] float64, the squared error of each test picture; last of what is seen.
        spread: [images] float64, that of the mean of training pictures.
    """

    def __init__(self, inside: Inside, images: int, seed: int) -> None:
        self.inside, self.seed, self.networks = inside, seed, networks_of(inside)
        points = range(len(inside.points))
        self.places = [Place(n, s, p) for n in range(len(self.networks)) for s in inside.stages for p in points]
        self.read: dict[Place, list[Tensor]] = {}
        self.targets: list[Tensor] = []
        self.errors = torch.zeros(len(self.places) + 1, images, dtype=torch.float64)
        self.spread = torch.zeros(images, dtype=torch.float64)
        self._fitted: dict[Place, Decoder] = {}

    def learn(self, images: Tensor) -> None:
        """Read some training pictures, [B, C, H, W] uint8."""
        for place, features in self._features(images).items():
            self.read.setdefault(place, []).append(features)
        self.targets.append(sought(images).cpu())

    def test(self, images: Tensor, at: slice) -> None:
        """Decode what is hidden of some test pictures, [B, C, H, W] uint8, at their places among all."""
        decoders, targets = self.fitted(), sought(images).cpu().double()
        for row, (place, features) in enumerate(self._features(images).items()):
            self.errors[row, at] = (decoders[place](features) - targets).square().sum(1)
        mean = next(iter(decoders.values())).bias
        self.spread[at] = (targets - mean).square().sum(1)

    def fitted(self) -> dict[Place, Decoder]:
        """A decoder of each place, fitted to all training pictures."""
        if not self._fitted:
            targets = torch.cat(self.targets)
            self._fitted = {place: fit(torch.cat(parts), targets) for place, parts in self.read.items()}
        return self._fitted

    def _features(self, images: Tensor) -> dict[Place, Tensor]:
        """What decoders read of some pictures of which a part is hidden, [B, D] each, in the order of `errors`."""
        inside, hidden = self.inside, behind(images)
        x, found = inside.normalised(hidden), dict[Place, Tensor]()
        for network, how in enumerate(self.networks):
            stages = inside.look(x, how).stages
            for stage in inside.stages:
                for point, step in enumerate(inside.points):
                    found[Place(network, stage, point)] = told(stages[stage][step - 1], self.seed, stage).cpu()
        return {**found, Place(0, SEEN, 0): told(seen(images), self.seed, SEEN).cpu()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "read": [torch.cat(parts) for parts in self.read.values()],
            "targets": torch.cat(self.targets) if self.targets else None,
            "errors": self.errors,
            "spread": self.spread,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        places = [*self.places, Place(0, SEEN, 0)]
        self.read = {place: [value] for place, value in zip(places, saved["read"], strict=False)}
        self.targets = [] if saved["targets"] is None else [saved["targets"]]
        self.errors.copy_(saved["errors"])
        self.spread.copy_(saved["spread"])
