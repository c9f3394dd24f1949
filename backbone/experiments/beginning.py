"""The network that a training begins with: a fresh one, or another trial's with something added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from engram.backbone.contract import Initialised, Judged, Named, Scalar, Services, Unnormalised
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import of_such_images, outputs_of, require_shape, to_train_on
from engram.backbone.errors import must
from engram.backbone.experiments.network_configs import NetworkConfig
from engram.backbone.nets.classifier import Classifier, as_it_is
from engram.backbone.nets.making import LINEAR, adapt, build, build_head
from engram.backbone.options import in_full
from engram.backbone.options.named import options_within
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model
from engram.backbone.saved.weights import load_weights
from engram.backbone.training.preparing import fill
from engram.backbone.weights import WEIGHTS


@dataclass
class Beginning:
    """A network, how to build it again, what to train it on, and which of its methods wants to see images first.

    ``data`` are those that were given, in terms of the network's outputs; ``meanings`` and ``view`` are as in
    `engram.backbone.saved.made.Made`.
    """

    model: Classifier
    data: Data
    backbone: Named
    head: Named
    adapters: list[Named] = field(default_factory=list)
    prepare: Literal["prepare", "calibrate"] | None = "prepare"
    meanings: tuple[tuple[str, ...], ...] = ()
    view: Named | None = None

    def add(self, name: str, options: Mapping[str, Scalar]) -> None:
        """Adapt the network; a head starts afresh where the features are others in number."""
        adapter = in_full(Registry.discover(), "adapters", name, options)
        before: Any = self.model.backbone
        net = adapt(before, adapter.name, adapter.options)
        if net.feature_dim != before.feature_dim:
            self.model.head = build_head(self.head, net.feature_dim, len(self.data.classes))
        self.model.backbone = net
        self.adapters.append(adapter)
        self.prepare = self.prepare or "calibrate"


def show_verdicts(backbone: object, services: Services) -> None:
    """The table of what an adapter made of every layer of a network, where it says so."""
    if isinstance(backbone, Judged) and backbone.verdicts:
        services.table("Pre-flight: what becomes of every layer", backbone.verdicts)


def begin(
    config: NetworkConfig,
    data: Data,
    inputs: Mapping[str, Path],
    head: Named | None = None,
    *,
    relabel: bool = True,
    renormalise: bool = True,
) -> Beginning:
    """A fresh network, or the one saved by the trial ``trained`` among ``inputs``, with the adapters asked for.

    Args:
        head: what turns its features into logits; None: a linear layer, or the saved network's.
        relabel: False keeps the labels of ``data``: a saved head whose outputs mean other classes starts afresh.
        renormalise: False keeps the preprocessing of a saved network where its head starts afresh as well.

    Raises:
        UserError: the trained network is another one than the configuration says, or takes other images.
    """
    c = config
    if "trained" not in inputs:
        net, made = fresh(c.backbone, c.backbone_options), head or LINEAR
        model = build(net.name, net.options, data.in_shape, len(data.classes), data.mean, data.std, made)
        _normalise(model, data)
        if c.weights is not None:
            load_weights(model, WEIGHTS.find(c.weights))
            fill(model, data.train, c.seed)
        found = Beginning(model, data, net, made, prepare="prepare" if c.weights is None else None)
    else:
        found = _carry_on(c, data, inputs["trained"] / "model", head, relabel, renormalise)
    for name in c.adapter:
        found.add(name, options_within(c.adapter_options, name))
    return found


def _carry_on(
    config: NetworkConfig, data: Data, folder: Path, asked: Named | None, relabel: bool, renormalise: bool
) -> Beginning:
    """A trained network; its head starts afresh where it has outputs for other classes, or another one is asked for."""
    model, made = load_model(folder)
    _check(config, made)
    if relabel:
        known = to_train_on(made, data, "--from", config.dataset)
    else:
        require_shape(made, "images for the network of --from", data.in_shape, of_such_images(made, config.dataset))
        known = data if made.classes == tuple(data.classes) else None
    found = Beginning(model.train(), known or data, made.backbone, asked or made.head, list(made.adapters), None)
    if known is None and renormalise:
        _normalise(model, data)
    elif known is not None and relabel:
        found.meanings, found.view = made.meanings, _view_of(made, data)
    if known is None or found.head != made.head:
        width: Any = model.backbone.feature_dim
        model.head = build_head(found.head, width, len(found.data.classes))
        fill(model, found.data.train, config.seed)
    return found


def fresh(backbone: str, options: Mapping[str, Any]) -> Named:
    """A network as it is made anew: with all its options, and with what its file says where it comes as one.

    Raises:
        UserError: as `in_full`, or the file was not given or is none.
    """
    registry = Registry.discover()
    return replace(in_full(registry, "backbones", backbone, options), content=registry.content(backbone))


def as_it_came(backbone: str, options: Mapping[str, Any], split: Split, classes: tuple[str, ...]) -> Classifier:
    """A network that comes as a file, with its weights and with its outputs for logits.

    Raises:
        UserError: it takes other images, has another output for each class, or wants to know a training set.
    """
    net, channels = fresh(backbone, options), split.in_shape[0]
    blank = torch.zeros(channels), torch.ones(channels)
    model = build(net.name, net.options, split.in_shape, len(classes), *blank)
    if not isinstance(model.backbone, Initialised) or model.backbone.feature_dim != len(classes):
        rule = f"one with an output for each of the {len(classes)} classes, to be scored as it is"
        raise must(
            "--backbone", rule, f"{model.backbone.feature_dim} outputs", "Train a head: engram run backbone.train"
        )
    if not isinstance(model.backbone, Unnormalised) or not model.backbone.raw:
        rule = "one that takes images as they are, to be scored without training images"
        raise must("--backbone", rule, net.name, "Leave its option for normalised images out.")
    model.normalise.mean, model.normalise.std = as_it_is(model.backbone, *blank, split.frames is not None)
    return model


def _normalise(model: Classifier, data: Data) -> None:
    mean, std = as_it_is(model.backbone, data.mean, data.std, data.frames is not None)
    model.normalise.mean, model.normalise.std = mean, std


def _view_of(made: Made, data: Data) -> Named | None:
    return made.data.view if made.data is not None and made.data.fingerprint == data.fingerprint else None


def _check(config: NetworkConfig, made: Made) -> None:
    if config.backbone != made.backbone.name:
        raise must("--backbone", "that of the trial beside --from", config.backbone, f"Use {made.backbone.name}.")
    options = dict(config.backbone_options)
    if options and in_full(Registry.discover(), "backbones", config.backbone, options).options != made.backbone.options:
        raise must("--backbone.*", "left out beside --from, or as in the trial", options, "Leave them out.")


def load_teacher(folder: Path, data: Data, dataset: str) -> tuple[Classifier, Tensor]:
    """The network saved in ``folder`` as a teacher of some data, and its output for each class of them, [classes].

    Raises:
        UserError: it does not know their classes by name or takes other images.
    """
    teacher, made = load_model(folder)
    require_shape(made, "images for the network of --teacher", data.in_shape, of_such_images(made, dataset))
    return teacher, outputs_of(made, data.classes, by_number=False)
