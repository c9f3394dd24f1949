"""``python -m benchmarks.perf [NAME]``: run the scripts of this folder, print a table, write ``perf.json``."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from rich.console import Console
from rich.table import Table

from backbone.errors import UserError, nearest
from benchmarks.perf.curves import page
from benchmarks.perf.harness import Row, machine

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
                rows += import_module(f"benchmarks.perf.{name}").measure()
            except UserError as error:
                print(f"perf: {error}", file=sys.stderr)
                return 2
    OUTPUT.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    console.print(_table(rows))
    drawn = page(rows, ", ".join(f"{name}: {value}" for name, value in machine().items()))
    if drawn is not None:
        OUTPUT.with_suffix(".html").write_text(drawn)
    console.print(f"written to {OUTPUT}" + (" and perf.html" if drawn else ""))
    return 0


def _table(rows: list[Row]) -> Table:
    table = Table("name", "ours", "peer", "ratio", "unit", "n", "against")
    for row in rows:
        ours, peer = f"{row.ours:.4g}", f"{row.peer:.4g}"
        table.add_row(row.name, ours, peer, f"{row.ratio:.2f}", row.unit, str(row.n), row.peer_name)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
