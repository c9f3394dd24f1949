"""A figure as an SVG file of its own: title, drawing and key, for whoever shows files rather than pages."""

from __future__ import annotations

import re
from html import escape

from engram.benchmarks.drawing.figures import Drawable, draw, key
from engram.benchmarks.drawing.svg import WIDTH
from engram.benchmarks.report.style import STYLE

TITLE, LINE = 30, 19
_HEIGHT = re.compile(r'viewBox="0 0 \d+ (\d+)"')


def picture(figure: Drawable) -> str:
    """The whole file."""
    drawn, entries = draw(figure, "figure"), key(figure)
    found = _HEIGHT.search(drawn)
    height = int(found[1]) if found else WIDTH
    whole = TITLE + height + LINE * len(entries) + 8
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole}" width="{2 * WIDTH}" '
        f'height="{2 * whole}" style="background:var(--panel);font:16px system-ui,sans-serif"><style>{STYLE}</style>',
        f'<text class="name" x="14" y="20" font-weight="600">{escape(figure.title)}</text>',
        drawn.replace("<svg ", f'<svg y="{TITLE}" width="{WIDTH}" height="{height}" ', 1),
    ]
    for row, (swatch, said) in enumerate(entries):
        top = TITLE + height + LINE * row
        body.append(f'<svg x="14" y="{top}" width="34" height="12" viewBox="0 0 34 12">{swatch}</svg>')
        body.append(f'<text class="name" x="56" y="{top + 11}">{escape(said)}</text>')
    return "".join([*body, "</svg>\n"])
