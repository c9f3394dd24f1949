"""What is common to objectives that leave a trained network as it is and fit its last layer anew."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Batch, Introduced, Objective, ObjectiveSetting, Outputs, Row, Training
from engram.backbone.data.columns import GROUP, numbered
from engram.backbone.data.sets import Split
from engram.backbone.data.splits import stratified
from engram.backbone.errors import must
from engram.backbone.measures.features import features_of
from engram.backbone.nets.classifier import Classifier
from engram.backbone.objectives.asking import without_validation
from engram.backbone.objectives.columns import columns_of
from engram.causal.objectives.reference import reference_of

_HALVES = 4  # the choice of halves is none of those of the data's splits


@dataclass(frozen=True)
class Known:
    """What is known of some images.

    Attributes:
        features: [N, F] float64, on the CPU.
        labels: [N] int64.
        groups: [N] int64 from 0; None where they are not needed.
        names: of the groups.
    """

    features: Tensor
    labels: Tensor
    groups: Tensor | None
    names: tuple[str, ...] = ()

    def at(self, rows: Tensor) -> Known:
        """The images at some positions."""
        groups = None if self.groups is None else self.groups[rows]
        return Known(self.features[rows], self.labels[rows], groups, self.names)

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each group has, by its name."""
        assert self.groups is not None
        return dict(zip(self.names, self.groups.bincount(minlength=len(self.names)).tolist(), strict=True))

    @property
    def cells(self) -> Tensor:
        """Class and group of every image as one number, [N] int64 from 0; a group may be of one class or span some."""
        assert self.groups is not None
        return torch.stack((self.labels, self.groups)).unique(dim=1, return_inverse=True)[1]

    def halves(self) -> tuple[Known, Known]:
        """Two halves, of every class and group as nearly as whole images allow; the same ones for every seed."""
        first, second = stratified(self.cells, 0.5, _HALVES)
        return self.at(first), self.at(second)


@dataclass(frozen=True)
class Layer:
    """A linear layer: logits ``x W^T + b``.

    Attributes:
        weight: W [K, F] float64.
        bias: b [K] float64.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """features: [N, F] float64 -> logits [N, K]."""
        return torch.addmm(self.bias, features, self.weight.T)

    @classmethod
    def of(cls, head: nn.Linear) -> Layer:
        """That of a head."""
        return cls(head.weight.detach().double().cpu(), head.bias.detach().double().cpu())

    def by_groups(self, known: Known) -> Tensor:
        """The accuracy on the images of every group that has some, ``[G] float64``."""
        assert known.groups is not None
        counts = known.groups.bincount()
        right = (self(known.features).argmax(1) == known.labels).double()
        return (right.new_zeros(len(counts)).index_add(0, known.groups, right) / counts)[counts > 0]


class LastLayer(Objective):
    """Takes the weights of a reference network and fits its head anew, without a step of the training loop.

    Args:
        setting: with a reference and validation images.
        name: of the objective.

    Attributes:
        rows: a row for each head that was tried.
        of_groups: a row for each group: how many images the head is fitted on, and how many it was chosen by. A group
            of a single image in a class has none to be chosen by: both at once it cannot be.

    Raises:
        UserError: there are no validation images.
    """

    by_itself = True

    def __init__(self, setting: ObjectiveSetting, name: str) -> None:
        self.name, self.reference = name, reference_of(setting)
        if setting.validation is None:
            raise without_validation(name)
        self.outputs, self.validation = setting.outputs, setting.validation
        self.rows: list[Row] = []
        self.of_groups: list[Row] = []

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        raise AssertionError(f"{self.name} learns by itself")

    def trained(self, model: Classifier) -> nn.Linear:
        if not isinstance(model.head, nn.Linear):
            got = type(model.head).__name__
            raise must(f"the head for {self.name}", "a linear layer", got, "Leave --head out, or use --head linear.")
        return model.head

    def learn(self, training: Training) -> float:
        model = training.model
        head = self.trained(model)
        self._take_weights(model)
        self._require_features(training, head)
        known = Known(features_of(model, training.data, training.device).double().cpu(), training.data.labels, None)
        layer = self.fitted(training, known, Layer.of(head))
        with torch.no_grad():
            head.weight.copy_(layer.weight)
            head.bias.copy_(layer.bias)
        return float(F.cross_entropy(layer(known.features), known.labels))

    @abstractmethod
    def fitted(self, training: Training, train: Known, start: Layer) -> Layer:
        """The new head, in place of the reference's.

        Args:
            training: its model has the reference's weights.
            train: the training images, without their groups.
            start: the reference's head.

        Raises:
            UserError: a column is missing, or there are too few groups or images.
        """

    def known(self, training: Training, split: Split, *, grouped: bool = True) -> Known:
        """What is known of some images, with their groups or without.

        Raises:
            UserError: there is no group column, or one group.
        """
        features = features_of(training.model, split, training.device).double().cpu()
        return Known(features, split.labels, *(self.groups(split) if grouped else (None, ())))

    def groups(self, split: Split) -> tuple[Tensor, tuple[str, ...]]:
        """The group of every image, and the names of all.

        Raises:
            UserError: there is no such column, or one group.
        """
        found = columns_of(split, (GROUP,), "cpu")[GROUP]
        if found.ndim != 1 or found.is_floating_point() or len(found.unique()) < 2:
            got = "one" if found.ndim == 1 and not found.is_floating_point() else "no groups"
            remedy = "Name them with --dataset.group, or use cross-entropy."
            raise must(f"the column {GROUP!r} for {self.name}", "of at least two groups", got, remedy)
        return found, numbered(split.columns[GROUP])[1]

    def note_groups(self, fitting: Known, choosing: Known) -> None:
        """Note which groups a head is fitted on and chosen by.

        Raises:
            UserError: it would be chosen by no more than one.
        """
        fitted, kept = fitting.sizes, choosing.sizes
        names = dict.fromkeys((*fitted, *kept))
        self.of_groups = [
            {"group": name, "fitted on": fitted.get(name, 0), "chosen by": kept.get(name, 0)} for name in names
        ]
        if sum(count > 0 for count in kept.values()) < 2:
            rule, got = f"such that {self.name} can keep images of two groups back, to choose by", "images of fewer"
            raise must("--validation", rule, got, "Hold out more.")

    def row(self, said: Mapping[str, Any], layer: Layer, known: Known) -> tuple[float, float]:
        """Note how a head does on images to choose on; the accuracy of the worst group, and the mean of all."""
        each = layer.by_groups(known)
        worst, mean = float(each.min()), float(each.mean())
        self.rows.append({**said, "worst group": worst, "mean of groups": mean})
        return worst, mean

    def tables(self) -> Mapping[str, Sequence[Row]]:
        return {"last_layer": self.rows, **({"last_layer_groups": self.of_groups} if self.of_groups else {})}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows], "of_groups": [dict(row) for row in self.of_groups]}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.rows, self.of_groups = list(saved["rows"]), list(saved["of_groups"])

    def _require_features(self, training: Training, head: nn.Linear) -> None:
        """Refuse features that depend on the head behind them, as where logits are fed back."""
        if not isinstance(training.model.backbone, Introduced):
            return
        some, both = training.data.select(torch.arange(min(8, len(training.data)))), []
        for _ in range(2):  # twice turned round the weights are as they were; a change of sign alone may cancel out
            both.append(features_of(training.model, some, training.device))
            head.weight.detach().copy_(head.weight.detach().flip(1))
        if not torch.equal(*both):
            rule, got = "one whose features do not depend on the head behind them", "one that feeds back logits"
            raise must(f"the network for {self.name}", rule, got, "Use other --connections, or another --adapter.")

    def _take_weights(self, model: Classifier) -> None:
        theirs, ours = self.reference.state_dict(), model.state_dict()
        other = [name for name in {**ours, **theirs} if _shape(ours, name) != _shape(theirs, name)]
        if other:
            got = f"another one: {other[0]} is {_shape(theirs, other[0])} there and {_shape(ours, other[0])} here"
            remedy = "Give the options of the network as they were there."
            raise must("the network of --reference", f"the one that {self.name} is to fit a head of", got, remedy)
        model.load_state_dict(theirs)


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return "x".join(map(str, state[name].shape)) if name in state else "missing"
