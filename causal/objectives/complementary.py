"""The objective ``complementary``: heads that agree in environments which are found, not given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import (
    Batch,
    Halves,
    Objective,
    ObjectiveSetting,
    Outputs,
    Training,
    Wanted,
)
from engram.backbone.errors import must
from engram.backbone.measures.scoring import shown
from engram.backbone.objectives.cross_entropy import cross_entropies
from engram.backbone.seeding import generator
from engram.causal.attention.complementary import ComplementaryAttention
from engram.causal.attention.parting import parted
from engram.causal.logistic import regression, standardised
from engram.causal.objectives.attention_options import ComplementaryTrainingOptions
from engram.causal.slopes import slopes

_DECAY, _STEPS = 1e-3, 100  # of the head that is fitted to what attention leaves out
_LOTS = 2**31


class ComplementaryTraining(Objective):
    """``mean_e CE(h_e(c), y in e) + lambda mean_e (|W_e - mean W|_2 / |W_e|_1)^2 + CE(h(c + s), y)``.

    c is what attention lets through and s what it leaves out. Every training image is in one environment e. They are
    parted by chance at first; each time all images were shown ``every`` times more, a linear head is fitted to s of
    all of them, with the network as it is, and the images are parted anew so that its slope differs between
    environments as much as can be: what s tells of the class then holds in none of them alike. Rows that a strategy
    replays are in no environment: they are asked of the classifier's head, as one more.

    Args:
        options: lambda, how often images are parted, and in how many steps.
        images: how many there are to train on.
        label_smoothing: share of the target that is spread over all classes.

    Source: Wang, Zhou, Sun and Zhang 2021 (arXiv 2108.08782), section 3.3, with the penalty of their code. Two things
    are ours: the head of s is fitted whenever images are parted, and environments count by their shares
    (`engram.causal.attention.parting`).
    """

    wants: tuple[Wanted, ...] = ("halves",)

    def __init__(self, options: ComplementaryTrainingOptions, images: int, label_smoothing: float = 0.0) -> None:
        self.options, self.label_smoothing = options, label_smoothing
        self.shown = self.partings = 0
        self.begun: tuple[Training, ComplementaryAttention] | None = None
        self.lots = _by_chance(images, 0)
        """[N] int64: an image's environment, once divided by their number and the rest taken."""

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        halves = outputs.halves
        assert halves is not None  # wanted
        if self.begun is not None and self.shown >= self.options.every * len(self.lots) * (self.partings + 1):
            self._part(*self.begun)
        self.shown += batch.own
        losses = self._by_environment(outputs, halves, batch)
        mixed = cross_entropies(
            outputs.on_offer(halves.mixed), batch.labels, self.label_smoothing, outputs.offered
        ).mean()
        return losses + self.options.agreement * halves.spread + mixed

    def _by_environment(self, outputs: Outputs, halves: Halves, batch: Batch) -> Tensor:
        """The mean over environments of the mean loss of their rows; those without rows are left out."""
        count = len(halves.environments)
        own = self.lots[batch.indices].to(batch.labels.device) % count
        where = torch.cat([own, own.new_full((len(batch.labels) - batch.own,), count)])
        each = torch.cat([outputs.on_offer(halves.environments), outputs.logits.unsqueeze(0)])
        logits = each[where, torch.arange(len(where), device=where.device)]
        losses = cross_entropies(logits, batch.labels, self.label_smoothing, outputs.offered)
        sums = losses.new_zeros(count + 1).index_add(0, where, losses)
        rows = where.bincount(minlength=count + 1)
        return (sums / rows.clamp(min=1)).sum() / (rows > 0).sum()

    @torch.no_grad()
    def _part(self, training: Training, net: ComplementaryAttention) -> None:
        """Part all training images anew."""
        self.partings += 1
        rest, labels = _rest(training, net), training.data.labels
        (rows,) = standardised(rest)
        head = regression(rows, labels, int(labels.max()) + 1, _DECAY, _STEPS)
        random = generator(training.options.seed, "environments", self.partings)
        self.lots = parted(slopes(rows @ head, labels), net.options.environments, self.options.rounds, random)

    def begin(self, training: Training) -> None:
        """Look at the network and its head, and part the images by chance.

        Raises:
            UserError: the network has no such attention, or its head is not linear.
        """
        net = training.model.backbone
        if not isinstance(net, ComplementaryAttention):
            remedy = "Use --adapter causal.complementary, behind all others."
            raise must("the network for the objective complementary", "Complementary", type(net).__name__, remedy)
        net.heads()
        self.begun = training, net
        self.lots = _by_chance(len(training.data), training.options.seed)

    def state_dict(self) -> dict[str, Any]:
        return {"lots": self.lots, "shown": self.shown, "partings": self.partings}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.lots, self.shown, self.partings = saved["lots"].clone(), saved["shown"], saved["partings"]


def _rest(training: Training, net: ComplementaryAttention) -> Tensor:
    """What attention leaves out of every training image, as features [N, D] float32 on the CPU."""
    model, data, found = training.model, training.data, list[Tensor]()
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for images, _, _ in shown(model, data, training.device):
        found.append(net.split(model.normalise(images))[1].float().cpu())
    for module, mode in modes:
        module.training = mode
    return torch.cat(found)


def _by_chance(images: int, seed: int) -> Tensor:
    return torch.randint(_LOTS, (images,), generator=generator(seed, "environments"))


def complementary(options: ComplementaryTrainingOptions, setting: ObjectiveSetting) -> ComplementaryTraining:
    """The objective, with the label smoothing that the options of the training have."""
    return ComplementaryTraining(options, len(setting.data), setting.label_smoothing)
