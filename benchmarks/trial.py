"""The worker: ``python -m benchmarks exec TRIAL_DIR`` runs one trial to its end or to its next checkpoint.

The only place where an experiment is imported and run. Knows no tracking and no sweep.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from backbone.contract import ExperimentConfig, Result
from backbone.errors import MissingData, TrialError, UserError, must
from backbone.registry import Registry
from benchmarks.config import Checker, experiment_config
from benchmarks.contents import MEMORY, Contents, finished_with
from benchmarks.identity import DataSets, Origins
from benchmarks.inside import refuse_links_out
from benchmarks.layout import Busy, lock, write_json
from benchmarks.ledger import Ledger
from benchmarks.pace import PROGRESS
from benchmarks.provenance import begin
from benchmarks.records import read_json
from benchmarks.services import TrialServices
from benchmarks.stopping import STOPPED, Stop

PATIENCE_SECONDS = 30.0  # how long a worker whose driver was killed may take to die
CHECKPOINT_SECONDS = 20.0


def main(folder: Path) -> int:
    """Run the trial in ``folder``; the exit code of the process."""
    stop = Stop.install()
    said = os.dup(2)
    if not (folder / "config.json").is_file():
        return _say(said, f"trial must be a folder with a config.json; got {folder}. See: engram run --help", 2)
    try:
        refuse_links_out(f"trial {folder.name}", folder)  # before a log or a ledger is written to where they lead
    except UserError as error:
        write_json(folder / "error.json", {"kind": "user", "message": str(error), "traceback": ""}, durable=True)
        return _say(said, str(error), 2)
    try:
        with (
            lock(folder / "lock", patience=PATIENCE_SECONDS, what=f"trial {folder.name}"),
            _logging_to(folder / "log.txt"),
        ):
            return _guarded(folder, stop, said)
    except Busy as error:
        return _say(said, str(error), 4)


def _guarded(folder: Path, stop: Stop, said: int) -> int:
    """Run, and turn every way to fail into error.json, a line and an exit code."""
    if (folder / "result.json").exists():
        return 0
    for before in ("error.json", PROGRESS):  # of an earlier attempt
        (folder / before).unlink(missing_ok=True)
    try:
        return work(folder, stop)
    except UserError as error:
        kind = "data" if isinstance(error, MissingData) else "user"
        message, code, trace = str(error), 2, ""
    except TrialError as error:
        kind, message, code, trace = "trial", str(error), 1, ""
    except BaseException as error:
        traceback.print_exc()
        kind, code, trace = "crash", 1, traceback.format_exc()
        message = f"{type(error).__name__}: {error}".splitlines()[0] + f" (see {folder / 'log.txt'})"
    write_json(folder / "error.json", {"kind": kind, "message": message, "traceback": trace}, durable=True)
    return _say(said, message, code)


def work(folder: Path, stop: Stop) -> int:
    """Run one trial in this process; 0, or `STOPPED` when it was told to stop and can be resumed."""
    about, launch = read_json(folder / "config.json"), read_json(folder / "launch.json")
    registry = Registry.discover()
    config = load_config(registry, about)
    begin(folder / "provenance.json", launch.get("argv", sys.argv))
    root = Path(launch.get("data_root", "data"))
    inputs = {role: _input(folder, role, trial, launch) for role, trial in about["inputs"].items()}
    sets = DataSets(registry, root, Contents(folder.parent.parent / MEMORY))
    origins = Origins(about.get("data", {}), about.get("contents", {}), inputs, sets)
    origins.require()
    with Ledger(folder / "metrics.jsonl") as ledger:
        services = TrialServices(
            trial_dir=folder,
            data_root=root,
            download=bool(launch.get("download", False)),
            wanted_device=str(launch.get("device", "auto")),
            inputs=inputs,
            ledger=ledger,
        )
        kind = registry.load("experiments", about["experiment"])
        _seed(config.seed)
        loop = Loop(kind(config, services), services, stop, origins)
        result = loop.run()
    if result is None:
        return STOPPED
    check_metrics(config, result)
    publish(folder, about, result, loop.seconds)
    return 0


def load_config(registry: Registry, about: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration in a config.json, checked again: the file may be a stranger's."""
    cls = experiment_config(registry, str(about.get("experiment")))
    checker = Checker(registry, lambda name: name, "Plan the trial again.")
    return checker.finish(checker.build(cls, about.get("config", {})))


def _input(folder: Path, role: str, trial: str, launch: Mapping[str, Any]) -> Path:
    path = Path(launch.get("inputs", {}).get(role, folder.parent / trial))
    if not (path / "result.json").exists():
        raise UserError(f"input {role} must be a finished trial; got {path}. Run it first.")
    refuse_links_out(f"input {role}", path)
    return path


def _seed(seed: int) -> None:
    """Seed what is loaded: an experiment that never imports torch shall not wait for it."""
    random.seed(seed)
    if "torch" in sys.modules:
        from backbone.seeding import seed_everything

        seed_everything(seed)


def _checkpoint_seconds() -> float:
    text = os.environ.get("ENGRAM_CHECKPOINT_SECONDS", str(CHECKPOINT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        remedy = f"Unset it: the default is {CHECKPOINT_SECONDS:g}."
        raise must("ENGRAM_CHECKPOINT_SECONDS", "a number of seconds, 0 or more", text, remedy)
    return seconds


class Loop:
    """Steps an experiment, with checkpoints, until it is done or told to stop."""

    def __init__(self, experiment: Any, services: TrialServices, stop: Stop, origins: Origins) -> None:
        self.experiment, self.services, self.stop, self.origins = experiment, services, stop, origins
        self.folder = services.trial_dir / "ckpt"
        self.every = _checkpoint_seconds()
        self.steps, self.seconds = 0, 0.0

    def run(self) -> Result | None:
        """The result, or None when it was stopped (its state is then in the checkpoint)."""
        seeded = "torch" in sys.modules
        state = self.experiment.start()
        if "torch" in sys.modules and not seeded:
            raise RuntimeError("an experiment must import torch at the top of its module, or the seed comes too late")
        if not self.origins.settled:  # they may have been downloaded by now
            self.origins.require()
        self._restore(state)
        begun = saved = time.monotonic()
        before = self.seconds
        stopping = self.stop.asked
        while not stopping:
            more = self.experiment.step(state)
            self.steps += 1
            self.seconds = before + time.monotonic() - begun
            if not more:
                break
            stopping = self.stop.asked  # looked at once: a signal after this line gets its checkpoint a step later
            if stopping or time.monotonic() - saved >= self.every:
                self._save(state)
                saved = time.monotonic()
        if stopping:
            return None
        result = self.experiment.finish(state)
        self.origins.require(done=True)  # again: sets that are streamed are read all the time
        self.seconds = before + time.monotonic() - begun
        return result

    def _save(self, state: Any) -> None:
        from backbone.checkpoint import save_state

        saved = {"experiment": self.experiment.state_dict(state), "seconds": self.seconds, "random": random_state()}
        save_state(self.folder, self.steps, saved)

    def _restore(self, state: Any) -> None:
        if not self.folder.is_dir():
            return
        from backbone.checkpoint import load_latest

        found = load_latest(self.folder)
        if found is not None:
            self.steps, saved = found
            try:
                self.experiment.load_state_dict(state, saved["experiment"])
                self.seconds = saved["seconds"]
                set_random_state(saved["random"])
            except (LookupError, TypeError, ValueError, RuntimeError) as error:
                got = f"{type(error).__name__}: {error}".splitlines()[0]
                remedy = "Use that version, or remove the folder to begin the trial anew."
                raise must(f"the checkpoint in {self.folder}", "of this version of engram", got, remedy) from error
            print(f"resumed at step {self.steps}", flush=True)


def random_state() -> dict[str, Any]:
    """State of the global generators, as containers that ``weights_only=True`` accepts."""
    import numpy as np
    import torch

    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest], "torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    import numpy as np
    import torch

    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def check_metrics(config: ExperimentConfig, result: Result) -> None:
    """Declared metrics must be there, and every metric finite.

    Raises:
        TrialError: one is missing or not a finite number.
    """
    for metric in config.metrics:
        if metric.name not in result.metrics and not metric.optional:
            raise TrialError(
                f"metric {metric.name} must be reported; got {', '.join(result.metrics)}. Mend the experiment."
            )
    for name, value in result.metrics.items():
        if not math.isfinite(value):
            raise TrialError(f"metric {name} must be finite; got {value}. Try a smaller learning rate.")


def publish(folder: Path, about: Mapping[str, Any], result: Result, seconds: float) -> None:
    """Write result.json, which makes the trial done, and drop what only a resume would need."""
    for name, path in result.artifacts.items():
        if not (folder / path).exists():
            raise TrialError(f"artifact {name} must be a file of the trial; got {path}. Mend the experiment.")
    plain = {
        "experiment": about["experiment"],
        "trial": folder.name,
        "config": about["config"],
        "metrics": {name: float(value) for name, value in result.metrics.items()},
        "tables": {name: [dict(row) for row in rows] for name, rows in result.tables.items()},
        "figures": {name: asdict(figure) for name, figure in result.figures.items()},
        "artifacts": dict(result.artifacts),
        "seconds": round(seconds, 3),
    }
    content = json_safe(plain)
    content["content"] = finished_with(folder, about, content, Contents())
    write_json(folder / "result.json", content, durable=True)
    shutil.rmtree(folder / "ckpt", ignore_errors=True)
    (folder / PROGRESS).unlink(missing_ok=True)


def json_safe(value: Any) -> Any:
    """Plain JSON: numbers of NumPy or torch unpacked, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    json.dumps(value)
    return value


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send everything printed, by C code too, to the trial's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in enumerate(before, start=1):
            os.dup2(old, number)
            os.close(old)


def _say(said: int, line: str, code: int) -> int:
    os.write(said, f"{line}\n".encode())
    return code
