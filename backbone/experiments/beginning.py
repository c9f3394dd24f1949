"""The network that a training begins with: a fresh one, or another trial's with something added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engram.backbone.contract import Judged, Named, Scalar, Services
from engram.backbone.data.load import Data
from engram.backbone.errors import must
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.nets.classifier import LINEAR, Classifier, adapt, build, build_head
from engram.backbone.objectives.distillation import Distillation
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model


@dataclass
class Beginning:
    """A network, how to build it again, and which of its methods wants to see training images first."""

    model: Classifier
    backbone: Named
    head: Named = LINEAR
    adapters: list[Named] = field(default_factory=list)
    prepare: Literal["prepare", "calibrate"] | None = "prepare"

    def add(self, name: str, options: Mapping[str, Scalar]) -> None:
        """Adapt the network."""
        adapter = in_full(Registry.discover(), "adapters", name, options)
        self.model.backbone = adapt(self.model.backbone, adapter.name, adapter.options)
        self.adapters.append(adapter)
        self.prepare = self.prepare or "calibrate"


def show_verdicts(backbone: object, services: Services) -> None:
    """The table of what an adapter made of every layer of a network, where it says so."""
    if isinstance(backbone, Judged) and backbone.verdicts:
        services.table("Pre-flight: what becomes of every layer", backbone.verdicts)


def begin(config: TrainConfig, data: Data, trained: Path | None) -> Beginning:
    """A fresh network, or the one saved in the folder ``trained``, with the adapter that is asked for.

    Raises:
        UserError: the trained network is another one than the configuration says, or takes other images.
    """
    c = config
    if trained is None:
        net = in_full(Registry.discover(), "backbones", c.backbone, c.backbone_options)
        model = build(net.name, net.options, data.in_shape, len(data.classes), data.mean, data.std)
        found = Beginning(model, net)
    else:
        found = _carry_on(c, data, trained)
    if c.adapter is not None:
        found.add(c.adapter, c.adapter_options)
    return found


def _carry_on(config: TrainConfig, data: Data, folder: Path) -> Beginning:
    """A trained network; its head starts afresh when the classes are others."""
    model, made = load_model(folder)
    _check(config, made)
    _check_shape("--from", made.in_shape, data.in_shape)
    if made.classes != tuple(data.classes):
        width: Any = model.backbone.feature_dim
        model.head = build_head(made.head, width, len(data.classes))
        model.normalise.mean, model.normalise.std = data.mean, data.std
    return Beginning(model.train(), made.backbone, made.head, list(made.adapters), None)


def _check(config: TrainConfig, made: Made) -> None:
    if config.backbone != made.backbone.name:
        raise must("--backbone", "that of the trial beside --from", config.backbone, f"Use {made.backbone.name}.")
    options = dict(config.backbone_options)
    if options and in_full(Registry.discover(), "backbones", config.backbone, options) != made.backbone:
        raise must("--backbone.*", "left out beside --from, or as in the trial", options, "Leave them out.")


def _check_shape(flag: str, trained: Sequence[int], got: Sequence[int]) -> None:
    if list(trained) != list(got):
        shapes = ["x".join(map(str, shape)) for shape in (got, trained)]
        raise must(
            f"{flag}", f"a network for images of {shapes[0]}", f"one for {shapes[1]}", "Choose --dataset to match it."
        )


def load_teacher(folder: Path, student: Classifier, data: Data, weight: float, temperature: float) -> Distillation:
    """The network saved in ``folder`` as a teacher.

    Raises:
        UserError: it knows other classes or takes other images.
    """
    teacher, made = load_model(folder)
    _check_shape("--teacher", made.in_shape, data.in_shape)
    if made.classes != tuple(data.classes):
        raise must("--teacher", "trained on the same classes", ", ".join(made.classes[:5]), "Choose another.")
    return Distillation(teacher, student.normalise, weight, temperature)
