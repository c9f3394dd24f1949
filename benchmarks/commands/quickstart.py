"""``engram quickstart``: train on real images, convert into spikes, track, compare and report, in about a minute."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from engram.benchmarks.commands.flags import Quick
from engram.benchmarks.commands.run import finish_sweep, plan_suite, planner_for, ready, run_suite
from engram.benchmarks.driving.launch.local import available_cores
from engram.benchmarks.given import Given
from engram.benchmarks.planning.suite import load_suite
from engram.benchmarks.saying import say

INTRODUCTION = (
    "Two networks learn 1,797 real handwritten digits, three times each with other seeds; every trained network is",
    "then turned into a spiking one, whose accuracy is measured after 1, 2, 4, ..., 64 time steps. About a minute.",
)
NEXT = (
    "next:  engram report {name} --out {out}    writes this report again",
    "       engram ui --out {out}    browses every number in MLflow",
    "       engram run snn.convert --help    what else there is to turn into spikes",
)
SUITE = Path(__file__).parents[1] / "suites" / "quickstart.toml"


def run(given: Given[Quick]) -> int:
    """Run suites/quickstart.toml, compare its groups, write the report and end with its path."""
    flags, registry = given.flags, given.registry
    suite = replace(load_suite(SUITE, registry), path="engram quickstart")  # in whatever place engram is installed
    workers = flags.workers or min(available_cores(), 4)
    how = ready(flags, given.argv, workers)
    trials, plan = plan_suite(suite, planner_for(registry, how))
    for line in INTRODUCTION:
        say(line)
    say(f"{len(trials)} trials, {workers} at once, below {flags.out}/ ({SUITE})")
    outcome = run_suite(suite, trials, plan, how)
    code = finish_sweep(how.out, plan, outcome, flags)
    if code:
        return code
    from engram.benchmarks.compare.terminal import render
    from engram.benchmarks.comparing import compare
    from engram.benchmarks.report import write_report

    if not flags.json:
        from rich.console import Console

        render(compare(how.out, suite.name), Console())
    report = write_report(how.out, suite.name)
    for line in NEXT:
        say(line.format(out=shlex.quote(str(flags.out)), name=suite.name))
    say("the report, to open in a browser:")
    print(report, file=sys.stderr if flags.json else sys.stdout)
    return 0
