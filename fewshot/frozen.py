"""Networks that are used as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from engram.backbone.contract import Centred, Named, SupportHead
from engram.backbone.data.load import normalisation
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import load_as_trained, of_such_images, require_shape
from engram.backbone.experiments.beginning import fresh
from engram.backbone.nets.classifier import Classifier, as_it_is
from engram.backbone.nets.making import adapt, build
from engram.backbone.options import in_full
from engram.backbone.options.named import options_within
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model
from engram.backbone.saved.weights import load_weights
from engram.backbone.training.preparing import prepare
from engram.backbone.weights import WEIGHTS
from engram.fewshot.episodes.saved import kept_head, support_head
from engram.fewshot.frozen_configs import FrozenConfig

HEAD = "fewshot.prototype"
"""Where nobody names another one."""


@dataclass(frozen=True)
class Learner:
    """A support head, what it is made of, and whether it comes from a training."""

    head: nn.Module
    named: Named
    trained: bool


@dataclass(frozen=True)
class Frozen:
    """A trained network in evaluation mode, and how to make it again.

    ``made`` is what the trial says of it and ``folder`` is the trial's; None for one with weights from a file.
    """

    model: Classifier
    backbone: Named
    adapters: tuple[Named, ...]
    made: Made | None
    folder: Path | None

    def support_head(self, name: str | None, options: Mapping[str, Any], ways: int = 1) -> Learner:
        """The head that learns classes from a support set.

        Args:
            name: None for the one that the trial trained or the network has, `HEAD` where there is none of that kind.
            options: of the head of that name.
            ways: how many classes it will tell apart.
        """
        own = None if self.folder is None else kept_head(self.folder)
        if name is None and own is None and self.made is not None and isinstance(self.model.head, SupportHead):
            return Learner(self.model.head, self.made.head, True)
        named = (
            own if name is None and own is not None else in_full(Registry.discover(), "heads", name or HEAD, options)
        )
        width: Any = self.model.backbone.feature_dim
        return Learner(support_head(named, width, ways, self.folder), named, named == own)

    def to_centre(self, learner: Learner, *, root: Path, download: bool) -> Split | None:
        """The training images, where a head has yet to know the mean of their features and the trial names them."""
        if learner.trained or not isinstance(learner.head, Centred) or self.made is None or self.made.data is None:
            return None
        return load_as_trained(self.made, root=root, download=download)[0].train


def frozen(config: FrozenConfig, images: Split, inputs: Mapping[str, Path], dataset: str) -> Frozen:
    """The network of a configuration.

    Args:
        images: some of those it will see; those with weights from a file are normalised by their mean and deviation.
        inputs: folders of other trials, by role.
        dataset: what the images are called.

    Raises:
        UserError: it takes images of another shape, or there is no whole network.
    """
    if "trained" in inputs:
        model, made = load_model(inputs["trained"] / "model")
        require_shape(made, f"images of {dataset}", images.in_shape, of_such_images(made, dataset))
        return _adapted(config, Frozen(model, made.backbone, tuple(made.adapters), made, inputs["trained"]), images)
    assert config.backbone is not None  # the configuration was checked
    net, (mean, std) = fresh(config.backbone, config.backbone_options), normalisation(images)
    model = build(net.name, net.options, images.in_shape, 1, mean, std)
    model.normalise.mean, model.normalise.std = as_it_is(model.backbone, mean, std, images.frames is not None)
    if config.weights is not None:
        load_weights(model, WEIGHTS.find(config.weights))
    return _adapted(config, Frozen(model, net, (), None, None), images)


def _adapted(config: FrozenConfig, network: Frozen, images: Split) -> Frozen:
    """The network changed by the adapters that are asked for, in evaluation mode."""
    added, model = [], network.model
    for name in config.adapter:
        adapter = in_full(Registry.discover(), "adapters", name, options_within(config.adapter_options, name))
        model.backbone = adapt(model.backbone, adapter.name, adapter.options)
        prepare(model, images, config.seed, "calibrate")
        added.append(adapter)
    model.eval().requires_grad_(False)
    return replace(network, adapters=(*network.adapters, *added))
