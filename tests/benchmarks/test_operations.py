"""Watching, stopping, reading and tidying what runs."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from engram.benchmarks.commands import logs, status
from engram.benchmarks.driving import orders
from engram.benchmarks.driving.feeder import Feeder
from engram.benchmarks.records.layout import lock
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.records.standing import failures, rate, standing
from engram.benchmarks.records.trials import Record, read_sweep, trial_names
from engram.benchmarks.records.waste import find_waste

SLOW = 'experiment = "counting.count"\nseeds = 6\n[options]\npause = 0.05\nsteps = 20\n'


@pytest.fixture
def old():
    """Have everything below a folder look as if it was written long ago."""

    def make(*folders: Path, seconds: float = 90 * 86400.0) -> None:
        then = time.time() - seconds
        for folder in folders:
            for path in (*folder.rglob("*"), folder):
                os.utime(path, (then, then), follow_symlinks=False)

    return make


def test_a_sweep_is_drained_and_gone_on_with(engram, here, put_store, wait_for):
    put_store(engram.cwd / "runs")
    (engram.cwd / "slow.toml").write_text(SLOW.replace("20", "100"))
    driver = engram.start("sweep", "slow.toml", "--workers", "2")
    wait_for(lambda: list(engram.cwd.glob("runs/trials/*/metrics.jsonl")) or driver.poll() is not None)
    seen = here("status", "slow", "--json").json["sweeps"][0]
    assert (seen["driver"], seen["trials"]) == ("running", 6)
    assert seen["where"].endswith(", local")
    assert here("stop", "slow", "--drain").code == 0
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143
    assert "draining: what runs goes on to its end, nothing more is started" in err
    statuses = [record.status for record in read_sweep(engram.cwd / "runs", "slow").records]
    assert 2 <= statuses.count("done") < 6
    assert err.endswith(f"{statuses.count('done')} of 6 trials done; the same command goes on\n")
    assert set(statuses) == {"done", "planned"}
    assert not (engram.cwd / "runs" / "sweeps" / "slow" / orders.ORDER).exists()


def test_a_sweep_is_stopped_from_elsewhere(here, put_store):
    put_store(here.cwd / "runs")
    (here.cwd / "slow.toml").write_text(SLOW.replace("20", "900"))

    def stop():
        deadline = time.monotonic() + 60
        while not list(here.cwd.glob("runs/trials/*/metrics.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.05)
        orders.give(here.cwd / "runs" / "sweeps" / "slow", orders.STOP)

    thread = threading.Thread(target=stop)
    thread.start()
    done = here("sweep", "slow.toml")
    thread.join()
    assert done.code == 143
    assert "stopping: trials save a checkpoint" in done.err
    assert done.err.endswith("0 of 6 trials done; the same command goes on\n")
    assert read_sweep(here.cwd / "runs", "slow").records[0].status == "unfinished"
    done = here("stop", "slow")
    assert done.complaints == [
        "engram: sweep slow must be one that is running; got none that is. See: engram status --out runs"
    ]
    assert here("stop", "fast").code == 2


def test_an_order_for_a_driver_that_is_gone_is_not_obeyed(tmp_path):
    orders.give(tmp_path, orders.DRAIN)
    fresh = orders.Orders(tmp_path)
    assert fresh.given() == ""
    orders.give(tmp_path, orders.STOP)
    assert fresh.given() == orders.STOP


def test_failures_are_grouped_by_what_was_said(folders):
    for seed in range(3):
        trial = folders.trial(seed=seed, state="failed")
        message = f"loss must be finite; got nan at step {seed}."
        folders.json(folders.out / "trials" / trial / "error.json", {"kind": "trial", "message": message})
    other = folders.trial("mlp", state="failed")
    records = [Record(folders.out / "trials" / trial) for trial in trial_names(folders.out)]
    groups = failures(records)
    assert [len(group.trials) for group in groups] == [3, 1]
    assert groups[0].message.startswith("loss must be finite; got nan at step ")
    assert groups[1].trials == (other,)


def test_trials_per_hour_are_those_of_late_whatever_the_clock_did(folders, old):
    folders.sweep(seeds=3)
    records = read_sweep(folders.out, "nets").records
    now = time.time()
    for index, record in enumerate(records):
        os.utime(record.folder / "result.json", (now, now - 60.0 * index))
    assert standing(records, driven=True, now=now).per_hour == pytest.approx(60.0)
    assert standing(records, driven=False, now=now).per_hour is None
    assert standing(records, driven=True, now=now - 7200).per_hour is None  # all ended in the future
    os.utime(records[0].folder / "result.json", (now, now + 7200))
    assert standing(records, driven=True, now=now).per_hour == pytest.approx(48.0)


def test_a_rate_needs_a_clock_that_goes_on():
    said = Progress(30, 100, "", at=20.0, begun=10.0, before=10)
    assert rate(said) == 2.0
    assert rate(Progress(30, 100, "", at=5.0, begun=10.0, before=10)) is None


def test_watching_ends_with_the_sweep(folders, capsys, monkeypatch, here):
    names = folders.sweep(seeds=2, states={("mlp", 0): "failed", ("mlp", 1): "new"})
    monkeypatch.setattr(status, "WATCH_SECONDS", 0.01)
    folder = folders.out / "trials" / names[3]

    def run():
        with lock(folder / "lock", patience=0, what=""), lock(folders.out / "sweeps/nets/lock", patience=0, what=""):
            time.sleep(1.0)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.2)
    done = here("status", "nets", "--watch", "--out", folders.out)
    thread.join()
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("nets: 2 of 4 done, 1 running, 1 failed")
    assert lines[-1].startswith("nets: 2 of 4 done, 1 failed")
    shown = here("status", "nets", "--out", folders.out).out
    assert "2 of 4" in shown
    assert "loss must be finite; got nan." in shown
    assert here("status", "nowhere", "--out", folders.out).code == 2


def test_what_has_not_begun_is_called_by_its_plan(folders, here):
    names = folders.sweep(seeds=2)
    shutil.rmtree(folders.out / "trials" / names[3])
    shown = here("status", "nets", "--out", folders.out).out
    assert f"{names[3]}  planned  -     backbone.train mlp seed 1" in shown


def test_watching_on_a_terminal_keeps_to_its_height(folders, here, monkeypatch):
    for seed in range(40):
        folders.trial(seed=seed, state="failed")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = here("status", "--watch", "--out", folders.out, LINES="12")
    lines = done.out.removeprefix("\x1b[H\x1b[2J").splitlines()
    whole = here("status", "--out", folders.out).out.splitlines()
    assert lines == [*whole[:10], f"and {len(whole) - 10} lines more"]


def test_the_log_of_a_trial_with_its_traceback(here, put_store):
    put_store(here.cwd / "runs")
    here("run", "counting.count", "--fail", "crash")
    (name,) = trial_names(here.cwd / "runs")
    done = here("logs", name[:6])
    assert done.code == 0
    assert "ZeroDivisionError: on purpose" in done.out
    assert done.complaints == [
        f"engram: trial {name} failed: ZeroDivisionError: on purpose (see "
        f"{here.cwd / 'runs' / 'trials' / name / 'log.txt'})"
    ]
    said = here("logs", name, "--json").json
    assert (said["status"], said["trial"]) == ("failed", name)
    assert said["traceback"] in said["log"]
    assert here("logs", "nobody").code == 2
    (here.cwd / "runs" / "trials" / name / "log.txt").write_text("")
    assert f"trial {name} has printed nothing; it is failed\n" in here("logs", name).err


def test_a_log_is_followed_to_the_end_of_its_trial(folders, here, monkeypatch):
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    folder = folders.out / "trials" / folders.trial(state="interrupted")
    (folder / "log.txt").write_text("first\n")

    def run():
        with lock(folder / "lock", patience=0, what=""), (folder / "log.txt").open("a") as log:
            time.sleep(0.3)
            print("last", file=log, flush=True)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    done = here("logs", folder.name, "--follow", "--out", folders.out)
    thread.join()
    assert done.out == "first\nlast\n"


def test_what_nobody_needs_is_listed_and_removed(folders, here, old, tmp_path):
    done, pruned, loose, kept, planned = (
        folders.out / "trials" / folders.trial(seed=seed, state=state)
        for seed, state in enumerate(("done", "interrupted", "interrupted", "done", "interrupted"))
    )
    for folder in (done, pruned, loose, planned):
        (folder / "ckpt").mkdir()
        (folder / "ckpt" / "state-000000001.pt").write_bytes(b"x" * 1000)
        (folder / "ckpt" / "state-000000001.json").write_text("{}")
    (planned / "ckpt" / "state-000000002.pt").write_bytes(b"torn")
    folders.json(pruned / "pruned.json", {"why": "worse"})
    half = [
        kept / ".result.json.123",
        kept / "model" / ".model.json.123",
        folders.out / ".contents.json.123",
        folders.out / ".node-here-123-ab",
        folders.out / "sweeps" / "some" / ".lease.123.0a1b2c3d",
        folders.out / "mlartifacts" / "1" / "ab" / "artifacts" / ".report.html.123",
    ]
    for path in half:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("torn")
    somebodys = [folders.out / ".profile.123", folders.out / ".node-version"]  # whose home it may be
    for path in somebodys:
        path.touch()
    fetched = folders.out / "models" / ("ab" * 16) / ".fetching-cd"
    (fetched / kept.name).mkdir(parents=True)
    cells = [{"trial": each.name, "options": {}, "seed": 0} for each in (pruned, planned)]
    folders.json(folders.out / "sweeps" / "some" / "plan.json", {"trials": cells, "axes": {}, "seeds": []})
    cache = here.cwd / "home" / ".cache" / "engram" / "kernels"
    scratch = cache / "tmpabc"
    scratch.mkdir(parents=True)
    (scratch / "scan.c").write_text("torn")
    (cache / "scan.so").write_bytes(b"old")
    (cache / "fresh.so").write_bytes(b"new")
    old(folders.out, cache)
    os.utime(cache / "fresh.so")
    (cache / ".fresh.json.123").write_text("who knows")
    wanted = {
        done / "ckpt",
        pruned / "ckpt",
        loose,
        *half,
        planned / "ckpt" / "state-000000002.pt",
        cache / "scan.so",
        scratch,
        fetched,
    }
    results = {path: path.read_bytes() for path in folders.out.rglob("result.json")}
    listed = here("clean", "--out", folders.out, "--json", HOME=str(here.cwd / "home")).json
    assert {Path(row["path"]) for row in listed["waste"]} == wanted
    assert all(path.exists() for path in wanted)
    assert not listed["removed"]
    assert "--yes removes them" in here("clean", "--out", folders.out).err
    with lock(done / "lock", patience=0, what=""):  # it runs again
        removed = here("clean", "--yes", "--out", folders.out)
    assert removed.code == 0
    assert {path for path in wanted if path.exists()} == {done / "ckpt"}
    assert {path: path.read_bytes() for path in folders.out.rglob("result.json")} == results
    assert here("clean", "--yes", "--out", folders.out).code == 0
    assert "nothing to remove" in here("clean", "--yes", "--out", folders.out).out
    assert all(path.exists() for path in somebodys)


def test_a_trial_whose_config_is_damaged_has_its_line(folders, here):
    trials = [folders.trial(seed=seed) for seed in (0, 1)]
    cells = [{"trial": trial, "options": {}, "seed": seed} for seed, trial in enumerate(trials)]
    plan = {"experiment": "counting.count", "trials": cells, "axes": {}, "seeds": [0, 1]}
    folders.json(folders.out / "sweeps" / "some" / "plan.json", plan)
    (folders.out / "trials" / trials[1] / "config.json").write_bytes(b"\xff")
    shown = here("status", "some", "--out", folders.out)
    assert shown.code == 0, shown.err
    assert f"{trials[1]}  damaged" in shown.out


def test_nothing_is_waste_beside_a_damaged_record_of_a_search(folders, here):
    sweep = folders.out / "sweeps" / "some"
    folders.json(sweep / "plan.json", {"trials": [], "axes": {}, "seeds": []})
    (sweep / "search.jsonl").write_text("nonsense\n")
    refused = here("clean", "--out", folders.out)
    assert refused.code == 2
    assert "search.jsonl must be whole; got line 1 of" in refused.err


def test_registered_models_that_nobody_reads_are_listed(folders, old):
    models, somebodys = folders.out / "models" / ("ab" * 16), folders.out / "models" / "vision" / "mine"
    for each in (models / "unread", models / ".fetching-abc", models / "read", somebodys):
        each.mkdir(parents=True)
        (each / "config.json").write_text("{}")
    old(folders.out)
    os.utime(models / "read" / "config.json")
    found = {each.path for each in find_waste(folders.out)}
    assert {models / "unread", models / ".fetching-abc"} == {path for path in found if "models" in path.parts}


def test_who_stops_the_last_telling_is_told_of_the_trials_and_what_completes_the_store(here, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Feeder, "finish", stop)
    suite = here.cwd / "two.toml"
    suite.write_text('experiment = "counting.count"\nseeds = 2\n')
    swept = here("sweep", suite)
    assert swept.code == 0 and swept.out.count("done") == 2
    assert "not all trials are in MLflow yet (it was asked to stop); engram sync" in swept.err


def test_a_trial_that_began_to_run_keeps_all_it_has(folders, old):
    folder = folders.out / "trials" / folders.trial(state="interrupted")
    old(folders.out)
    (waste,) = (each for each in find_waste(folders.out) if each.trial is not None)
    assert waste.path == folder
    with lock(folder / "lock", patience=0, what=""):
        assert not waste.remove()
    assert (folder / "config.json").exists()


def test_what_trials_that_have_not_begun_may_be_made_from_is_kept(folders, old):
    folder = folders.out / "trials" / folders.trial(state="interrupted")
    plan = folders.out / "sweeps" / "some" / "plan.json"
    cells = [{"trial": "0123456789abcdef", "options": {}, "seed": 0}]
    folders.json(plan, {"trials": cells, "axes": {}, "seeds": []})
    old(folders.out)
    assert folder not in {waste.path for waste in find_waste(folders.out)}
    plan.unlink()
    assert folder in {waste.path for waste in find_waste(folders.out)}


def test_what_cannot_be_removed_is_said(folders, here, monkeypatch):
    folder = folders.out / "trials" / folders.trial()
    (folder / "ckpt").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("engram.benchmarks.records.waste._remove", refuse)
    done = here("clean", "--yes", "--out", folders.out)
    assert done.code == 1
    assert done.complaints == [f"engram: {folder / 'ckpt'} could not be removed: Permission denied"]


@pytest.mark.slow
def test_every_bad_end_is_that_of_one_trial_alone(engram, put_store, workers_in):
    """In one sweep: a crash, a segmentation fault, one that hangs, one that hoards memory, and good ones."""
    put_store(engram.cwd / "runs")
    ends = ["well", "raise", "segfault", "hang", "hoard"]
    (engram.cwd / "mixed.toml").write_text(f'experiment = "toy.wait"\nseeds = 2\n[grid]\nend = {ends}\n')
    limits = ("--time", "5s", "--memory", "1500MB", "--retries", "1")
    done = engram("sweep", "mixed.toml", "--workers", "2", "--json", *limits)
    assert done.code == 1
    statuses = [(row["options"]["end"], row["status"]) for row in done.json["trials"]]
    kinds = {"well": "done", "raise": "crash", "segfault": "killed", "hang": "time", "hoard": "memory"}
    assert sorted(statuses) == sorted((end, kinds[end]) for end in ends for _ in range(2))
    why = {each["kind"]: each["message"] for each in done.json["failures"]}
    assert "SIGSEGV" in why["killed"]
    assert "(--time)" in why["time"]
    assert "(--memory)" in why["memory"]
    assert done.err.count("attempt 2 of 2") == 2  # those whose process was killed, and no others
    assert not workers_in(engram.cwd / "runs")
    seen = engram("status", "mixed", "--json").json["sweeps"][0]
    assert (seen["trials"], seen["done"], seen["failed"]) == (10, 2, 6)
    assert sorted(len(group["trials"]) for group in seen["failures"]) == [2, 2, 2]
