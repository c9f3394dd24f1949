"""Workers that are forked: as good as new processes, and no less apart from each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.driving.launch import local, process
from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.driving.launch.local import LocalLauncher
from engram.benchmarks.driving.launch.warm import POSSIBLE, Forked
from engram.benchmarks.driving.launch.worker import Process
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.stopping import STOPPED

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="processes cannot be forked here")


@pytest.fixture
def planned(tmp_path, with_plugins, engram, monkeypatch):
    """``planned(out, seed, experiment="counting.count", **options)``: the folder of a trial that can be started."""
    for key, value in engram.environment().items():
        monkeypatch.setenv(key, value)

    def plan(seed, experiment="counting.count", out="runs", **options):
        registry = Registry.discover()
        planner = Planner(registry, tmp_path / out, DataSets(registry, tmp_path))
        trial = planner.add(experiment, {"seed": seed, **options})
        write_trial(trial, RunSetting(out=tmp_path / out, data_root=tmp_path, argv=[]))
        return trial.folder

    return plan


@pytest.fixture
def launcher(wait_for):
    """A launcher that has started a trial of counting already, so that the next is forked."""
    made = LocalLauncher(2)
    made._servers["counting.count"] = made._servers["backbone.train"] = None

    def ended(folder):
        found = {}
        wait_for(lambda: found.update(made.finished()) or folder in found, seconds=120)
        return found[folder]

    made.ended = ended
    yield made
    made.kill()
    wait_for(lambda: made.finished() or not made._running)
    made.close()


def held(launcher, folder):
    return launcher._running[folder].worker


def server_of(launcher, experiment="counting.count"):
    return launcher._servers[experiment]


def test_a_forked_worker_says_what_a_new_process_says(planned, launcher):
    """To the last bit: a training, whose second seed comes after another trial of the same server."""
    options = {"epochs": 1, "backbone": "mlp"}
    for seed in (0, 1):
        folder = planned(seed, "backbone.train", **options)
        launcher.start(folder, Resources())
        assert isinstance(held(launcher, folder), Forked)
        assert launcher.ended(folder).code == 0
    alone = planned(1, "backbone.train", out="alone", **options)
    done = subprocess.run(process.command(alone), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0
    results = [Record(each).result for each in (folder, alone)]
    assert results[0]["content"] == results[1]["content"]
    weights = [(each / "model" / "model.safetensors").read_bytes() for each in (folder, alone)]
    assert weights[0] == weights[1]
    said = [Record(each).provenance for each in (folder, alone)]
    assert {key: value for key, value in said[0].items() if "argv" not in key} == {
        key: value for key, value in said[1].items() if "argv" not in key
    }


def test_the_first_of_an_experiment_is_a_new_process(planned, wait_for):
    first = LocalLauncher(1)
    folder = planned(0)
    first.start(folder, Resources())
    assert isinstance(held(first, folder), Process)
    wait_for(first.finished)
    first.start(folder := planned(1), Resources())
    assert isinstance(held(first, folder), Forked)
    first.stop()  # before it is there
    ended = {}
    wait_for(lambda: ended.update(first.finished()) or ended)
    assert ended[folder].code in (STOPPED, 0, -signal.SIGTERM)
    first.close()


def test_exit_codes_and_last_words_come_back(planned, launcher):
    folders = [planned(0, fail=how) for how in ("never", "user", "trial", "crash")]
    codes = []
    for folder in folders:
        launcher.start(folder, Resources())
        codes.append(launcher.ended(folder).code)
    assert codes == [0, 2, 1, 1]
    assert "on purpose" in (folders[3] / "log.txt").read_text()
    assert [Record(folder).status for folder in folders] == ["done", "failed", "failed", "failed"]


def test_signals_reach_a_forked_worker(planned, launcher, wait_for):
    stopped, killed = planned(0, steps=900, pause=0.05), planned(1, steps=900, pause=0.05)
    for folder in (stopped, killed):
        launcher.start(folder, Resources())
    wait_for(lambda: launcher.finished() or all((each / "metrics.jsonl").exists() for each in (stopped, killed)))
    launcher.stop(frozenset((stopped,)))
    launcher.kill(frozenset((killed,)))
    ended = {}
    wait_for(lambda: ended.update(launcher.finished()) or len(ended) == 2)
    assert (ended[stopped].code, ended[killed].code) == (STOPPED, -signal.SIGKILL)


def test_a_forked_worker_is_listed_by_its_trial(planned, launcher, wait_for, workers_in):
    folder = planned(0, steps=900, pause=0.05)
    launcher.start(folder, Resources())
    wait_for(lambda: launcher.finished() or (folder / "metrics.jsonl").exists())
    (process,) = workers_in(folder.parents[1])
    title = f"engram {folder.name} counting.count"
    assert Path(f"/proc/{process}/cmdline").read_bytes().rstrip(b"\0").decode() == title
    assert Path(f"/proc/{process}/comm").read_text() == f"{title[:15]}\n"
    server = Path(f"/proc/{server_of(launcher)._process.pid}/cmdline").read_bytes().split(b"\0")
    assert server[-3:] == [b"warm", b"counting.count", b""]


def test_a_server_that_is_killed_loses_no_trial(planned, launcher, wait_for):
    folder, second = planned(0, steps=20, pause=0.05), planned(1)
    launcher.start(folder, Resources())
    wait_for(lambda: launcher.finished() or (folder / "metrics.jsonl").exists())
    killed = server_of(launcher)
    os.kill(killed._process.pid, signal.SIGKILL)
    assert launcher.ended(folder).code == 0
    launcher.start(second, Resources())
    assert launcher.ended(second).code == 0
    assert server_of(launcher) is not killed
    third = planned(2, steps=900, pause=0.05)  # both are killed: nobody knows how it ended
    launcher.start(third, Resources())
    wait_for(lambda: launcher.finished() or (third / "metrics.jsonl").exists())
    os.kill(server_of(launcher)._process.pid, signal.SIGKILL)
    launcher.kill()
    ended = launcher.ended(third)
    assert (ended.code, ended.words) == (None, "its process is gone")


def test_a_server_that_dies_before_its_first_worker_is_not_tried_again(planned, launcher, monkeypatch):
    monkeypatch.setattr("engram.benchmarks.driving.launch.warm.command", lambda experiment: ["false"])
    for seed in (0, 1):
        folder = planned(seed)
        launcher.start(folder, Resources())
        assert launcher.ended(folder).code == 0
    assert server_of(launcher).unfit


def test_code_that_changed_is_imported_anew(planned, launcher, site):
    folder = planned(0)
    launcher.start(folder, Resources())
    assert launcher.ended(folder).code == 0
    before = server_of(launcher)
    os.utime(site / "counting" / "count.py")  # another test may have imported another copy
    folder = planned(1)
    launcher.start(folder, Resources())
    assert launcher.ended(folder).code == 0
    assert before.retired
    assert not before.unfit
    folder = planned(2)
    launcher.start(folder, Resources())
    assert launcher.ended(folder).code == 0
    assert server_of(launcher) is not before
    assert server_of(launcher).proven


def test_other_cores_need_another_process(planned, launcher):
    first, other = planned(0), planned(1)
    launcher.start(first, Resources(cores=1))
    launcher._ours["OMP_NUM_THREADS"] = "3"
    launcher.start(other, Resources(cores=1))
    assert isinstance(held(launcher, first), Forked)
    assert isinstance(held(launcher, other), Process)
    assert launcher.ended(other).code == 0


def test_each_slot_has_a_device_of_its_own(planned, launcher, monkeypatch):
    launcher._ours["CUDA_VISIBLE_DEVICES"] = "4,7"
    found = []
    monkeypatch.setattr(LocalLauncher, "_forked", lambda self, folder, log, env: found.append(env))
    for seed in (0, 1):
        launcher.start(planned(seed, steps=900, pause=0.05), Resources())
    launcher.kill(frozenset(list(launcher._running)[:1]))
    launcher.ended(next(iter(launcher._running)))
    launcher.start(planned(2, steps=900), Resources())
    assert [env["CUDA_VISIBLE_DEVICES"] for env in found] == ["4", "7", "4"]


def test_a_process_with_another_thread_is_not_fit_to_be_forked(monkeypatch):
    code = "from engram.benchmarks.worker.warm import fit\nimport threading\nprint(fit())\n"
    code += "threading.Thread(target=threading.Event().wait, daemon=True).start()\nprint(fit())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_late_import_of_torch_is_refused_in_a_fork_too(planned, launcher, monkeypatch):
    """The server imports what the experiment does and nothing else."""
    folder = planned(0)
    launcher.start(folder, Resources())
    assert launcher.ended(folder).code == 0
    maps = Path(f"/proc/{server_of(launcher)._process.pid}/maps").read_text()
    assert "libtorch" not in maps


def test_where_nothing_can_be_forked_workers_are_processes(planned, launcher, monkeypatch):
    monkeypatch.setattr(local, "POSSIBLE", False)
    folder = planned(0)
    launcher.start(folder, Resources())
    assert isinstance(held(launcher, folder), Process)
    assert launcher.ended(folder).code == 0


def test_memory_of_a_server_does_not_grow(planned, launcher):
    def private():
        text = Path(f"/proc/{server_of(launcher)._process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous"))

    sizes = []
    for seed in range(6):
        launcher.start(folder := planned(seed), Resources())
        assert launcher.ended(folder).code == 0
        sizes.append(private())
    assert sizes[-1] - sizes[1] < 2048  # kB


@pytest.mark.parametrize("possible", [True, False])
def test_waiting_ends_when_a_trial_does(planned, launcher, monkeypatch, possible):
    monkeypatch.setattr(local, "POSSIBLE", possible)
    folder, begun = planned(0), time.monotonic()
    launcher.start(folder, Resources())
    assert isinstance(held(launcher, folder), Forked) == possible
    while folder not in launcher.finished():
        launcher.wait(600.0)
    launcher.wait(0.01)  # for nothing that runs
    assert time.monotonic() - begun < 300
