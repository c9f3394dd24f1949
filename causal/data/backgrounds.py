"""The data set ``backgrounds:NAME``: the objects of test images before other images' backgrounds.

How much a network relies on backgrounds is the difference of its accuracies with ``same`` and with ``random``, the
BG-gap: in both the background is another image's, cut out and put in alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from engram.backbone.data.changed import ChangedSplit, places_of
from engram.backbone.data.columns import FOREGROUND, GROUP, Column, Columns
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.options import of_inner
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.load import TEST_SHARE, open_source, with_part
from engram.backbone.data.sets import Source, Split
from engram.backbone.data.subgroups import subgroups
from engram.backbone.errors import must
from engram.backbone.registry import Registry
from engram.backbone.seeding import derive
from engram.causal.data.options import BackgroundsOptions

BACKGROUND = "background"
"""Column: of what class the image is whose background an image has."""
_DONOR = "donor"
_OWN, _BLACK = -1, -2
_BATCH = 256


def open_backgrounds(
    path: str | None, options: BackgroundsOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Another data set whose test images' objects stand before other backgrounds; all else stays as it is.

    A background is that of another test image, drawn by lot for each image: of any class or of its own. Where that
    image has its own object, the mean colour of its background takes its place. A set without a test part gives the
    fifth that is tested on without this, too.

    Columns: ``background``, whose class it is of, and ``group``, class and background; what the other set knows beside
    this it tells as well.

    Args:
        path: the other data set as it is named everywhere: ``biased:mnist``, ``shapes-scm``.
        options: which backgrounds, and those of the other data set beside them.
        root: as for the other data set, and so ``download``.
        download: whether the other data set may be fetched.
        budget_bytes: the other data set minds it.

    Raises:
        UserError: the other data set cannot be opened, or has no column ``foreground``.

    Source: Xiao, Engstrom, Ilyas and Madry 2020 (arXiv 2006.09994).
    """
    o, name = options or BackgroundsOptions(), path or ""
    base = open_source(name, of_inner(name, o), root=root, download=download)
    if FOREGROUND not in base.train.columns or base.train.frames is not None:
        step = "Take a set that says where its objects are: biased:mnist, shapes-scm."
        raise must(f"dataset {name!r}", f"one of stills with a column {FOREGROUND}", "one without", step)
    base = with_part(base, "test", TEST_SHARE)
    test = base.parts["test"]
    behind = Behind(test)
    parts: dict[str, Split] = {}
    for part, split in base.parts.items():
        donors = _donors(split, o) if part == "test" else torch.full((len(split),), _OWN)
        parts[part] = _moved(split, behind, donors, test.labels, base.classes)
    digest, version = Fingerprint(), Registry.discover().entry("datasets", f"backgrounds:{name}").version
    digest.words((base.fingerprint, "backgrounds", str(version), o.backgrounds, str(o.background_seed)))
    pictures = base.pictures or base.fingerprint
    return replace(base, parts=parts, fingerprint=digest.hexdigest(), pictures=pictures)


@dataclass(frozen=True)
class Behind:
    """Puts objects before the backgrounds of ``donors``."""

    donors: Split

    def __call__(self, images: Tensor, known: Columns) -> Tensor:
        """images: [N, C, H, W] uint8; known: their ``foreground`` and ``donor``, a place in ``donors``."""
        mask, chosen = known[FOREGROUND], known[_DONOR]
        assert isinstance(mask, Tensor) and isinstance(chosen, Tensor)
        found = images.clone()
        found.masked_fill_((chosen == _BLACK)[:, None, None, None] & ~mask[:, None], 0)
        rows = (chosen >= 0).nonzero()[:, 0]
        for part in rows.split(_BATCH) if len(rows) else ():
            [(theirs, _, places)] = self.donors.batches(chosen[part], len(part), "cpu")
            objects = self.donors.columns[FOREGROUND]
            assert isinstance(objects, Tensor)
            filled = without_object(theirs, objects[places])
            found[part] = torch.where(mask[part][:, None], images[part], filled)
        return found


def without_object(images: Tensor, masks: Tensor) -> Tensor:
    """Images with the mean colour of what is behind the object in its place; black where nothing is behind it.

    Args:
        images: [N, C, H, W] uint8.
        masks: [N, H, W] bool, where the object is.
    """
    behind = ~masks[:, None]
    count = behind.sum((2, 3)).clamp(min=1)
    mean = (2 * (images.int() * behind).sum((2, 3)) + count) // (2 * count)
    return torch.where(behind, images, mean.byte()[:, :, None, None])


def _donors(split: Split, options: BackgroundsOptions) -> Tensor:
    """Whose background each image has, as a place in the split, ``[N] int64``; never its own but where it is alone."""
    count = len(split)
    if options.backgrounds == "none":
        return torch.full((count,), _BLACK)
    chance = Draws.of(derive(options.background_seed, "backgrounds"), places_of(split)).uniform(1)[:, 0]
    labels = split.labels if options.backgrounds == "same" else torch.zeros(count, dtype=torch.int64)
    order = labels.argsort(stable=True)
    sizes = torch.bincount(labels)
    first = (sizes.cumsum(0) - sizes)[labels]
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(count)) - first
    others = (sizes[labels] - 1).clamp(min=1)
    return order[first + (rank + 1 + (chance * others).long()) % sizes[labels]]


def _moved(split: Split, behind: Behind, donors: Tensor, labels: Tensor, classes: tuple[str, ...]) -> ChangedSplit:
    """A part before other backgrounds; ``labels`` are those of the images that they are of."""
    whose = torch.where(donors < 0, split.labels, labels[donors.clamp(min=0)])
    names = [f"background of {each}" for each in classes]
    told = tuple(
        "no background" if donor == _BLACK else names[label]
        for donor, label in zip(donors.tolist(), whose.tolist(), strict=True)
    )
    columns: dict[str, Column] = {**split.columns, BACKGROUND: told, GROUP: subgroups(classes, split.labels, told)}
    known: dict[str, Column] = {FOREGROUND: split.columns[FOREGROUND], _DONOR: donors}
    return ChangedSplit(split, behind, known, columns)
