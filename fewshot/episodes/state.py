"""Where a trial of ``fewshot.episodes`` is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engram.backbone.contract import Named
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.nets.classifier import Classifier
from engram.backbone.training.loop import Trainer
from engram.fewshot.episodes.features import Table
from engram.fewshot.episodes.sampling import Pools, Shapes
from engram.fewshot.episodes.training import Through


@dataclass
class Work:
    """Episodes of one split and size to score, and the accuracies of those that are."""

    part: str
    shapes: Shapes
    count: int
    accuracies: Tensor = field(default_factory=lambda: torch.empty(0))
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many were scored."""
        return len(self.accuracies)

    @property
    def name(self) -> str:
        """What it is called in files: ``test/5-way 1-shot``."""
        return f"{self.part}/{said(self.shapes)}"


def said(shapes: Shapes) -> str:
    """What episodes of a size are called.

    >>> said(Shapes((5, 20), (1, 1), 15))
    '5-20-way 1-shot'
    """
    ways, shots = ("-".join(map(str, sorted({*ends}))) for ends in (shapes.ways, shapes.shots))
    return f"{ways}-way {shots}-shot"


@dataclass
class EpisodesState:
    """Where a trial is.

    Attributes:
        data: as loaded, labels numbering the classes of all parts together.
        train: the training images, labels numbering their own classes.
        pools: of every part, by name.
        beginning: the network as it began, with ``train`` for its data.
        head: what the support head is made of.
        support: the support head of a network that is not trained by episodes.
        trainer: None where nothing is trained.
        works: what is to be scored.
        tables: features by part, as far as they are needed.
        curves: a row for every pass of the training.
        centred: whether the head was shown the training features, where it wants to see them.
    """

    data: Data
    train: Split
    pools: dict[str, Pools]
    beginning: Beginning
    head: Named
    support: nn.Module
    trainer: Trainer | None
    works: list[Work]
    tables: dict[str, Table]
    curves: list[dict[str, float]] = field(default_factory=list)
    centred: bool = False

    @property
    def model(self) -> Classifier:
        """The network to score, in evaluation mode."""
        return (self.beginning.model if self.trainer is None else self.trainer.scored_model).eval()

    @property
    def done(self) -> bool:
        scored = all(work.done == work.count for work in self.works)
        return scored and (self.trainer is None or self.trainer.done) and all(t.whole for t in self.tables.values())

    def split(self, part: str) -> Split:
        found = {"train": self.train, "validation": self.data.validation, "test": self.data.test}[part]
        assert found is not None  # the parts of works and tables are there
        return found


def support_of(model: Classifier, other: nn.Module) -> nn.Module:
    """The support head that was trained with a network; ``other`` where none was."""
    return model.head.head if isinstance(model.head, Through) else other
