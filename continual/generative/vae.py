"""Variational autoencoders of images, or of features: their parts, their losses, their first weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.seeding import generator

Architecture = Literal["dense", "conv"]
CHANNELS = (32, 64)
"""Of the two convolutions."""
FORGET = 0.01
"""Weight of a batch in the running moments of features."""

M = TypeVar("M", bound=nn.Module)


class Seeded(nn.Module, ABC):
    """Has tensors of its own that need values before the first use."""

    @abstractmethod
    def begin(self, random: torch.Generator) -> None:
        """Give them their first values."""


class Scale(Seeded):
    """Features around their mean, in units of their deviation over all of them. Shapes: [N, D] -> [N, D].

    One unit for all keeps what is large large, and a feature that never moved cannot blow up.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(size))
        self.register_buffer("deviation", torch.empty(()))

    def begin(self, random: torch.Generator) -> None:
        self.mean.zero_()
        self.deviation.fill_(1.0)

    @torch.no_grad()
    def learn(self, features: Tensor, step: int) -> None:
        """Move towards the moments of a batch, the ``step``-th one, [N, D]."""
        weight = max(1 / (step + 1), FORGET)
        self.mean.lerp_(features.mean(0), weight)
        spread = (features - self.mean).square().mean().sqrt().clamp_min(1e-3)
        self.deviation.lerp_(spread, weight)

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation

    def back(self, scaled: Tensor) -> Tensor:
        return scaled * self.deviation + self.mean


class Encoder(nn.Module):
    """[N, *shape] -> means and log variances of the latent variables, each [N, latent]."""

    def __init__(self, shape: tuple[int, ...], latent: int, hidden: int, architecture: Architecture) -> None:
        super().__init__()
        if architecture == "conv":
            first, second = CHANNELS
            size = second * math.prod(_quarter(shape))
            self.body = nn.Sequential(
                nn.Conv2d(shape[0], first, 3, 2, 1), nn.ReLU(), nn.Conv2d(first, second, 3, 2, 1), nn.ReLU()
            )
            self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(size, hidden), nn.ReLU())
        else:
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.ReLU())
            self.hidden = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(self.body(x))
        return self.mean(hidden), self.log_variance(hidden)


class Decoder(Seeded):
    """Latent variables [N, latent] -> [N, *shape]: logits of pixels, or features around their mean.

    With ``gates`` rows of them, [G, hidden] per hidden layer in {0, 1}, an input belongs to rows by weights [N, G], and
    the pre-activations of its hidden units are multiplied with the weighted rows.

    Source: gates, van de Ven et al. 2020 (Nature Communications 11:4069), "Gating based on internal context".
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int,
        hidden: int,
        architecture: Architecture,
        gates: int = 0,
        gated: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape, self.gated = shape, gated
        self.conv = architecture == "conv"
        if self.conv:
            first, second = CHANNELS
            self.layers = nn.ModuleList([nn.Linear(latent, hidden)])
            self.quarter = (second, *_quarter(shape))
            self.last = nn.Linear(hidden, math.prod(self.quarter))
            self.up = nn.Sequential(
                nn.ReLU(),
                nn.ConvTranspose2d(second, first, 4, 2, 1),
                nn.ReLU(),
                nn.ConvTranspose2d(first, shape[0], 4, 2, 1),
            )
        else:
            self.layers = nn.ModuleList([nn.Linear(latent, hidden), nn.Linear(hidden, hidden)])
            self.last = nn.Linear(hidden, math.prod(shape))
        has = gates if gated else 0
        for index in range(len(self.layers)):
            self.register_buffer(f"gates{index}", torch.empty(has, hidden))

    def begin(self, random: torch.Generator) -> None:
        for index in range(len(self.layers)):
            table: Tensor = getattr(self, f"gates{index}")
            table.copy_(torch.rand(table.shape, generator=random) >= self.gated)

    def forward(self, z: Tensor, weights: Tensor | None = None) -> Tensor:
        for index, layer in enumerate(self.layers):
            z = layer(z)
            if self.gated and weights is not None:
                z = z * (weights @ getattr(self, f"gates{index}"))
            z = F.relu(z)
        z = self.last(z)
        if not self.conv:
            return z.unflatten(1, self.shape)
        return self.up(z.unflatten(1, self.quarter))[..., : self.shape[1], : self.shape[2]]


class VAE(nn.Module):
    """Encoder and decoder of images in [0, 1], [N, C, H, W], or of features, [N, D]."""

    def __init__(self, shape: tuple[int, ...], latent: int, hidden: int, architecture: Architecture) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = Encoder(shape, latent, hidden, architecture)
        self.decoder = Decoder(shape, latent, hidden, architecture)
        self.scale = Scale(shape[0]) if len(shape) == 1 else None

    def losses(self, x: Tensor, noise: Tensor) -> Tensor:
        """Negative evidence lower bound of every row per value, [N], nat; ``noise``: [N, latent] standard normal.

        Source: Kingma and Welling 2014 (arXiv 1312.6114), equation 10 with one sample.
        """
        x = x if self.scale is None else self.scale(x)
        mean, log_variance = (each.float() for each in self.encoder(x))
        out = self.decoder(sampled(mean, log_variance, noise)).float()
        rebuilt = reconstruction(out, x, self.scale is None)
        return rebuilt + divergence(mean, log_variance) / x[0].numel()

    def sample(self, z: Tensor) -> Tensor:
        """z: [N, latent] standard normal -> images in [0, 1] or features; the mean of what they could be."""
        return finished(self.decoder(z).float(), self.scale)


def finished(out: Tensor, scale: Scale | None) -> Tensor:
    """What a decoder's output stands for: pixels in [0, 1], or features in their own units."""
    return out.sigmoid() if scale is None else scale.back(out)


def sampled(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A draw from normal distributions: the standard deviation is exp(log variance / 2).

    mean, log_variance, noise: [N, z], the noise standard normal -> [N, z].
    """
    return torch.addcmul(mean, (0.5 * log_variance).exp(), noise)


def reconstruction(out: Tensor, x: Tensor, pixels: bool) -> Tensor:
    """Negative log-likelihood of every row per value, [N].

    Bernoulli for pixels; for features normal of variance 1, without its constant.
    """
    each = F.binary_cross_entropy_with_logits(out, x, reduction="none") if pixels else 0.5 * (out - x).square()
    return each.flatten(1).mean(1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of every row from the standard normal distribution, [N], nat."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def fresh(make: Callable[[], M], device: str, seed: int, purpose: str) -> M:
    """A module whose first weights follow from a seed, whatever else has been drawn.

    Weights and biases are uniform within 1 / sqrt(fan in), as torch has them.
    """
    random = generator(seed, purpose)
    with torch.device("meta"):
        module = make()
    module.to_empty(device=device)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                bound = part.weight[0].numel() ** -0.5
                for own in part.parameters():
                    own.copy_((2 * torch.rand(own.shape, generator=random) - 1) * bound)
            elif isinstance(part, Seeded):
                part.begin(random)
    return module


def _quarter(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[1] + 3) // 4, (shape[2] + 3) // 4
