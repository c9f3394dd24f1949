"""Deep generative replay: an autoencoder beside the network learns to generate what the tasks showed."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from engram.backbone.contract import Batch, Learner
from engram.backbone.hardware import autocast
from engram.continual.generative.dreams import Dreaming
from engram.continual.generative.options import DGROptions
from engram.continual.generative.vae import VAE


class DGR(Dreaming[VAE]):
    """Generated rows are answered by the network of the previous task: with its choice, or with its probabilities.

    Where tasks have outputs of their own, a generated row is a question to those of each earlier task, and the loss is
    the mean over them. In latent space generated features go to the head; its input stays comparable because nothing in
    front of the head changes any more after the first task.

    Source: Shin et al. 2017 (arXiv 1705.08690); van de Ven and Tolias 2018 (arXiv 1809.10635), DGR and DGR+distill.
    """

    name: ClassVar[str] = "dgr"
    options: DGROptions

    def _build(self) -> VAE:
        o = self.options
        return VAE(self.shape, o.latent, o.hidden, "dense" if self.latent else o.architecture)

    def _sample(self, learner: Learner, past: VAE, rows: int, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
        return past.sample(torch.randn(rows, past.latent, generator=random, device=learner.device)), None

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        super().before_forward(learner, batch)
        if self.latent:
            self.features.catch(learner.model.head, frozen=self.past is not None)

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        return self.mixed(learner, batch, loss)

    def after_step(self, learner: Learner, batch: Batch) -> None:
        own = self._own(learner, batch)
        x = own if self.dream is None else torch.cat((own, self.dream.x))
        random = self.random(learner, "train")
        noise = torch.randn(len(x), self.generator.latent, generator=random, device=learner.device)
        with autocast(learner.device, learner.precision):
            losses = self.generator.losses(x, noise)
        self.weigh(learner, losses, len(own)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _own(self, learner: Learner, batch: Batch) -> Tensor:
        """What the task shows, as the generator sees it."""
        if not self.latent:
            return batch.raw.float() / 255
        features = self.features.value.detach()[: batch.own].float()
        scale = self.generator.scale
        if scale is not None and self.past is None:
            scale.learn(features, learner.step)
        return features
