"""What the runner itself offers, in the terms of every plugin; it is no entry point, so that nothing goes before it."""

from __future__ import annotations

from engram.backbone.contract import Command, Plugin
from engram.backbone.registry import Registry

_COMMANDS = "engram.benchmarks.commands"
_FLAGS = f"{_COMMANDS}.flags"
_DOCTOR = f"{_COMMANDS}.doctor"

PLUGIN = Plugin(
    name="benchmarks",
    commands={
        "list": Command(
            words="[KIND]",
            summary="What is installed: experiments, networks, data sets, ...",
            flags=f"{_FLAGS}:Showing",
            handler=f"{_COMMANDS}.listing:show",
        ),
        "run": Command(
            words="EXPERIMENT",
            summary="Run one experiment",
            flags=f"{_FLAGS}:Planning",
            handler=f"{_COMMANDS}.run:run",
            experiment=True,
        ),
        "sweep": Command(
            words="SUITE.toml",
            summary="Run a grid of options and seeds",
            flags=f"{_FLAGS}:Sweeping",
            handler=f"{_COMMANDS}.run:sweep",
        ),
        "status": Command(
            words="[SWEEP]",
            summary="What became of trials and sweeps",
            flags=f"{_FLAGS}:Watching",
            handler=f"{_COMMANDS}.status:show",
        ),
        "stop": Command(
            words="SWEEP",
            summary="Have a running sweep end, to be gone on with later",
            flags=f"{_FLAGS}:Stopping",
            handler=f"{_COMMANDS}.stopping:stop",
        ),
        "logs": Command(
            words="TRIAL",
            summary="What a trial printed, and why it failed",
            flags=f"{_FLAGS}:Following",
            handler=f"{_COMMANDS}.logs:show",
        ),
        "clean": Command(
            summary="Remove checkpoints and files that nobody needs",
            flags=f"{_FLAGS}:Cleaning",
            handler=f"{_COMMANDS}.clean:clean",
        ),
        "compare": Command(
            words="SWEEP|TRIAL...",
            summary="Means, intervals and paired differences",
            flags=f"{_FLAGS}:Comparing",
            handler=f"{_COMMANDS}.results:compare",
        ),
        "report": Command(
            words="SWEEP|TRIAL",
            summary="Write one self-contained HTML file",
            flags=f"{_FLAGS}:Reporting",
            handler=f"{_COMMANDS}.results:report",
        ),
        "sync": Command(
            summary="Complete the MLflow store", flags=f"{_FLAGS}:Tracked", handler=f"{_COMMANDS}.results:sync"
        ),
        "promote": Command(
            words="TRIAL NAME",
            summary="Put a trial's network into MLflow's model registry",
            flags=f"{_FLAGS}:Promoting",
            handler=f"{_COMMANDS}.results:promote",
        ),
        "ui": Command(
            summary="Browse the MLflow store", flags=f"{_FLAGS}:Interface", handler=f"{_COMMANDS}.results:ui"
        ),
        "doctor": Command(summary="Check the installation", flags=f"{_FLAGS}:Doctoring", handler=f"{_DOCTOR}:show"),
        "quickstart": Command(
            summary="Train, convert into spikes, compare and report, in a minute",
            flags=f"{_FLAGS}:Quick",
            handler=f"{_COMMANDS}.quickstart:run",
        ),
        "reproduce": Command(
            words="[TARGET]",
            summary="Run published figures and judge ours",
            flags=f"{_FLAGS}:Reproducing",
            handler=f"{_COMMANDS}.reproduce:run",
        ),
        "completion": Command(
            words="bash|zsh|fish|tcsh",
            summary="Print a shell completion script",
            handler=f"{_COMMANDS}.completion:show",
        ),
        "help": Command(summary="", handler=f"{_COMMANDS}.usage:show"),
        "exec": Command(words="TRIAL_DIR", summary="", handler="engram.benchmarks.worker.trial:execute"),
        "warm": Command(words="EXPERIMENT", summary="", handler="engram.benchmarks.worker.warm:serve"),
    },
    checks={
        "python": f"{_DOCTOR}:python",
        "output folder": f"{_DOCTOR}:output_folder",
        "mlflow": f"{_DOCTOR}:store",
        "trials": f"{_DOCTOR}:trials",
    },
)


def discover() -> Registry:
    """All that is installed, the runner's own offers first."""
    return Registry.discover(PLUGIN)
