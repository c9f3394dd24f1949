"""``engram.causal.do``: a network in which some values are set, for as long as a with-block lasts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.backbone.nets.tapped import attach, detach
from engram.causal.intervening.changes import Changes, Intervention, check_apart, check_images
from engram.causal.intervening.collecting import known_shapes, network_of
from engram.causal.intervening.kinds import (
    Background,
    ClassMean,
    Constant,
    Given,
    Interpolation,
    Kind,
    Mean,
    Noise,
    Resample,
)
from engram.causal.intervening.place import BOX, Box, Place, check


class Doing:
    """Interventions that are done while a with-block lasts; it may be entered again and again.

    ``a & b`` does both at once, in any order. Contexts inside one another compose: the inner one sees what the outer
    one has set. Values of other images are collected on entering, from the network without any intervention.

    Args:
        model: a classifier or a backbone; nothing of it is changed for good.
        interventions: what is done.

    Raises:
        UserError: the network has no such place, a mask or images do not fit, or two places meet. At the end of the
            block: an intervention, or a step that it names, never changed anything.
    """

    def __init__(self, model: nn.Module, interventions: Sequence[Intervention]) -> None:
        self.model, self.interventions = model, tuple(interventions)
        self.net = network_of(model)
        self.shapes = known_shapes(self.net)
        check_apart(self.interventions)
        if self.shapes is not None:
            check([each.place for each in self.interventions], self.shapes)
            check_images(model, self.interventions)
        self._entered: list[Changes] = []

    def __and__(self, other: Doing) -> Doing:
        if other.model is not self.model:
            raise must("interventions that are done at once", "of one network", "two", "Nest the with-blocks.")
        return Doing(self.model, (*self.interventions, *other.interventions))

    def __enter__(self) -> None:
        changes = Changes(self.model, self.interventions)
        attach(self.net, changes)
        self._entered.append(changes)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        changes = self._entered.pop()
        detach(self.net, changes)
        if error is None and (wrong := changes.unmet(self.shapes)) is not None:
            raise wrong

    def __repr__(self) -> str:
        return f"do({type(self.net).__name__}: {'; '.join(map(str, self.interventions))})"


class Aimed:
    """A place of a model, of which each method says what is put there."""

    def __init__(self, model: nn.Module, place: Place) -> None:
        self.model, self.place = model, place

    def by(self, kind: Kind) -> Doing:
        """Whatever a kind of intervention puts there; the methods below are those that there are."""
        return Doing(self.model, (Intervention(self.place, kind),))

    def zero(self) -> Doing:
        """Zero. Of most networks that is no value they have learned from: prefer `mean` or `resample`."""
        return self.by(Constant())

    def set(self, number: float | Tensor) -> Doing:
        """A number, or one for each of the place's channels, [C']."""
        return self.by(Constant(number))

    def put(self, values: Tensor) -> Doing:
        """Values [S', B, C', ...], as `engram.causal.collected` gives them; dimensions may be 1."""
        return self.by(Given(values))

    def mean(self, images: Tensor | None = None) -> Doing:
        """The mean over images, cell by cell and step by step; None: over those of each batch."""
        return self.by(Mean(images))

    def class_mean(self, images: Tensor, labels: Tensor, classes: int | Tensor) -> Doing:
        """The mean over the images of a class, or of another class for each image of a batch, ``classes`` [B]."""
        return self.by(ClassMean(images, labels, classes))

    def resample(self, images: Tensor | None = None, seed: int = 0) -> Doing:
        """What the network has there for other images, one for each of a batch; None: for one another, by lot."""
        return self.by(Resample(images, seed))

    def interpolate(self, share: float, images: Tensor | None = None, seed: int = 0) -> Doing:
        """``(1 - share)`` of its own value, and ``share`` of what `resample` would put."""
        return self.by(Interpolation(share, images, seed))

    def noise(self, deviation: float, mean: float | None = None, seed: int = 0) -> Doing:
        """Gaussian noise, added to the value, or around ``mean`` in its place."""
        return self.by(Noise(deviation, mean, seed))

    def background(self, foreground: Tensor, images: Tensor | None = None, seed: int = 0) -> Doing:
        """The background of what `resample` would put, behind each image's own ``foreground`` [B, H, W] bool."""
        return self.by(Background(foreground, images, seed))


def do(
    model: nn.Module,
    *,
    stage: int | None = None,
    name: str = "",
    step: int | Iterable[int] | Tensor | None = None,
    channel: int | Iterable[int] | Tensor | None = None,
    region: Any = None,
) -> Aimed:
    """A place of a network, of which the next word says what is put there while a with-block lasts.

    Args:
        model: a classifier, as `engram.load(TRIAL).module` is, or a backbone, of any kind.
        stage: the number of the stage whose output it is. All numbers are from 0.
        name: of another site: ``features``, ``input``, an activation's or a layer of neurons' module.
        step: one or more, as whole numbers of any type or an array [N] of them; None: all.
        channel: one or more, as steps are; None: all.
        region: cells of a map: ``(top, left, bottom, right)``, or a mask [H, W] bool, tensor or array; None: all.

    Raises:
        UserError: it names no place, or one that the network does not have; what there is.

    >>> import torch
    >>> from engram.backbone.nets.making import build
    >>> model = build("vgg-tiny", {}, (1, 8, 8), 10, torch.zeros(1), torch.ones(1)).eval()
    >>> images = torch.rand(5, 1, 8, 8)
    >>> with do(model, stage=2, channel=5).mean() & do(model, stage=0, region=(0, 0, 2, 2)).zero():
    ...     logits = model(images)
    """
    try:
        number = None if stage is None else index(stage)
    except TypeError:
        raise must("stage", "a whole number from 0", stage, "Use do(...) & do(...) for several.") from None
    return Aimed(model, Place(number, name, _numbers("step", step), _numbers("channel", channel), _cells(region)))


def _numbers(what: str, given: Any) -> tuple[int, ...] | None:
    """One whole number or several as Python's own: tensors of the same number differ. None: all."""
    if given is None:
        return None
    plain = given.tolist() if hasattr(given, "tolist") else given
    try:
        numbers = list(plain) if isinstance(plain, Iterable) else [plain]
        if any(isinstance(number, bool) for number in numbers):
            raise TypeError
        return tuple(map(index, numbers))
    except TypeError:
        remedy = "Numbers are from 0; leave it out for all."
        raise must(f"{what} of a place", "a whole number, or several", given, remedy) from None


def _cells(given: Any) -> Box | Tensor | None:
    """A box, or a mask as a tensor. None: all cells."""
    if given is None or isinstance(given, Tensor):
        return given
    try:
        if hasattr(given, "dtype"):
            return torch.tensor(given.tolist())  # whatever its strides are, and whether it may be written into
        top, left, bottom, right = map(index, given)
    except (TypeError, ValueError):
        remedy = "Leave it out for whole maps."
        raise must("region of a place", f"{BOX}, or a mask [H, W] bool", given, remedy) from None
    return Box(top, left, bottom, right)
