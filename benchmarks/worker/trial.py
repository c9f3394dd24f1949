"""The worker: ``python -m engram.benchmarks exec TRIAL_DIR`` runs one trial to its end or to its next checkpoint.

The only place where an experiment is imported and run. Knows no tracking and no sweep.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import math
import os
import random
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.backbone.contract import ExperimentConfig, Flags, Result
from engram.backbone.errors import MissingData, TrialError, UserError, must
from engram.backbone.options import Checker
from engram.backbone.registry import Registry
from engram.benchmarks.given import Given
from engram.benchmarks.planning.config import experiment_config, without_defaults
from engram.benchmarks.planning.devices import undividable, undivided
from engram.benchmarks.records.code import fingerprint
from engram.benchmarks.records.contents import MEMORY, Contents, finished_with
from engram.benchmarks.records.identity import DataSets, Origins
from engram.benchmarks.records.inside import refuse_links_out
from engram.benchmarks.records.layout import BUSY, LOG, Busy, lock
from engram.benchmarks.records.lease import LEASE, lease
from engram.benchmarks.records.lines import LEDGER, digest
from engram.benchmarks.records.pace import PROGRESS
from engram.benchmarks.records.stored import held, misfit, read_json, write_json
from engram.benchmarks.records.trials import PRUNED, Record
from engram.benchmarks.worker.disk import FULL, full, no_room, release, reserve, tidy, trouble
from engram.benchmarks.worker.ledger import Ledger
from engram.benchmarks.worker.limits import Limits, OverTime
from engram.benchmarks.worker.loop import Loop, drop_states_ahead
from engram.benchmarks.worker.machine import watched
from engram.benchmarks.worker.pictures import plain_figures
from engram.benchmarks.worker.provenance import begin, distributions
from engram.benchmarks.worker.ranks import Place, supervise
from engram.benchmarks.worker.services import SilentServices, TrialServices
from engram.benchmarks.worker.stopping import STOPPED, Stop

if TYPE_CHECKING:
    from engram.backbone.ranks import Ranks

PATIENCE_SECONDS = 30.0  # how long a worker whose driver was killed may take to die


def execute(given: Given[Flags]) -> int:
    """``engram exec TRIAL_DIR``, which is what ``engram run`` starts."""
    return main(Path(given.words[0]).resolve())


def main(folder: Path) -> int:
    """Run the trial in ``folder``; the exit code of the process."""
    stop = Stop.install()
    said = os.dup(2)
    faulthandler.enable()
    if not (folder / "config.json").is_file():
        return _say(said, f"trial must be a folder with a config.json; got {folder}. See: engram run --help", 2)
    try:
        return _alone(folder, stop, said)
    except Busy as error:
        return _say(said, str(error), BUSY)
    except OSError as error:
        if lack := no_room(error):
            return _say(said, full(folder, lack), FULL)
        why, code = trouble(error)
        if not why:
            raise
        return _say(said, why, code)


def _alone(folder: Path, stop: Stop, said: int) -> int:
    """Run the trial as the only one that does, or as one of the processes that share it.

    Raises:
        Busy: another process runs it.
        OSError: nothing can be written in its folder.
    """
    try:
        refuse_links_out(f"trial {folder.name}", folder)  # before a log or a ledger is written to where they lead
    except UserError as error:
        write_json(folder / "error.json", {"kind": "user", "message": str(error), "traceback": ""}, durable=True)
        return _say(said, str(error), 2)
    place, devices = Place.here(), _devices(folder)
    if devices > 1 and place is None:
        code, line = supervise(folder, devices, stop)
        return _say(said, line, code) if line else code
    if devices == 1:
        place = None
    try:
        return _follow(folder, stop, place) if place is not None and place.rank else _lead(folder, stop, said, place)
    finally:
        if place is not None:
            place.leave(stop)


def _lead(folder: Path, stop: Stop, said: int, place: Place | None) -> int:
    """Run the trial as the process that writes; the exit code."""
    with (
        lock(folder / "lock", patience=PATIENCE_SECONDS, what=f"trial {folder.name}"),
        lease(folder / LEASE, f"trial {folder.name}"),
        _logging_to(folder / LOG),
        reserve(folder),
        watched(folder),
    ):
        return _guarded(folder, stop, said, place)


def _devices(folder: Path) -> int:
    """How many processes share the trial."""
    devices = held(folder / "launch.json").get("devices", 1)
    return devices if isinstance(devices, int) else 1


def _follow(folder: Path, stop: Stop, place: Place) -> int:
    """Work beside the first process of the trial; the exit code. Nothing but the log is written."""
    with _logging_to(folder / LOG):
        if Record(folder).status == "done":
            return 0
        try:
            return work(folder, stop, place)
        except BaseException as error:
            told, code = _failure(error, folder)
            place.fail(told)
            return code


def _guarded(folder: Path, stop: Stop, said: int, place: Place | None) -> int:
    """Run, and turn every way to fail into error.json, a line and an exit code."""
    record = Record(folder)
    if record.status == "done":
        return 0
    if record.damage:
        print(f"{record.damage}; doing it again", flush=True)
    for before in ("error.json", PRUNED, PROGRESS):  # of an earlier attempt
        (folder / before).unlink(missing_ok=True)
    try:
        return work(folder, stop, place)
    except BaseException as error:
        told, code = _failure(error, folder)
        if place is not None:
            place.fail(told)
    write_json(folder / "error.json", told, durable=True)
    return _say(said, told["message"], code)


def _failure(error: BaseException, folder: Path) -> tuple[dict[str, str], int]:
    """What error.json says of what went wrong, and the exit code."""
    trace = ""
    if isinstance(error, UserError):
        kind, message, code = "data" if isinstance(error, MissingData) else "user", str(error), 2
    elif isinstance(error, TrialError):
        kind, message, code = "trial", str(error), 1
    elif isinstance(error, OverTime):
        kind, message, code = "time", str(error), 1
    else:
        release(folder)
        trace = "".join(traceback.format_exception(error))
        with contextlib.suppress(OSError):
            sys.stderr.write(trace)
        if lack := no_room(error):
            kind, message, code = "disk", full(folder, lack), FULL
        else:
            kind, code = "crash", 1
            message = f"{type(error).__name__}: {error}".splitlines()[0] + f" (see {folder / LOG})"
    return {"kind": kind, "message": message, "traceback": trace}, code


def work(folder: Path, stop: Stop, place: Place | None = None) -> int:
    """Run one trial in this process; 0, or `STOPPED` when it was told to stop and can be resumed.

    ``place`` is this process's among several that share the trial; None where it has none beside it.
    """
    leads = place is None or place.rank == 0
    about, launch = read_json(folder / "config.json"), read_json(folder / "launch.json")
    require_code(launch.get("code"))
    registry = Registry.discover()
    config = load_config(registry, about)
    if leads:
        used = distributions(registry, str(about["experiment"]), config)
        begin(folder / "provenance.json", launch.get("argv", sys.argv), used)
    root = data_root(launch)
    inputs = {role: _input(folder, role, trial, launch) for role, trial in about.get("inputs", {}).items()}
    sets = DataSets(registry, root, Contents(folder.parent.parent / MEMORY))
    origins = Origins(about.get("data", {}), about.get("contents", {}), inputs, sets)
    if leads:
        origins.require()
        drop_states_ahead(folder)
    with Ledger(folder / LEDGER) if leads else nullcontext() as ledger:
        services = (TrialServices if leads else SilentServices)(
            trial_dir=folder,
            data_root=root,
            download=bool(launch.get("download", False)),
            wanted_device=str(launch.get("device", "auto")),
            inputs=inputs,
            ledger=ledger,
        )
        kind = registry.load("experiments", about["experiment"])
        ranks = None if place is None else _join(place, services, undivided(registry, about["experiment"], config))
        _seed(config.seed)
        loop = Loop(kind(config, services), services, stop, origins, ranks)
        limits = Limits(launch.get("memory"), launch.get("seconds")) if leads else Limits()
        with limits.watched(folder, stop, os.getpid() if place is None else os.getppid()):
            result = loop.run()
    if result is None and stop.why:
        raise OverTime(stop.why)
    if result is None:
        return STOPPED
    if not leads:
        return 0
    check_metrics(config, result)
    publish(folder, about, result, loop.seconds)
    return 0


def _join(place: Place, services: TrialServices, alone: list[str]) -> Ranks:
    """Begin to work with the other processes.

    Raises:
        UserError: the trial has to be worked on by one alone, or there are too few GPUs.
    """
    from engram.backbone.ranks import join

    for name in alone:
        raise undividable(name, int(os.environ["WORLD_SIZE"]))
    return join(services.device, place.store)


def require_code(driver: str | None) -> None:
    """Refuse to work with other code than whoever planned the trial on another machine.

    Raises:
        UserError: naming this machine and both.
    """
    if driver is not None and driver != (here := fingerprint()):
        raise must(f"the code on {socket.gethostname()}", f"the driver's ({driver})", here, "Install the same there.")


def data_root(launch: Mapping[str, Any]) -> Path:
    """Where data are: where the driver has them, or where this machine does."""
    root = Path(launch.get("data_root", "data"))
    here = os.environ.get("ENGRAM_DATA")
    return Path(here) if here and not root.is_dir() else root


def load_config(registry: Registry, about: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration in a config.json, checked again: the file may be a stranger's."""
    cls = experiment_config(registry, str(about.get("experiment")))
    checker = Checker(registry, lambda name: name, "Plan the trial again.")
    config = checker.build(cls, about.get("config", {}))
    checker.problems += config.problems() if config is not None else []
    checker.require()
    assert config is not None  # or there was a problem
    return without_defaults(registry, config)


def _input(folder: Path, role: str, trial: str, launch: Mapping[str, Any]) -> Path:
    path = Path(launch.get("inputs", {}).get(role, folder.parent / trial))
    found = Record(path)
    if found.status != "done":
        raise must(f"input {role}", "a finished trial", f"{path} ({found.damage or found.status})", "Run it first.")
    refuse_links_out(f"input {role}", path)
    return path


def _seed(seed: int) -> None:
    """Seed what is loaded: an experiment that never imports torch shall not wait for it."""
    random.seed(seed)
    if "torch" in sys.modules:
        from engram.backbone.seeding import seed_everything

        seed_everything(seed)


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
    primary = [metric.name for metric in config.metrics if metric.primary]
    if primary and not any(name in result.metrics for name in primary):
        raise TrialError(f"a metric of {', '.join(primary)} must be reported; got none. Mend the experiment.")
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
        "figures": plain_figures(folder, result.figures),
        "artifacts": dict(result.artifacts),
        "seconds": round(seconds, 3),
        "ledger": digest(folder / LEDGER),
    }
    content = json_safe(plain)
    content["content"] = finished_with(folder, about, content, Contents())
    if why := misfit("result.json", json.dumps(content)):  # nobody could read it back
        raise TrialError(f"a result must be of plain numbers, texts and lists; got {why}. Mend the experiment.")
    write_json(folder / "result.json", content, durable=True)
    tidy(folder)


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
        _flush()
        for number, old in enumerate(before, start=1):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    """Write what is left; nowhere, where the log has no room for it, or the exit code would be Python's own."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)
        sys.stdout.flush()
        sys.stderr.flush()


def _say(said: int, line: str, code: int) -> int:
    with contextlib.suppress(OSError):  # no room there either: the code says it
        os.write(said, f"{line}\n".encode())
    return code
