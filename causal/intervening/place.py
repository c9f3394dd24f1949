"""Where in a network something is set or read: one site, and of its value some steps, channels and cells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engram.backbone.contract import Site
from engram.backbone.errors import UserError, must, nearest
from engram.backbone.nets.taps import stage_site

INPUT = "input"
"""The name of the images that a network is given."""
BOX = "(top, left, bottom, right) from 0, with top < bottom and left < right"
"""What a box is."""
_LISTED = 12


class Box(NamedTuple):
    """Cells of a map in rows ``top`` to ``bottom`` and columns ``left`` to ``right``, from 0, without the last ones."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, eq=False)
class Place:
    """Some of the values [S, B, C, ...] that a network has at one site. All numbers are from 0.

    Attributes:
        stage: the number of the stage whose output it is; None: ``name`` says where.
        name: another site's, as `engram.backbone.nets.tapped.sites` has it: ``features``, an activation's or a layer of
            neurons' module, ``NAME#2`` for its second call in a step; ``input`` for the images themselves, normalised.
        steps: which ones; None: all that there are.
        channels: which ones; None: all.
        region: which cells of a map, a `Box` or a mask [H, W] bool of the map's size; None: all.

    Raises:
        UserError: it names no site or two, or something below 0 or twice, or a region without cells.
    """

    stage: int | None = None
    name: str = ""
    steps: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    region: Box | Tensor | None = None

    def __post_init__(self) -> None:
        if (self.stage is None) == (not self.name):
            got = "neither" if self.stage is None else f"both ({self.stage} and {self.name})"
            raise must("a place in a network", "a stage or the name of another site", got, "Give one of them.")
        for what, numbers in (("steps", self.steps), ("channels", self.channels)):
            if numbers is not None and (not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers)):
                rule = "different whole numbers from 0, at least one"
                raise must(f"{what} of {self.site}", rule, list(numbers), f"Leave {what} out for all of them.")
        self._check_region()

    def _check_region(self) -> None:
        region, remedy = self.region, "Leave the region out for whole maps."
        if isinstance(region, Tensor):
            if region.dtype != torch.bool or region.ndim != 2:
                got = f"{region.dtype} of shape {list(region.shape)}"
                raise must(f"the mask of a region of {self.site}", "[H, W] bool", got, remedy)
            if not region.any():
                raise must(f"the mask of a region of {self.site}", "True in some cell", "False everywhere", remedy)
        elif region is not None and not (0 <= region[0] < region[2] and 0 <= region[1] < region[3]):
            raise must(f"the box of a region of {self.site}", BOX, tuple(region), remedy)

    @property
    def site(self) -> str:
        """The name of the site."""
        return self.name if self.stage is None else stage_site(self.stage).name

    def __str__(self) -> str:
        parts = [self.site]
        parts += [] if self.steps is None else [f"step {', '.join(map(str, self.steps))}"]
        parts += [] if self.channels is None else [f"channel {', '.join(map(str, self.channels))}"]
        if self.region is not None:
            parts.append("a mask" if isinstance(self.region, Tensor) else f"box {tuple(self.region)}")
        return ", ".join(parts)

    def steps_in(self, site: Site, value: Tensor) -> list[int]:
        """Which of its steps a value [S, B, C, ...] at its site holds, in their order."""
        held = range(site.step, site.step + len(value))
        return [step for step in held if self.steps is None or step in self.steps]

    def taken(self, site: Site, value: Tensor) -> Tensor:
        """The steps and channels of a value that are meant, as whole maps.

        Args:
            value: [S, B, C, ...], what is at its site from step ``site.step`` on.

        Returns: [S', B, C', ...], steps in ascending order and channels in the order in which they were named; the
        value itself where it is all of it.
        """
        local = self._local_steps(site, value)
        part = value if local is None else value.index_select(0, local)
        return part if self.channels is None else part.index_select(2, _numbers(self.channels, value))

    def put(self, site: Site, value: Tensor, new: Tensor) -> Tensor:
        """A value with something else at this place; nothing is written into it.

        Args:
            value: [S, B, C, ...], what is at its site from step ``site.step`` on.
            new: what `taken` gives, with other numbers; any of its dimensions may be 1.

        Returns: [S, B, C, ...].
        """
        local = self._local_steps(site, value)
        part = self.taken(site, value)
        new = new.to(part.device, part.dtype)
        new = new.expand_as(part) if self.region is None else torch.where(self.mask(value), new, part)
        if self.channels is not None:
            whole = value if local is None else value.index_select(0, local)
            new = whole.index_copy(2, _numbers(self.channels, value), new)
        if local is not None:
            return value.index_copy(0, local, new)
        return new.contiguous() if 0 in new.stride() else new  # later layers may write into it

    def mask(self, value: Tensor) -> Tensor:
        """Its region in the maps of a value [S, B, C, H, W], [H, W] bool."""
        if isinstance(self.region, Tensor):
            return self.region.to(value.device)
        mask = torch.zeros(value.shape[-2:], dtype=torch.bool, device=value.device)
        if self.region is not None:
            top, left, bottom, right = self.region
            mask[top:bottom, left:right] = True
        return mask

    def _local_steps(self, site: Site, value: Tensor) -> Tensor | None:
        """The rows of a value that hold its steps; None: all of them."""
        steps = self.steps_in(site, value)
        return None if len(steps) == len(value) else _numbers([step - site.step for step in steps], value)

    def fits(self, shape: Sequence[int]) -> None:
        """Refuse what a value [S, B, C, ...] of this shape does not have.

        Raises:
            UserError: a channel or a cell is not in it, or there are no cells.
        """
        if self.channels is not None and max(self.channels) >= shape[2]:
            rule = f"from 0 to {shape[2] - 1}, the channels of this site"
            raise must(f"channel of {self.site}", rule, max(self.channels), "Choose among these.")
        if self.region is None:
            return
        if len(shape) != 5:
            remedy = "Leave the region out, or choose a stage."
            raise must(f"{self.site} with a region", "maps [C, H, W]", list(shape[2:]), remedy)
        height, width = shape[3:]
        rule = f"{height} by {width} cells, as the maps of this site are"
        if isinstance(self.region, Tensor):
            if tuple(self.region.shape) != (height, width):
                got = f"{self.region.shape[0]} by {self.region.shape[1]}"
                raise must(f"the mask of a region of {self.site}", rule, got, "Resize it.")
        elif self.region[2] > height or self.region[3] > width:
            raise must(f"the box of a region of {self.site}", f"within {rule}", tuple(self.region), "Make it smaller.")

    def meets(self, other: Place) -> bool:
        """Whether some value is at both places."""
        pairs = ((self.steps, other.steps), (self.channels, other.channels))
        apart = any(a is not None and b is not None and not {*a} & {*b} for a, b in pairs)
        return self.site == other.site and not apart and _share_cells(self.region, other.region)


def _share_cells(a: Box | Tensor | None, b: Box | Tensor | None) -> bool:
    if a is None or b is None:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape != b.shape or bool((a.cpu() & b.cpu()).any())
    if isinstance(b, Tensor):
        return _share_cells(b, a)
    if isinstance(a, Tensor):
        return bool(a[b[0] : b[2], b[1] : b[3]].any())
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def _numbers(numbers: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device)


def check(places: Sequence[Place], known: Mapping[str, Sequence[int]]) -> None:
    """Refuse places that a network does not have.

    Args:
        known: the shape [S, B, C, ...] at every site, by its name.

    Raises:
        UserError: the first that it does not have, and what there is.
    """
    for place in places:
        if place.site not in known:
            raise unknown(place, known)
        place.fits(known[place.site])


def unknown(place: Place, known: Mapping[str, Sequence[int]]) -> UserError:
    """The refusal of a place whose site is not among those that are known."""
    stages = sum(name.startswith("stages.") for name in known)
    others = [name for name in known if not name.startswith("stages.")]
    more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    sites = f"sites by name: {', '.join(others[:_LISTED])}{more}"
    if place.stage is not None:
        rule = f"from 0 to {stages - 1}" if stages else "left out: this network tells of none"
        return must("stage", rule, place.stage, f"It has {stages} stages; {sites}.")
    rule = f"that of a site (stages go by their numbers, 0 to {stages - 1})" if stages else "that of a site"
    closest = nearest(place.name, others)
    remedy = closest if closest.startswith("Did") else sites[0].upper() + sites[1:] + "."
    return must("the name of a place", rule, place.name, remedy)


def unmet(
    places: Sequence[Place], seen: Mapping[str, Collection[int]], known: Mapping[str, Sequence[int]] | None
) -> UserError | None:
    """What is wrong where a place, or one of the steps it names, was not among what a network computed.

    Args:
        seen: the steps that were computed, by the names of sites.
        known: all sites, where that is known.
    """
    for place in places:
        steps = seen.get(place.site)
        if steps is None:
            return unknown(place, known or dict.fromkeys(seen, ()))
        if missing := sorted({*(place.steps or ())} - {*steps}):
            rule = f"among those that ran ({', '.join(map(str, sorted(steps)))})"
            return must(f"step of {place.site}", rule, missing[0], "Nothing was computed there: name other steps.")
    return None


def shapes_of(found: Mapping[Site, Sequence[int]], in_shape: Sequence[int]) -> dict[str, Sequence[int]]:
    """The shape [S, B, C, ...] at every site by its name, the images first; ``found``: as `sites` gives it."""
    shapes: dict[str, Any] = {INPUT: (1, 1, *in_shape)}
    for site, shape in found.items():
        shapes.setdefault(site.name, shape)
    return shapes
