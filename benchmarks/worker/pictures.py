"""Figures on their way into result.json: pictures become files of the trial."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engram.backbone.atomic import write_atomically
from engram.backbone.contract import AnyFigure, Pictures
from engram.backbone.errors import TrialError

PNG = b"\x89PNG\r\n\x1a\n"
FOLDER = "figures"


def plain_figures(folder: Path, figures: Mapping[str, AnyFigure]) -> dict[str, Any]:
    """Figures as result.json holds them; the files of pictures are written below ``folder``.

    Raises:
        TrialError: what is to be a picture is none.
    """
    found = {}
    for name, figure in figures.items():
        if isinstance(figure, Pictures):
            figure = replace(figure, pictures=_written(folder, name, figure))
        found[name] = {"kind": figure.kind, **asdict(figure)}
    return found


def _written(folder: Path, name: str, figure: Pictures) -> list[str]:
    paths = []
    (folder / FOLDER).mkdir(exist_ok=True)
    for index, picture in enumerate(figure.pictures):
        path = f"{FOLDER}/{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{index}.png"
        write_atomically(folder / path, png(picture, name))
        paths.append(path)
    return paths


def png(picture: Any, name: str) -> bytes:
    """The bytes of a PNG file of a picture.

    Raises:
        TrialError: it is no such file, and no array of uint8 of shape [H, W] or [H, W, 3].
    """
    if isinstance(picture, bytes):
        if picture.startswith(PNG):
            return picture
        got = f"{len(picture)} bytes that are no PNG file"
    else:
        import numpy as np

        values = np.asarray(picture)
        shaped = values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)
        if values.dtype == np.uint8 and values.size and shaped:
            from PIL import Image

            file = io.BytesIO()
            Image.fromarray(values).save(file, "PNG")
            return file.getvalue()
        got = f"{values.dtype} of shape {list(values.shape)}"
    rule = "a PNG file or an array of uint8 of shape [H, W] or [H, W, 3]"
    raise TrialError(f"a picture of figure {name} must be {rule}; got {got}. Mend the experiment.")
