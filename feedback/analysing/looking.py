"""What goes on inside a network over steps: what its stages give and what its connections carry, seen through a tap."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engram.backbone.contract import Site, Spiking
from engram.backbone.errors import must
from engram.backbone.measures.anytime import logits_at
from engram.backbone.measures.points import curve_steps
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.backbone.nets.tapped import sites, tapped_steps
from engram.feedback.connections import FEATURES, name_of
from engram.feedback.network.network import FeedbackNetwork

ALL = "all"
"""In place of every connection's name."""
_EVERY_STEP = 8
"""Up to so many steps each of them is looked at; of more, those after which accuracy is measured."""


@dataclass(frozen=True)
class Looked:
    """What a network did with some pictures.

    Attributes:
        logits: [S, B, classes], what it would answer if it stopped after each step.
        stages: the output of every stage at every step, [S, B, C, H, W] each, by the names that connections have for
            them (``layer1``), and last the features. Of a network with spiking neurons they are means over the steps so
            far: one step's spikes are no answer yet.
        paths: what every connection carries, [B, C, h, w], by its text (``layer3>layer1``) and the step in which it
            acts, from 1.
    """

    logits: Tensor
    stages: Mapping[str, Tensor]
    paths: Mapping[str, Mapping[int, Tensor]]


@dataclass(frozen=True)
class Changed:
    """Connections that carry what changes nothing, or, where ``exchanged``, what they carry for another picture.

    ``steps`` are from 1; None: all steps. The other picture is the one before, of the first the last.
    """

    connections: Collection[str]
    steps: Collection[int] | None = None
    exchanged: bool = False

    def __contains__(self, place: tuple[str, int]) -> bool:
        connection, step = place
        return connection in self.connections and (self.steps is None or step in self.steps)


NOTHING = Changed(())


class Inside:
    """A classifier whose inside is looked at; nothing of it changes.

    Args:
        model: in evaluation mode, on its device.

    Attributes:
        stages: the names of its stages, as connections have them, and ``features``.
        connections: for each connection the steps in which it acts, from 1, as far as they are looked at. There is none
            where the network has no feedback of ours.
        steps: how many it takes.
        points: the steps that are looked at, from 1.
        values: how many numbers all stages give for one picture in all steps.

    Raises:
        UserError: the network has steps of its own, and no tap.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model
        found = sites(model.backbone)
        self.steps = sum(shape[0] for site, shape in found.items() if site.name == FEATURES)
        few = self.steps <= _EVERY_STEP
        self.points = tuple(range(1, self.steps + 1) if few else curve_steps(self.steps))
        stages = {site: shape for site, shape in found.items() if site.stage is not None}
        self.stages = (*dict.fromkeys(name_of(site.stage or 0) for site in stages), FEATURES)
        self.values = sum(shape.numel() for shape in stages.values())
        self.connections: dict[str, tuple[int, ...]] = {}
        for site in found:
            if (name := self._connection(site)) is not None:
                step = (site.step + 1,) if site.step + 1 in self.points else ()
                self.connections[name] = self.connections.get(name, ()) + step

    @property
    def network(self) -> FeedbackNetwork | None:
        """Its part with the connections."""
        return next((module for module in self.model.backbone.modules() if isinstance(module, FeedbackNetwork)), None)

    @property
    def means(self) -> bool:
        """Whether one step is no answer by itself: some of its neurons spike."""
        return any(isinstance(module, Spiking) for module in self.model.backbone.modules())

    def _connection(self, site: Site) -> str | None:
        """The connection whose value is seen at a site; its name may stand behind those of modules around it."""
        net, text = self.network, site.name.rpartition(".")[2]
        return text if net is not None and text in map(str, net.connections) else None

    def changed(self, how: Changed, site: Site, value: Tensor) -> Tensor:
        """What a tap puts in the place of a value, [1, B, ...], while connections are changed."""
        net, name = self.network, self._connection(site)
        if net is None or name is None or (name, site.step + 1) not in how:
            return value
        return value.roll(1, 1) if how.exchanged else torch.full_like(value, net.neutral)

    def normalised(self, images: Tensor) -> Tensor:
        """images: [B, C, H, W] as stored, on any device -> as the network takes them."""
        device = self.model.normalise.mean.device
        return self.model.normalise(arranged(images.to(device), self.model.backbone))

    @torch.no_grad()
    def answers(self, x: Tensor, how: Changed = NOTHING) -> Tensor:
        """x: [B, C, H, W] normalised -> the logits at the end, [B, classes], with connections changed."""
        features = tapped_steps(self.model.backbone, x, lambda site, value: self.changed(how, site, value))
        return logits_at(self.model, features, [len(features)])[0]

    @torch.no_grad()
    def look(self, x: Tensor, how: Changed = NOTHING) -> Looked:
        """x: [B, C, H, W] normalised -> what the network does with it, with connections changed."""
        stages, paths = dict[str, list[Tensor]](), {name: dict[int, Tensor]() for name in self.connections}

        def see(site: Site, value: Tensor) -> Tensor:
            value = self.changed(how, site, value)
            if site.stage is not None:
                stages.setdefault(name_of(site.stage), []).append(value.clone())
            elif (name := self._connection(site)) is not None:
                paths[name][site.step + 1] = value[0].clone()
            return value

        features = tapped_steps(self.model.backbone, x, see)
        whole = {name: torch.cat(parts) for name, parts in stages.items()} | {FEATURES: features}
        if self.means:
            whole = {name: _so_far(value) for name, value in whole.items()}
        return Looked(logits_at(self.model, features, range(1, len(features) + 1)), whole, paths)


def _so_far(value: Tensor) -> Tensor:
    """value: [S, ...] -> the mean of the first 1, 2, ..., S."""
    count = torch.arange(1, len(value) + 1, device=value.device, dtype=value.dtype)
    return value.cumsum(0) / count.view(-1, *[1] * (value.ndim - 1))


def look(model: nn.Module, images: Tensor, *, off: str = "") -> Looked:
    """What goes on inside a classifier, step by step; it stays as it is.

    Args:
        model: as `engram.load(TRIAL).module` gives it, or `engram.backbone.nets.making.build`.
        images: [B, C, H, W] uint8, or float in [0, 1].
        off: connections that carry what changes nothing, as ``layer3>layer1,layer3>layer2``, or ``all``.

    Raises:
        UserError: it is no classifier with preprocessing, backbone and head, or has no such connection.

    >>> from engram.backbone.nets.making import build
    >>> from engram.backbone.options import in_full
    >>> from engram.backbone.registry import Registry
    >>> gated = in_full(Registry.discover(), "adapters", "feedback.gated", {"steps": 3, "connections": "layer3>layer1"})
    >>> mean, std = torch.zeros(1), torch.ones(1)
    >>> model = build("vgg-tiny", {}, (1, 8, 8), 10, mean, std, adapters=[gated]).eval()
    >>> looked = look(model, torch.rand(5, 1, 8, 8))
    >>> looked.logits.shape, looked.stages["layer1"].shape, list(looked.paths["layer3>layer1"])
    (torch.Size([3, 5, 10]), torch.Size([3, 5, 16, 4, 4]), [2, 3])
    """
    if not isinstance(model, Classifier):
        got = type(model).__name__
        raise must("the network to look into", "a classifier of engram", got, "Take engram.load(TRIAL).module.")
    training = model.training
    try:
        inside = Inside(model.eval())
        names = tuple(inside.connections) if off == ALL else tuple(part.strip() for part in off.split(",") if part)
        if unknown := [name for name in names if name not in inside.connections]:
            known = ", ".join(inside.connections) or "none"
            raise must(
                "connections to switch off", f"those of the network ({known})", unknown[0], "Name these, or all."
            )
        return inside.look(inside.normalised(images), Changed(names))
    finally:
        model.train(training)
