"""All commands of ``engram``, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command: its words, what it does, its flags (a class of engram.benchmarks.commands.flags) and its handler."""

    words: str
    summary: str
    flags: str
    handler: str


COMMANDS = {
    "list": Command("[KIND]", "What is installed: experiments, networks, data sets, ...", "Showing", "listing:show"),
    "run": Command("EXPERIMENT [--option value ...]", "Run one experiment", "Planning", "run:run"),
    "sweep": Command("SUITE.toml", "Run a grid of options and seeds", "Sweeping", "run:sweep"),
    "status": Command("", "What became of trials and sweeps", "Showing", "status:show"),
    "compare": Command("SWEEP", "Means, intervals and paired differences", "Comparing", "results:compare"),
    "report": Command("SWEEP|TRIAL", "Write one self-contained HTML file", "Where", "results:report"),
    "sync": Command("", "Complete the MLflow store", "Tracked", "results:sync"),
    "ui": Command("", "Browse the MLflow store", "Interface", "results:ui"),
    "doctor": Command("", "Check the installation", "Showing", "results:doctor"),
    "quickstart": Command("", "Train, convert into spikes, compare and report, in a minute", "Quick", "quickstart:run"),
    "reproduce": Command("[TARGET]", "Run published figures and judge ours", "Reproducing", "reproduce:run"),
    "completion": Command("bash|zsh|fish|tcsh", "Print a shell completion script", "Nothing", "completion:show"),
}
