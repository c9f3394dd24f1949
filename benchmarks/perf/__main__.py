"""``python -m engram.benchmarks.perf [NAME]``: run the scripts of this folder, print a table, write ``perf.json``."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from rich.console import Console

from engram.backbone.errors import UserError, nearest
from engram.benchmarks.drawing.tables import render, terminal_width
from engram.benchmarks.perf.curves import page
from engram.benchmarks.perf.harness import Row, machine

OUTPUT = Path("perf.json")
NOT_SCRIPTS = ("harness", "snn_peers", "curves", "__main__")


def main(argv: list[str]) -> int:
    """Run all scripts, or those named; each has ``measure() -> list[Row]``."""
    folder = Path(__file__).parent
    scripts = [module.name for module in iter_modules([str(folder)]) if module.name not in NOT_SCRIPTS]
    unknown = [name for name in argv if name not in scripts]
    if unknown:
        print(
            f"perf: ONLY must be a script of benchmarks/perf; got {unknown[0]}. {nearest(unknown[0], scripts)}",
            file=sys.stderr,
        )
        return 2
    console = Console()
    console.print(", ".join(f"{name}: {value}" for name, value in machine().items()))
    rows: list[Row] = []
    for name in argv or scripts:
        with console.status(f"measuring {name}"):
            try:
                rows += import_module(f"engram.benchmarks.perf.{name}").measure()
            except UserError as error:
                print(f"perf: {error}", file=sys.stderr)
                return 2
    OUTPUT.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    print(table(rows, terminal_width()))
    drawn = page(rows, ", ".join(f"{name}: {value}" for name, value in machine().items()))
    if drawn is not None:
        OUTPUT.with_suffix(".html").write_text(drawn)
    console.print(f"written to {OUTPUT}" + (" and perf.html" if drawn else ""))
    return 0


def table(rows: list[Row], width: int | None = None) -> str:
    """All rows; a name that is long goes on in the next line, for its end tells the rows apart."""
    return render(
        "",
        [
            {"name": row.name, "ours": row.ours, "peer": row.peer, "ratio": f"{row.ratio:.2f}", "unit": row.unit}
            | {"n": row.n, "against": row.peer_name}
            for row in rows
        ],
        width,
        ("ratio",),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
