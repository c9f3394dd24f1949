"""Pictures side by side in one SVG, each with its text below; their bytes stand in the text itself."""

from __future__ import annotations

import base64
from html import escape

from engram.backbone.contract import Pictures
from engram.benchmarks.drawing.svg import WIDTH, begin, svg_text
from engram.benchmarks.drawing.tables import fold

_COLUMNS, _GAP, _LINE, _EDGE = 4, 12, 15, 14
_SIZE = (WIDTH - 2 * _EDGE - (_COLUMNS - 1) * _GAP) / _COLUMNS
_LETTERS, _MOST_LINES = 15, 3


def picture_sheet(pictures: Pictures, name: str) -> str:
    """The pictures, whose bytes are PNG files, as one ``<svg>``; b"" stands for one that is not there any more.

    ``name`` must be unique in the page and plain (it becomes an id).
    """
    captions = [fold(caption, _LETTERS)[:_MOST_LINES] for caption in pictures.captions]
    tall = _SIZE + max(map(len, captions), default=0) * _LINE + _GAP
    rows = max(-(-len(captions) // _COLUMNS), 1)
    parts = [begin(name, pictures.title, "; ".join(pictures.captions), 2 * _EDGE + rows * tall - _GAP)]
    for index, (data, caption) in enumerate(zip(pictures.pictures, captions, strict=True)):
        x, y = _EDGE + index % _COLUMNS * (_SIZE + _GAP), _EDGE + index // _COLUMNS * tall
        place = f'x="{x:.1f}" y="{y:.1f}" width="{_SIZE:.1f}" height="{_SIZE:.1f}"'
        said = f"<title>{escape(pictures.captions[index])}</title>"
        if data:
            text = base64.b64encode(data).decode("ascii")
            parts.append(f'<image class="pixels" {place} href="data:image/png;base64,{text}">{said}</image>')
        else:
            parts.append(f'<rect class="lost" {place}>{said}</rect>')
        for number, line in enumerate(caption):
            parts.append(svg_text("tick", x + _SIZE / 2, y + _SIZE + 13 + number * _LINE, line, "middle"))
    return "".join([*parts, "</svg>"])
