"""What a network has at some places for other images, as it is: collected in one run, whatever the size of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from engram.backbone.contract import Shaped, Site
from engram.backbone.errors import must
from engram.backbone.measures.scoring import SCORING_BATCH
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.backbone.nets.tapped import attached, sites, tapped_steps
from engram.causal.intervening.kinds import Source
from engram.causal.intervening.place import INPUT, Place, check, shapes_of, unmet


class Interruptible:
    """A tap of ours that stays on a network, and does nothing while its natural values are looked at."""

    idle = False


@dataclass(frozen=True)
class Held:
    """Values of some steps: ``values`` [S, N, C', ...], a row for each of ``steps``."""

    steps: tuple[int, ...]
    values: Tensor

    def at(self, steps: Sequence[int], site: str) -> Tensor:
        """Those of some of its steps, in memory of their own.

        Raises:
            UserError: a step has none.
        """
        if missing := [step for step in steps if step not in self.steps]:
            rule = f"among those there are values of ({', '.join(map(str, self.steps))})"
            remedy = "Give images of as many frames, or name steps."
            raise must(f"steps of {site} whose values are taken", rule, missing[0], remedy)
        rows = [self.steps.index(step) for step in steps]
        return self.values.index_select(0, torch.tensor(rows, device=self.values.device))


def network_of(model: Any) -> Any:
    """The backbone of a classifier, or the network itself.

    Raises:
        UserError: it is no network.
    """
    if not isinstance(model, nn.Module):
        got = type(model).__name__
        raise must("the network to intervene in", "a torch.nn.Module", got, "Take engram.load(TRIAL).module.")
    return model.backbone if isinstance(model, Classifier) else model


def as_taken(model: Any, images: Tensor) -> Tensor:
    """Images as they are given to a model -> as its backbone takes them, on its device."""
    like = next(model.parameters(), None)
    images = images if like is None else images.to(like.device)
    return model.normalise(arranged(images, model.backbone)) if isinstance(model, Classifier) else images


@contextmanager
def natural(net: nn.Module) -> Iterator[None]:
    """The network without interventions that are going on, in evaluation mode; other taps that stay on it do stay."""
    ours = [tap for tap in attached(net) if isinstance(tap, Interruptible) and not tap.idle]
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    for tap in ours:
        tap.idle = True
    try:
        yield
    finally:
        for tap in ours:
            tap.idle = False
        for module, training in modes:
            module.training = training


def known_shapes(net: Any) -> Mapping[str, Sequence[int]] | None:
    """The shape [S, 1, C, ...] at every site of a network by its name; None where it does not say what it takes."""
    if not isinstance(net, Shaped):
        return None
    with natural(cast("nn.Module", net)):
        return shapes_of(sites(net), net.in_shape)


See = Callable[[Sequence[int], slice, Tensor], None]
"""Is given the numbers of the steps, the rows of the images, and [S', B, C', ...] of them."""


@torch.no_grad()
def run_over(model: nn.Module, images: Tensor, watched: Sequence[tuple[Place, See]], batch: int) -> None:
    """Run a network as it is over images, ``batch`` at a time, and show what it has at some places.

    Raises:
        UserError: there are no images, or it has no such place.
    """
    net = network_of(model)
    if not len(images):
        raise must("images whose values are taken", "at least one", 0, "Give some.")
    places = [place for place, _ in watched]
    by_step = any(place.site == INPUT and place.steps is not None for place in places)
    seen = {place.site: set[int]() for place in places}
    with natural(net):
        for start in range(0, len(images), batch):
            x = as_taken(model, images[start : start + batch])
            rows = slice(start, start + len(x))

            def tap(site: Site, value: Tensor, rows: slice = rows) -> Tensor:
                for place, see in watched if site.name in seen else ():
                    if place.site == site.name:
                        place.fits(value.shape)
                        if steps := place.steps_in(site, value):
                            see(steps, rows, place.taken(site, value))
                            seen[site.name].update(steps)
                return value

            shown = frames_first(x)
            still = by_step and x.ndim == 4
            tap(Site(None, 0, INPUT), shown.expand(network_steps(model), *x.shape) if still else shown)
            tapped_steps(net, x, tap)
    if (wrong := unmet(places, {name: steps for name, steps in seen.items() if steps}, None)) is not None:
        raise wrong


def frames_first(x: Tensor) -> Tensor:
    """Images [B, C, H, W] -> [1, B, C, H, W], what is at all steps; recordings [B, T, C, H, W] -> [T, B, C, H, W]."""
    return x.transpose(0, 1) if x.ndim == 5 else x.unsqueeze(0)


@dataclass
class _Values:
    """The values of a place for every image."""

    parts: dict[int, list[Tensor]] = field(default_factory=dict)

    def __call__(self, steps: Sequence[int], rows: slice, values: Tensor) -> None:
        for step, value in zip(steps, values, strict=True):
            self.parts.setdefault(step, []).append(value.clone())

    def held(self) -> Held:
        steps = tuple(sorted(self.parts))
        return Held(steps, torch.stack([torch.cat(self.parts[step]) for step in steps]))


@dataclass
class _Means:
    """The mean of a place over the images of every class; sums have double precision."""

    labels: Tensor
    sums: dict[int, Tensor] = field(default_factory=dict)
    kind: torch.dtype = torch.float32

    def __call__(self, steps: Sequence[int], rows: slice, values: Tensor) -> None:
        self.kind, labels = values.dtype, self.labels[rows].to(values.device)
        for step, value in zip(steps, values, strict=True):
            if step not in self.sums:
                classes = int(self.labels.max()) + 1
                self.sums[step] = value.new_zeros((classes, *value.shape[1:]), dtype=torch.float64)
            self.sums[step].index_add_(0, labels, value.double())

    def held(self) -> Held:
        steps = tuple(sorted(self.sums))
        sums = torch.stack([self.sums[step] for step in steps])
        count = torch.bincount(self.labels).clamp(min=1).to(sums.device)
        return Held(steps, (sums / count.view(1, -1, *[1] * (sums.ndim - 2))).to(self.kind))


def gathered(model: nn.Module, wanted: Sequence[tuple[Place, Source]], batch: int | None = None) -> list[Held]:
    """What sources ask for; sources of the same images share one run.

    Args:
        model: a classifier or a backbone.
        wanted: where, and what.
        batch: how many images at once.

    Raises:
        UserError: it has no such place, or there are no images.
    """
    keepers: list[_Values | _Means] = []
    runs: dict[int, list[int]] = {}
    for number, (_, source) in enumerate(wanted):
        one_class = torch.zeros(len(source.images), dtype=torch.int64) if source.mean else None
        labels = one_class if source.labels is None else source.labels.cpu()
        keepers.append(_Values() if labels is None else _Means(labels))
        runs.setdefault(id(source.images), []).append(number)
    for numbers in runs.values():
        images = wanted[numbers[0]][1].images
        size = batch or max(1, SCORING_BATCH // (images.shape[1] if images.ndim == 5 else network_steps(model)))
        run_over(model, images, [(wanted[number][0], keepers[number]) for number in numbers], size)
    return [keeper.held() for keeper in keepers]


def network_steps(model: nn.Module) -> int:
    """How many steps a still image takes."""
    return int(getattr(network_of(model), "steps", 1))


def collected(model: nn.Module, images: Tensor, places: Sequence[Place], *, batch: int | None = None) -> list[Tensor]:
    """What a network has at some places for some images, in one run that changes nothing.

    Args:
        model: a classifier, or a backbone, of any kind.
        images: [N, C, H, W] or [N, T, C, H, W], as the model takes them.
        places: where.
        batch: how many images are run at once; what is found does not depend on it, but for rounding.

    Returns: for every place [S', N, C', ...]: its steps in ascending order, its channels as they were named, and whole
        maps. ``kinds.Given`` puts them back.

    Raises:
        UserError: it has no such place, or there are no images.
    """
    shapes = known_shapes(network_of(model))
    if shapes is not None:
        check(places, shapes)
    return [held.values for held in gathered(model, [(place, Source(images)) for place in places], batch)]
