"""Interventions as a tap on a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor, nn

from engram.backbone.contract import Site
from engram.backbone.errors import UserError, must
from engram.causal.intervening.collecting import Held, Interruptible, frames_first, gathered, network_of, network_steps
from engram.causal.intervening.kinds import At, Background, Kind, Source
from engram.causal.intervening.place import INPUT, Place, unmet


@dataclass(frozen=True)
class Intervention:
    """A place of a network, and what is put there."""

    place: Place
    kind: Kind

    def __str__(self) -> str:
        return f"{type(self.kind).__name__} at {self.place}"


class Changes(Interruptible):
    """Interventions as a tap: `engram.backbone.nets.tapped.attach` lets it stay, `tapped_steps` runs once under it.

    Each of them sees what the network itself has at its place, whatever the others put elsewhere: their order says
    nothing. Values of other images are collected when it is made, from the network as it is then.

    Args:
        model: a classifier or a backbone.
        interventions: at places of which no two meet.

    Raises:
        UserError: the network has no such place, or other images do not fit.
    """

    def __init__(self, model: nn.Module, interventions: Sequence[Intervention]) -> None:
        self.interventions, self.steps = tuple(interventions), network_steps(model)
        wanted = [(each.place, each.kind.source) for each in self.interventions]
        found = iter(gathered(model, [(place, source) for place, source in wanted if isinstance(source, Source)]))
        self.at: dict[str, list[tuple[Intervention, Held | None]]] = {}
        for each, (place, source) in zip(self.interventions, wanted, strict=True):
            self.at.setdefault(place.site, []).append((each, _held(place, source, found)))
        self.seen: dict[str, set[int]] = {}
        """The steps that were seen, by the names of sites."""

    def __call__(self, site: Site, value: Tensor) -> Tensor:
        """value: [S, B, C, ...] at any site -> the same, or what is put in its place."""
        if self.idle:
            return value
        seen = self.seen.setdefault(site.name, set())
        changed = value
        for each, held in self.at.get(site.name, ()):
            place = each.place
            if not seen:
                place.fits(value.shape)
            if steps := place.steps_in(site, value):
                others = None if held is None else held.at(steps, site.name).to(value.device, value.dtype)
                new = each.kind.value(place.taken(site, value), others, At(site.name, steps))
                changed = place.put(site, changed, new)
        seen.update(range(site.step, site.step + len(value)))
        return changed

    def images(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W], as the network takes them -> what it sees in their place.

        Where single steps of a still image are changed it becomes as many frames as the network takes steps.
        """
        here = self.at.get(INPUT, ())
        if self.idle or not here:
            return x
        if x.ndim == 4 and any(each.place.steps is not None for each, _ in here):
            x = x.unsqueeze(1).expand(-1, self.steps, -1, -1, -1)
        changed = self(Site(None, 0, INPUT), frames_first(x))
        return changed.transpose(0, 1) if x.ndim == 5 else changed.squeeze(0)

    def unmet(self, known: Mapping[str, Sequence[int]] | None) -> UserError | None:
        """What is wrong where an intervention, or one of the steps it names, changed nothing; ``known``: all sites."""
        if not self.seen:
            remedy = "Call the model, or its forward_steps, within it: features(x) and stages(x) run nothing of this."
            return must("a network under interventions", "run inside the with-block", "no run of it", remedy)
        return unmet([each.place for each in self.interventions], self.seen, known)


def check_apart(interventions: Sequence[Intervention]) -> None:
    """Refuse interventions at places that meet: which of them comes last, nothing would say.

    Raises:
        UserError: two places meet.
    """
    for a, b in combinations(interventions, 2):
        if a.place.meets(b.place):
            remedy = "Put one with-block into another: the inner one sees what the outer one has set."
            raise must("places of interventions that are done at once", "apart", f"{a}; and {b}", remedy)


def check_images(model: nn.Module, interventions: Sequence[Intervention]) -> None:
    """Refuse images, and masks of their foreground, that cannot be a network's.

    Raises:
        UserError: their shape is another one.
    """
    net = network_of(model)
    for each in interventions:
        source = each.kind.source
        if isinstance(source, Source) and tuple(source.images.shape[-3:]) != tuple(net.in_shape):
            rule = f"[N, C, H, W] of {'x'.join(map(str, net.in_shape))}, as the network takes them"
            raise must(f"images of {each}", rule, list(source.images.shape), "Resize them.")
        if isinstance(each.kind, Background) and (size := each.kind.foreground.shape[1:]) != tuple(net.in_shape[-2:]):
            rule = f"{'x'.join(map(str, net.in_shape[-2:]))}, as the images are"
            raise must(f"masks of {each}", rule, "x".join(map(str, size)), "Resize them.")


def _held(place: Place, source: Source | Tensor | None, found: Iterator[Held]) -> Held | None:
    """Values of other images: of the steps that its place names, in their order, or of all from the first."""
    if isinstance(source, Source):
        return next(found)
    if source is None:
        return None
    return Held(tuple(range(len(source))) if place.steps is None else tuple(sorted(place.steps)), source)
