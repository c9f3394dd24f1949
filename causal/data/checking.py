"""Looks at what data sets are made of before a trial starts, and names their files; no torch here."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from engram.backbone.contract import DataFiles
from engram.backbone.data.made_of import files_of_another
from engram.backbone.errors import UserError, must
from engram.backbone.registry import Registry

PROTOCOLS = ("irm", "domainbed")
"""Of coloured digits, see `engram.causal.data.coloured`."""


def require_protocol(source: str, path: str | None) -> None:
    """Refuse what is no protocol of coloured digits.

    Raises:
        UserError: naming those there are.
    """
    if path not in PROTOCOLS:
        name = f"coloured-{source}"
        raise must(f"{name}:PROTOCOL", " or ".join(PROTOCOLS), repr(path), f"Write {name}:irm.")


def _check_coloured(
    source: str, path: str | None, options: object, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Whether there is such a protocol, and the digits that it colours."""
    try:
        require_protocol(source, path)
    except UserError as error:
        return [str(error)]
    return Registry.discover().problems(source, {}, root=root, download=download, training=training)


check_coloured_mnist = partial(_check_coloured, "mnist")
check_coloured_digits = partial(_check_coloured, "digits")


def coloured_mnist_files(path: str | None, *, root: Path) -> DataFiles | None:
    """Those of MNIST."""
    base = Registry.discover().files("mnist", root=root)
    name = f"coloured-mnist:{path}"
    return None if base is None else DataFiles(name=name, where=name, files=base.files)


biased_files = partial(files_of_another, "biased")
backgrounds_files = partial(files_of_another, "backgrounds")
