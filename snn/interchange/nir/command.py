"""``engram nir FILE``: what other tools will make of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from engram.backbone.contract import Invocation
from engram.snn.interchange.nir.command_flags import NirFlags

EVENTS = 0.1
"""Share of the inputs that have an event in a step of a trial run."""


def show(given: Invocation[NirFlags]) -> int:
    """Print what differs, for one tool or for each.

    Raises:
        UserError: the file is no NIR file, or engram's semantics are asked for and it has none.
    """
    from engram.snn.interchange.nir.checker import check
    from engram.snn.interchange.nir.options import NirOptions
    from engram.snn.interchange.nir.reading import read
    from engram.snn.interchange.nir.semantics import semantics_of
    from engram.snn.interchange.nir.targets import Target

    flags, file = given.flags, Path(given.words[0])
    graph = read(file)
    made = semantics_of(graph.metadata, NirOptions(semantics=flags.semantics, dt=flags.dt), str(file))
    targets: Sequence[Target] = get_args(Target) if flags.target is None else (flags.target,)
    reports = [check(graph, target, made) for target in targets]
    found = [_as_row(each) for each in reports]
    if flags.steps:
        for each, row in zip(reports, found, strict=True):
            row["activity"] = _activity(graph, each, made, flags.steps)
    if flags.json:
        print(json.dumps({"file": str(file), "targets": found}))
    else:
        print("\n".join(line for each in found for line in _lines(each)))
    return 0


def _as_row(report: Any) -> dict[str, Any]:
    rows = [vars(each) for each in report.differences]
    return {"target": report.target, "verdict": report.verdict, "differences": rows}


def _activity(graph: Any, report: Any, made: Any, steps: int) -> list[dict[str, Any]]:
    """Spikes of every layer on the same random events: as the file means them, and as the tool will send them."""
    import numpy as np

    from engram.snn.interchange.nir.graph import SPIKING
    from engram.snn.interchange.nir.interpreter import interpret
    from engram.snn.interchange.nir.shapes import planned

    if report.understood.graph is None:
        return []
    plan = planned(graph)
    names = [name for name, node in plan.nodes.items() if node.kind in SPIKING]
    events = np.random.default_rng(0).random((steps, 1, *plan.taken[plan.source])) < EVENTS
    meant, theirs = (
        interpret(each, events.astype(np.float64), how, names).sent
        for each, how in ((graph, made), (report.understood.graph, report.understood.semantics))
    )
    sums = [(name, float(meant[name].sum()), float(theirs[name].sum())) for name in names]
    return [{"node": name, "meant": a, "theirs": b, "factor": b / a if a else None} for name, a, b in sums]


def _lines(row: dict[str, Any]) -> list[str]:
    verdicts = {
        "same": "sends the same spikes",
        "differs": "sends other spikes",
        "refused": "refuses it",
        "unknown": "runs something else, or fails",
    }
    lines = [f"{row['target']}: {verdicts[row['verdict']]}"]
    nodes: dict[tuple[Any, ...], list[str]] = {}
    for each in row["differences"]:
        nodes.setdefault(tuple(each[key] for key in ("verdict", "what", "factor", "consequence")), []).append(
            each["node"]
        )
    for (verdict, what, factor, consequence), names in nodes.items():
        times = "" if factor is None else f" (times {factor:.4g})"
        lines.append(f"  {verdict:8} {', '.join(names)}: {what}{times}. {consequence}")
    for each in row.get("activity", ()):
        factor = "" if each["factor"] is None else f" (times {each['factor']:.4g})"
        lines.append(f"  spikes   {each['node']}: {each['theirs']:g} where {each['meant']:g} are meant{factor}")
    return lines
