"""What the replaying strategies share: a buffer, rows drawn from it, and images chosen at the end of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.contract import Batch, Learner, Setting
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.measures.scoring import SCORING_BATCH
from engram.backbone.seeding import generator
from engram.continual.replay.buffers import Buffer, Rows, Turns, buffer_seed, herd, quota
from engram.continual.strategy import StrategyBase


class Rehearsal(StrategyBase):
    """Keeps images of its batches as they were before augmentation, after every step, each at most once (`Turns`)."""

    recordable = True
    reach = "met"
    name: ClassVar[str]
    selection: Literal["reservoir", "balanced"] | None = "reservoir"
    keeps_logits: ClassVar[bool] = False
    apart: ClassVar[bool] = True
    """Whether kept rows make a forward pass of their own."""

    def __init__(self, options: Any, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.rows: int = getattr(options, "replay_batch", None) or setting.batch_size
        normalised = self.apart and any(isinstance(module, _BatchNorm) for module in model.modules())
        self.least = 2 if normalised else 1
        """Rows that can make a forward pass: one has no deviation to be normalised by."""
        self.place = "--buffer" if setting.keepers == 1 else f"the share of --buffer that {self.name} has"
        for flag, rows in {self.place: setting.buffer, f"--strategies.{self.name}.replay-batch": self.rows}.items():
            if rows < self.least:
                raise must(
                    flag,
                    "at least 2 for a network with BatchNorm",
                    rows,
                    f"Raise {'--buffer' if flag == self.place else 'it'}.",
                )
        self.buffer = Buffer(
            setting.buffer,
            setting.in_shape,
            setting.frames,
            setting.device,
            buffer_seed(setting.seed, self.name),
            self.selection,
            setting.outputs if self.keeps_logits else None,
        )
        self.turns = None if getattr(options, "copies", False) else Turns(self.buffer.seed)

    def need_a_place_for_all(self) -> None:
        """Raise UserError where a class of a task would have no image among those kept when it ended."""
        if self.setting.buffer < self.setting.groups:
            rule = f"at least {self.setting.groups} for {self.name}, an image of every class of every task"
            raise must(self.place, rule, self.setting.buffer, "Raise --buffer.")

    @property
    def ready(self) -> bool:
        """Whether enough images are kept for a forward pass of their own."""
        return len(self.buffer) >= self.least

    def recall(self, learner: Learner) -> tuple[Tensor, Rows]:
        """Kept rows at random, and their images [R, C, H, W] as the training sees its own."""
        purpose = f"{self.name}/{self.buffer.draws}"
        rows = self.buffer.draw(self.rows)
        return learner.augmented(rows.images, purpose), rows

    def after_step(self, learner: Learner, batch: Batch) -> None:
        if self.selection is None:
            return
        own = batch.own
        labels = batch.labels[:own]
        logits = batch.logits[:own].detach() if self.keeps_logits else None
        rows = Rows(batch.raw, labels, torch.full_like(labels, learner.task), logits)
        self.buffer.add(rows, learner.data.labels[batch.indices].tolist(), self._offered(learner, batch))

    def _offered(self, learner: Learner, batch: Batch) -> list[int] | None:
        """Which rows of the batch may be kept now; None: all."""
        if self.turns is None:
            return None
        passes, now = (steps // learner.steps_per_epoch for steps in (learner.total_steps, learner.step))
        return self.turns.due(learner.task, len(learner.data), passes, now, batch.indices)

    def stored(self) -> dict[str, Tensor]:
        kept = self.buffer.content()
        return {"images": kept.images, "labels": kept.labels, "tasks": kept.tasks}

    def state_dict(self) -> dict[str, Any]:
        return {"buffer": self.buffer.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.buffer.load_state_dict(saved["buffer"])


@torch.no_grad()
def features(learner: Learner, images: Tensor) -> Tensor:
    """images: [N, C, H, W] uint8 -> [N, D] float32 of the network as it is, in evaluation mode, on its device."""
    model = learner.model
    training = model.training
    model.eval()
    size = max(SCORING_BATCH // (learner.data.frames or 1), 1)
    parts = [model.backbone(model.normalise(part.to(learner.device))).float() for part in images.split(size)]
    model.train(training)
    return torch.cat(parts)


def keep_herded(learner: Learner, buffer: Buffer, split: Split) -> None:
    """Make room in the buffer, and keep the images of each class of ``split`` that represent it best.

    A class as it was in one task is a group, and the groups have equal shares of the buffer, the earliest ones one more
    where they cannot be equal. Earlier groups lose those that were chosen last.
    """
    kept = buffer.content()
    names = torch.stack((kept.tasks, kept.labels), 1)
    _, sizes = torch.unique_consecutive(names, dim=0, return_counts=True)
    groups = [Rows(*parts) for parts in zip(*(each.split(sizes.tolist()) for each in _columns(kept)), strict=True)]
    new = split.labels.unique().tolist()
    count = len(groups) + len(new)
    shares = [quota(buffer.capacity, count, index) for index in range(count)]
    parts = [
        Rows(*(column[:share] for column in _columns(group))) for group, share in zip(groups, shares, strict=False)
    ]
    for label, share in zip(new, shares[len(groups) :], strict=True):
        found = (split.labels == label).nonzero().squeeze(1)
        images = torch.cat([images for images, _, _ in split.batches(found, SCORING_BATCH, learner.device)])
        chosen = images.index_select(0, herd(features(learner, images), share))
        labels = torch.full((len(chosen),), label, device=learner.device)
        parts.append(Rows(chosen, labels, torch.full_like(labels, learner.task)))
    buffer.put(parts)


def keep_drawn(learner: Learner, buffer: Buffer, split: Split, share: int) -> None:
    """Keep ``share`` images of each class of ``split`` as well, drawn by the seed."""
    random = generator(learner.options.seed, "keep")
    for label in split.labels.unique().tolist():
        found = (split.labels == label).nonzero().squeeze(1)
        chosen = found[torch.randperm(len(found), generator=random)[:share]]
        for images, labels, _ in split.batches(chosen, len(chosen), learner.device):
            buffer.append(images, labels, torch.full_like(labels, learner.task))


def _columns(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    return rows.images, rows.labels, rows.tasks
