"""What is wrong with the pictures of a set, all of it at once; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field

from engram.backbone.data import png
from engram.backbone.data.decoding import (
    bombs_are_errors,
    channels_of,
    load,
    looks_whole,
    opened,
    oversize,
    upright_size,
)
from engram.backbone.data.encoded import Pictures
from engram.backbone.data.options import PictureOptions
from engram.backbone.errors import UserError, must

_MOST = 10  # damaged pictures that are named


@dataclass
class _Seen:
    """Pictures that have something in common: how many, and the first of them."""

    first: str
    count: int = 0


@dataclass
class _Census:
    sizes: dict[tuple[int, int], _Seen] = field(default_factory=dict)
    channels: dict[int, _Seen] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def survey(pictures: Pictures, options: PictureOptions, *, whole: bool) -> list[str]:
    """Problems of a set of pictures, each "<what> must be <rule>; got <value>. <next step>".

    Args:
        pictures: all of them.
        options: size and channels, as far as they are given; then pictures may differ in them.
        whole: decode every picture. Otherwise only those whose file does not show that nothing is missing.
    """
    found = _Census()
    with bombs_are_errors():
        for index in range(len(pictures)):
            try:
                _look(found, pictures.read([index])[0], pictures.name(index), whole)
            except UserError as error:
                found.faults.append(str(error))
    problems = found.faults[:_MOST]
    if len(found.faults) > _MOST:
        rest = f"{len(found.faults) - _MOST} more of {len(pictures)} damaged"
        problems.append(
            str(must("every picture", "a readable file", rest, "Restore them or take them out of the set."))
        )
    return problems + _differences(found, options)


def _look(found: _Census, blob: bytes | None, name: str, whole: bool) -> None:
    shape = None if whole or blob is None else png.plain_shape(blob)
    if shape is None:
        shape = _opened_shape(blob, name, whole)
    channels, height, width = shape
    found.sizes.setdefault((width, height), _Seen(name)).count += 1
    found.channels.setdefault(channels, _Seen(name)).count += 1


def _opened_shape(blob: bytes | None, name: str, whole: bool) -> tuple[int, int, int]:
    with opened(blob, name) as picture:
        channels = channels_of(picture, name)
        width, height = upright_size(picture, blob, name)
        if blob is not None and (whole or not looks_whole(blob)):
            load(picture, name)
        return channels, height, width


def _differences(found: _Census, options: PictureOptions) -> list[str]:
    problems = []
    if options.size is None:
        problems += [too_large for size, seen in found.sizes.items() if (too_large := oversize(*size, seen.first))][:1]
    if options.size is None and len(found.sizes) > 1:
        ((width, height), first), *others = found.sizes.items()
        got = _told([(f"{w} x {h}", seen) for (w, h), seen in others], "sizes")
        rule = f"{width} x {height} pixels like the first one ({first.first})"
        problems.append(must("every picture of the set", rule, got, f"Resize all: --dataset.size {width}."))
    if options.channels is None and len(found.channels) > 1:
        (channels, first), *others = found.channels.items()
        got = _told([(f"a picture of {count} channels", seen) for count, seen in others], "kinds")
        rule = f"{'grey' if channels == 1 else 'in colour'} like the first one ({first.first})"
        step = f"Make all grey or all colour: --dataset.channels {channels}."
        problems.append(must("every picture of the set", rule, got, step))
    return [str(problem) for problem in problems]


def _told(others: list[tuple[str, _Seen]], kind: str) -> str:
    words = [f"{what} in {seen.first}" + (f" and {seen.count - 1} more" * (seen.count > 1)) for what, seen in others]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} other {kind}" if len(words) > 3 else "")
