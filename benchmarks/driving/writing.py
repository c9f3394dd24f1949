"""What a driver writes into a trial's folder before a worker gets it."""

from __future__ import annotations

from pathlib import Path

from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.code import fingerprint
from engram.benchmarks.records.stored import held, write_json
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.disk import RESERVE
from engram.benchmarks.worker.provenance import redacted


def write_trial(trial: Trial, setting: RunSetting, attempt: int = 1) -> None:
    """Write what the worker reads: what the trial is (once) and how to run it (each time)."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_config(trial)
    launch = {
        "device": setting.device,
        "devices": setting.devices,
        "data_root": str(setting.data_root),
        "download": setting.download,
        "inputs": dict(trial.paths),
        "argv": redacted(list(setting.argv)),
        "memory": setting.resources.memory,
        "seconds": setting.resources.seconds,
        "code": None if setting.ray is None and setting.slurm is None else fingerprint(),
        "sweep": None if setting.sweep is None else str(setting.sweep),
        "attempt": attempt,
    }
    write_json(trial.folder / "launch.json", launch)


def attempts_lost(folder: Path) -> int:
    """How many attempts in a row ended with their process: such a one leaves what it had reserved for its last words.

    So a trial that takes its driver with it is counted, too.
    """
    return held(folder / "launch.json").get("attempt", 1) if (folder / RESERVE).exists() else 0


def write_config(trial: Trial) -> None:
    """Write what the trial is, where that does not stand there yet or is damaged."""
    before = Record(trial.folder)
    if not before.about or {*before.data} != {*trial.data}:  # the same data may lie in another place by now
        write_json(trial.folder / "config.json", trial.stored(), durable=True)
