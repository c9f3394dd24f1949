"""``engram quickstart``: train on real images, convert into spikes, track, compare and report, in about a minute."""

from __future__ import annotations

from pathlib import Path

from backbone.registry import Registry
from benchmarks.catalogue import Command
from benchmarks.command import read, say
from benchmarks.flags import Quick
from benchmarks.launch.local import available_cores
from benchmarks.layout import prepare
from benchmarks.runs import finish_sweep, plan_suite, run_suite, setting
from benchmarks.suite import load_suite

SUITE = Path(__file__).parent / "suites" / "quickstart.toml"


def run(name: str, command: Command, argv: list[str]) -> int:
    """Run suites/quickstart.toml, compare its groups, write the report and end with its path."""
    found = read(name, command, argv, Quick)
    if found is None:
        return 0
    flags = found[1]
    registry = Registry.discover()
    suite = load_suite(SUITE, registry)
    out = prepare(flags.out)
    trials, plan = plan_suite(suite, registry, out)
    workers = flags.workers or min(available_cores(), 4)
    say(f"{len(trials)} trials, {workers} at once: {SUITE}")
    outcome = run_suite(suite.name, trials, plan, setting(flags, out, [name, *argv], workers))
    code = finish_sweep(out, plan, outcome, flags)
    if code:
        return code
    from benchmarks.compare import compare
    from benchmarks.report import write_report

    if not flags.json:
        from rich.console import Console

        compare(out, suite.name).render(Console())
    report = write_report(out, suite.name)
    say(f"next: engram ui --out {flags.out}, or engram run backbone.train --help")
    if flags.json:
        say(str(report))
    else:
        print(report)
    return 0
