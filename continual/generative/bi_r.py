"""Brain-inspired replay: the network itself gets feedback connections, which generate what the tasks showed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner
from engram.backbone.hardware import autocast
from engram.continual.generative.dreams import Dreaming
from engram.continual.generative.options import BIROptions
from engram.continual.generative.vae import Architecture, Decoder, Scale, Seeded, finished, reconstruction, sampled


class ClassPrior(Seeded):
    """A normal distribution of the latent variables for every class, all of them learned."""

    def __init__(self, classes: int, latent: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(classes, latent))
        self.log_variance = nn.Parameter(torch.empty(classes, latent))

    def begin(self, random: torch.Generator) -> None:
        for own in (self.mean, self.log_variance):
            own.copy_(torch.randn(own.shape, generator=random))

    def log_density(self, z: Tensor, belief: Tensor) -> Tensor:
        """log of the mixture of the classes by ``belief``: [N, classes], at z: [N, latent] -> [N], without constants.

        Squares are multiplied out, so that no [N, classes, latent] is needed.
        """
        precision = (-self.log_variance).exp()
        distance = (
            z.square() @ precision.T - 2 * z @ (self.mean * precision).T + (self.mean.square() * precision).sum(1)
        )
        each = -0.5 * (distance + self.log_variance.sum(1))
        return (each + belief.log()).logsumexp(1)

    def sample(self, classes: Tensor, random: torch.Generator) -> Tensor:
        """classes: [N] -> z: [N, latent]."""
        mean = self.mean[classes]
        noise = torch.randn(mean.shape, generator=random, device=mean.device)
        return sampled(mean, self.log_variance[classes], noise)


class Feedback(nn.Module):
    """The feedback connections: from features to latent variables, and from these back to images or to the features."""

    def __init__(
        self, shape: tuple[int, ...], features: int, classes: int, gates: int, architecture: Architecture, o: BIROptions
    ) -> None:
        super().__init__()
        self.mean, self.log_variance = nn.Linear(features, o.latent), nn.Linear(features, o.latent, bias=False)
        self.prior = ClassPrior(classes, o.latent)
        self.decoder = Decoder(shape, o.latent, o.hidden, architecture, gates, o.gated)
        self.scale = Scale(features) if len(shape) == 1 else None

    def losses(self, features: Tensor, x: Tensor, belief: Tensor, gates: Tensor | None, noise: Tensor) -> Tensor:
        """Negative evidence lower bound of every row per value, [N], nat.

        features: [N, D]; x: [N, *shape] what is to be rebuilt; belief: [N, classes]; gates: [N, G];
        noise: [N, latent] standard normal. The divergence is estimated at the drawn latent variables.

        Source: van de Ven et al. 2020 (Nature Communications 11:4069), equations 4 to 8 of the methods.
        """
        if self.scale is not None:
            x = features = self.scale(x)
        mean, log_variance = self.mean(features).float(), self.log_variance(features).float()
        z = sampled(mean, log_variance, noise)
        out = self.decoder(z, gates).float()
        with torch.autocast(z.device.type, enabled=False):
            posterior = -0.5 * (log_variance + noise.square()).sum(1)
            divergence = posterior - self.prior.log_density(z, belief)
        return reconstruction(out, x, self.scale is None) + divergence / x[0].numel()


@dataclass(frozen=True)
class Met:
    """What a task knows of the earlier ones."""

    task: int
    pairs: Tensor
    """[P, 2]: each earlier task with each output it has."""
    shared: bool
    """Whether tasks share their outputs."""


class BIR(Dreaming[Feedback]):
    """Classification and generation share the network; generation is told the class, by prior and by gates.

    Features give means and variances of latent variables, from which the feedback connections rebuild the image; the
    sum of both losses trains everything. To generate, a class met earlier is drawn, then latent variables from its
    prior; its gates silence some of the hidden units. Where tasks share their outputs, the gates are the task's.

    Source: van de Ven, Siegelmann and Tolias 2020 (Nature Communications 11:4069).
    """

    name: ClassVar[str] = "bi-r"
    options: BIROptions
    met: Met | None = None

    def _build(self) -> Feedback:
        s, o = self.setting, self.options
        gates = max(s.outputs, s.tasks)
        architecture = "dense" if self.latent else o.architecture
        return Feedback(self.shape, self.model.backbone.feature_dim, s.outputs, gates, architecture, o)

    def _sample(
        self, learner: Learner, past: Feedback, rows: int, random: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        met = self._met(learner).pairs
        drawn = torch.randint(len(met), (rows,), generator=random, device=learner.device)
        tasks, classes = met[drawn].unbind(1)
        z = past.prior.sample(classes, random)
        out = past.decoder(z, self._gates(learner, tasks, F.one_hot(classes, self.setting.outputs).float()))
        return finished(out.float(), past.scale), tasks

    def _met(self, learner: Learner) -> Met:
        """What is known of the earlier tasks; found once a task, since looking waits for the device."""
        if self.met is None or self.met.task != learner.task:
            table = learner.head.table
            self.met = Met(learner.task, table[: learner.task].nonzero(), bool(table.sum(0).max() > 1))
        return self.met

    def _gates(self, learner: Learner, tasks: Tensor, belief: Tensor) -> Tensor | None:
        """[N, G]: rows of the gates that apply, by weight; tasks: [N], belief: [N, classes]."""
        if not self.options.gated:
            return None
        size = max(self.setting.outputs, self.setting.tasks)
        if self._met(learner).shared:
            return F.one_hot(tasks, size).float()
        return F.pad(belief, (0, size - belief.shape[1]))

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        super().before_forward(learner, batch)
        self.features.catch(learner.model.head, frozen=self.latent and self.past is not None)

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        own, dream = batch.own, self.dream
        features = self.features.value
        x = batch.raw.float() / 255
        if self.latent:
            features = x = features.detach().float()
            if self.generator.scale is not None and self.past is None:
                self.generator.scale.learn(x, learner.step)
        belief = F.one_hot(batch.labels[:own], self.setting.outputs).float()
        tasks = torch.full_like(batch.labels[:own], learner.task)
        if dream is not None and dream.tasks is not None:
            x = torch.cat((x, dream.x))
            features = torch.cat((features, dream.x)) if self.latent else features
            belief, tasks = torch.cat((belief, dream.targets[:, 0])), torch.cat((tasks, dream.tasks))
        random = self.random(learner, "train")
        noise = torch.randn(len(x), self.options.latent, generator=random, device=learner.device)
        gates = self._gates(learner, tasks, belief)
        with autocast(learner.device, learner.precision):
            losses = self.generator.losses(features, x, belief, gates, noise)
        return self.mixed(learner, batch, loss) + self.weigh(learner, losses, own)

    def after_step(self, learner: Learner, batch: Batch) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
