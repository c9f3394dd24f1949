"""TPE and successive halving against random search: how to make a network spiking, at an equal budget, five times.

The suites are those of ``engram sweep``; every repetition has networks and draws of its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engram.backbone.measures.intervals import interval
from engram.backbone.registry import Registry
from engram.benchmarks.commands.searching import carry_out_search
from engram.benchmarks.compare.choosing import look_through
from engram.benchmarks.compare.stats import paired
from engram.benchmarks.drawing.tables import render
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.planning.suite import check_suite
from engram.benchmarks.records.layout import prepare
from engram.benchmarks.records.trials import read_sweep

SUITES = Path(__file__).parents[1] / "suites"
METHODS = ("random", "tpe", "halving")
REPETITIONS = 5


def search(method: str, repetition: int, out: Path, registry: Registry) -> dict[str, Any]:
    """Run one search; the scores of what it chose."""
    path = SUITES / f"convert-{method}.toml"
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    values |= {"name": f"{method}-{repetition}", "seeds": [2 * repetition, 2 * repetition + 1]}
    values["search"]["seed"] = repetition
    suite = replace(check_suite(values, json.dumps(values), path, registry), path=f"{path.name} {repetition}")
    how = RunSetting(out=out, data_root=Path(os.environ.get("ENGRAM_DATA", "data")), argv=["searching"])
    carry_out_search(suite, registry, how)
    found = look_through(read_sweep(out, suite.name))
    (best,) = found.chosen
    score = [record.metrics["snn/test/accuracy"] for record in best.records]
    tried = len({json.dumps(record.options, sort_keys=True) for record in read_sweep(out, suite.name).records})
    chosen = {"validation": best.scores[found.objectives[0]], "test": sum(score) / len(score)}
    return {"method": method, "repetition": repetition, "proposals": tried, **chosen, **best.options}


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each method its mean over repetitions, and its difference to random search, paired by repetition."""
    shown: list[dict[str, Any]] = []
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        line: dict[str, Any] = {"method": method, "n": len(mine), "proposals": sum(r["proposals"] for r in mine)}
        for score in ("validation", "test"):
            values = {row["repetition"]: row[score] for row in mine}
            others = {row["repetition"]: row[score] for row in rows if row["method"] == "random"}
            mean = interval(list(values.values()), bounds=(0.0, 1.0))
            test = paired(values, others, (0.0, 1.0))
            line |= {score: mean.mean, f"{score} low": mean.low, f"{score} high": mean.high}
            if method != "random":
                gap = test.difference
                line |= {f"{score} gap": gap.mean, f"{score} gap low": gap.low, f"{score} gap high": gap.high}
                line |= {f"{score} p": test.p}
        shown.append(line)
    return shown


def main() -> None:
    """Run all searches below a folder (the first argument, or a temporary one), and print what they chose."""
    registry = Registry.discover()
    with tempfile.TemporaryDirectory() as folder:
        out = prepare(Path(sys.argv[1] if len(sys.argv) > 1 else folder))
        rows = [search(each, number, out, registry) for number in range(REPETITIONS) for each in METHODS]
    print(render("what each search chose", rows))
    for row in table(rows):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
