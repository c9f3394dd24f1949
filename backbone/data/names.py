"""Which split of a set the name of a folder or a table says it is; no torch here."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from engram.backbone.data.options import Which
from engram.backbone.errors import UserError, must

TRAIN, TEST, VALIDATION = "train", "test", "validation"
USUAL = "train, test, validation, or usual variants of these"
_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
}
_NAME = re.compile(
    rf"(?:meta[-_. ]?)?({'|'.join(_WORDS)})"
    r"([-_. ]?(set|split|data|images|part|shard|batch))?"
    r"([-_. ]?\d+([-_]of[-_]\d+(-[0-9a-f]+)?)?)?",  # of a shard of the hub: its number, how many, a hash
    re.IGNORECASE,
)
Reading = Which | Literal["any"]
"""Which parts are read; any: all there are, whatever their classes."""
_STEMS = {"train": TRAIN, "test": TEST, "valid": VALIDATION}


def split_of(name: str) -> str | None:
    """The split of this name, in any case, numbered or not; None for any other name.

    >>> [split_of(name) for name in ("Train", "test_0", "meta-val", "train-00000-of-00003-b42a27", "train_station")]
    ['train', 'test', 'validation', 'train', None]
    """
    found = _NAME.fullmatch(name)
    return _WORDS[found[1].lower()] if found else None


def hints(name: str) -> set[str]:
    """The splits that are mentioned by words in a name, also where the name as a whole is not that of a split.

    >>> sorted(hints("mnist_train")), sorted(hints("trainval")), sorted(hints("latest"))
    (['train'], ['train'], [])
    """
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    known = {_WORDS[word] for word in words if word in _WORDS}
    return known | {split for stem, split in _STEMS.items() for word in words if word.startswith(stem)}


def wanted(where: Path, kind: str, found: Mapping[str, Sequence[Path]], which: Reading) -> dict[str, list[Path]]:
    """The parts to read, ``train`` first.

    Args:
        where: what holds the splits.
        kind: ``folder`` or ``parquet``.
        found: the folders or files of each split.
        which: usually ``train`` and ``test``, where ``validation`` is the test set if there is none; or all there are.

    Raises:
        UserError: there is no ``train``.
    """
    if TRAIN not in found:
        held = [path for paths in found.values() for path in paths]
        got, step = f"only {_listed(held)}", f"Give the split itself: {kind}:{shown(held[0])}"
        raise must(shown(where), "a folder with a train split in it", got, step)
    if which != "usual":
        return {split: list(found[split]) for split in (TRAIN, VALIDATION, TEST) if split in found}
    tests = [split for split in (TEST, VALIDATION) if split in found]
    if len(tests) > 1:
        warn_once(f"{shown(where)}: {_listed(found[VALIDATION])} is left out, as there is {_listed(found[TEST])}")
    return {TRAIN: list(found[TRAIN]), **({TEST: list(found[tests[0]])} if tests else {})}


def without_validation(where: Path) -> UserError:
    """The error for a set that is to be chosen on by its own validation part, and has none."""
    got = f"none in {shown(where)}"
    return must("--dataset.parts own", "for a set with a validation part", got, "Leave it out, or add one.")


@cache
def warn_once(text: str) -> None:
    """Log a warning; the same text is logged once in a process."""
    logging.getLogger(__name__).warning("%s", text)


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(shown(path.name) for path in paths)


def is_text(name: str) -> bool:
    r"""Whether a name can be written in UTF-8; names of files may hold any byte.

    >>> is_text("caf\xe9"), is_text("caf\udce9")
    (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: object) -> str:
    r"""A name that can be printed: what is not UTF-8 as an escape.

    >>> shown("caf\udce9")
    'caf\\xe9'
    """
    return str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")
