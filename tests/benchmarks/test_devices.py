"""``--devices N``: one trial by several processes, and every way it can end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engram.backbone.errors import UserError
from engram.backbone.options.inherited import made_from
from engram.backbone.registry import Registry
from engram.benchmarks.commands.flags import Running
from engram.benchmarks.commands.run import setting
from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.driving.launch.jobs import SlurmJobs
from engram.benchmarks.driving.launch.ray_connection import as_options, wanted
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.devices import undivided
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.ranks import Outcome, Place, _outcome
from engram.benchmarks.worker.stopping import Stop
from engram.benchmarks.worker.trial import _join, work

SMALL = {"backbone": "lenet5", "epochs": 1, "precision": "fp32"}


@pytest.fixture
def plan(tmp_path):
    """``plan(devices, name, **options)``: the folder of one trial of backbone.train, below that name."""

    def write(devices, name="runs", experiment="backbone.train", **options):
        out = tmp_path / name
        planner = Planner(Registry.discover(), out, DataSets(Registry.discover(), tmp_path))
        trial = planner.add(experiment, {**SMALL, **options})
        write_trial(trial, RunSetting(out=out, data_root=tmp_path, argv=[], device="cpu", devices=devices))
        return trial.folder

    return write


def rank_of(process):
    words = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next((int(word[5:]) for word in words if word.startswith(b"RANK=")), None)


@pytest.fixture
def ranks_in(workers_in):
    """Process ids of the processes of a trial, by their numbers."""

    def find(folder):
        found = {}
        for process in workers_in(folder):
            try:
                found[rank_of(process)] = process
            except OSError:
                continue
        return found

    return find


def measured(folder):
    return {
        name: value
        for name, value in Record(folder).metrics.items()
        if name not in ("train_seconds", "images_per_second")
    }


def lines(folder):
    return {(line.name, line.step): line.value for line in Record(folder).ledger()}


def same(folder, other):
    assert measured(folder) == pytest.approx(measured(other), rel=1e-4)
    assert lines(folder) == pytest.approx(lines(other), rel=1e-4)


def test_two_processes_do_one_trial(engram, plan, workers_in):
    both, alone = plan(2), plan(1, "alone")
    assert both.name == alone.name
    done = engram("exec", both)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert work(alone, Stop()) == 0
    same(both, alone)
    there = {path.name for path in both.iterdir()}
    assert there == {path.name for path in alone.iterdir()} | {"lock", "log.txt"}
    assert "resumes" not in json.loads((both / "provenance.json").read_text())
    assert not workers_in(both)
    assert engram("exec", both).code == 0


HEAD = "engram: --devices must be 1 for head causal.frontdoor, whose numbers would be others; got 2. Leave it out."


def test_what_cannot_be_divided_is_refused_before_anything_runs(here):
    words = ("run", "backbone.train", "--adapter", "feedback.equilibrium", "--objective", "lff", "--devices", "2")
    done = here(*words)
    assert done.code == 2
    assert done.complaints == [
        f"engram: --devices must be 1 for {name}, whose numbers would be others; got 2. Leave it out."
        for name in ("adapter feedback.equilibrium", "objective lff")
    ]
    assert not list((here.cwd / "runs" / "trials").glob("*/launch.json"))
    search = (
        '[search]\nmethod = "random"\nobjective = "validation/accuracy"\ntrials = 1\n[search.space]\nlr = [0.1, 0.2]\n'
    )
    options = '[options]\ndataset = "digits"\nobjective = "lff"\n'
    (here.cwd / "s.toml").write_text(f'experiment = "backbone.train"\n{options}{search}')
    assert here("sweep", "s.toml", "--devices", "2").complaints == done.complaints[1:]
    told = 'objective = ["cross-entropy", "lff"]\nadapter = ["feedback.equilibrium"]'
    choices = search.replace("lr = [0.1, 0.2]", told)
    choices += 'head = { values = ["linear", "causal.frontdoor"], when = { objective = "cross-entropy" } }\n'
    (here.cwd / "s.toml").write_text(f'experiment = "backbone.train"\n[options]\ndataset = "digits"\n{choices}')
    assert here("sweep", "s.toml", "--devices", "2").complaints == [*done.complaints, HEAD]
    assert not list((here.cwd / "runs" / "sweeps").glob("*"))
    done = here("run", "continual.stream", "--devices", "2")
    assert (done.code, done.complaints[0][:45]) == (2, "engram: --devices must be 1 for continual.str")


def test_a_worker_refuses_as_well(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--devices must be 1 for objective lff, whose numbers would be others; got 2"):
        _join(Place(0, None), None, ["objective lff"])


def test_every_experiment_says_whether_it_can():
    registry = Registry.discover()
    able = {name for _, name, entry in registry.entries("experiments") if entry.data_parallel}
    assert {"backbone.train", "snn.train"} <= able
    for name in able:
        config = registry.options("experiments", name).resolve({})
        assert undivided(registry, name, config) == []
        assert {role for _, role in made_from(type(config))} <= {"trained", "teacher", "reference"}


@pytest.mark.parametrize(
    ("flags", "cores", "gpus", "device"),
    [
        ({}, 4, 4, "auto"),
        ({"device": "cuda", "cores": 16}, 16, 4, "cuda"),
        ({"device": "cpu"}, 4, None, "cpu"),
        ({"gpus": 0, "cores": 8}, 8, 0, "cpu"),
    ],
)
def test_a_cluster_reserves_what_all_processes_of_a_trial_need(flags, cores, gpus, device):
    for where in ({"ray": "auto"}, {"slurm": "gpu"}):
        how = setting(Running(devices=4, **where, **flags), [])
        assert (how.resources, how.device) == (Resources(cores=cores, gpus=gpus), device)
    assert as_options(wanted(how.resources)) == {"num_cpus": cores, "num_gpus": gpus or 0, "memory": None}
    wishes = {"partition": "gpu", "cpus_per_task": cores} | ({"gpus_per_node": gpus} if gpus else {})
    assert SlurmJobs._wishes(SimpleNamespace(partition="gpu"), how.resources) == wishes
    assert setting(Running(devices=4, **flags), []).resources.cores == flags.get("cores")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ["--gpus must be 4, one for each of --devices, or 0 for processes without; got 2. Leave it out."]),
        (("--device", "cuda"), ["--gpus must be 4, one for each of --devices; got 2. Leave it out."]),
        (("--device", "cpu"), ["--gpus must be 0 for processes without; got 2. Leave it out."]),
    ],
)
def test_a_trial_that_gets_too_little_for_its_processes_is_refused(here, words, said):
    less = "--cores must be at least 4, one for each of --devices; got 3. Raise it, or leave it out."
    for where in ("--ray", "--slurm"):
        done = here("run", "backbone.train", "--devices", "4", where, "auto", "--cores", "3", "--gpus", "2", *words)
        assert (done.code, done.complaints) == (2, [f"engram: {line}" for line in (less, *said)])
    done = here("run", "backbone.train", "--devices", "4", "--cores", "3")
    assert (done.code, done.complaints) == (2, [f"engram: {less}"])


CRASH = {"kind": "crash", "message": "RuntimeError: Connection closed by peer", "traceback": "x"}
AGAIN = "the same command goes on with it"
USER = {"kind": "user", "message": "--lr must be better; got 1. Mend it.", "traceback": ""}


@pytest.mark.parametrize(
    ("codes", "told", "code", "said"),
    [
        ([0, None], {}, 0, ""),
        ([143, 143], {}, 143, ""),
        ([2, None], {0: USER}, 2, ""),
        ([4, None], {}, 4, ""),
        ([1, 1], {0: CRASH, 1: CRASH}, 1, ""),
        ([1, 2], {0: CRASH, 1: USER}, 2, USER["message"]),
        ([1, 1], {0: CRASH}, 1, "process 1 of its 2 ended with 1"),
        ([1, -9], {0: CRASH}, 1, f"process 1 of its 2 was ended by SIGKILL (out of memory?); {AGAIN}"),
        ([-11, None], {}, 1, f"process 0 of its 2 was ended by SIGSEGV; {AGAIN}"),
    ],
)
def test_who_failed_first_says_why(tmp_path, codes, told, code, said):
    for rank, each in told.items():
        (tmp_path / f"error-{rank}.json").write_text(json.dumps(each))
    (tmp_path / "trial").mkdir()
    assert _outcome(tmp_path / "trial", tmp_path, codes) == Outcome(code, said)
    written = tmp_path / "trial" / "error.json"
    assert (json.loads(written.read_text())["message"] if written.exists() else "") == said


def test_the_folder_where_processes_met_goes_with_the_last_that_nobody_watches(tmp_path):
    folder = tmp_path / "met"
    folder.mkdir()
    places, deserted = [Place(rank, folder) for rank in range(2)], Stop()
    deserted.deserted = True
    for place in places:
        place.fail({"message": "it lost its neighbour"})
    places[0].leave(Stop())
    places[1].leave(deserted)
    assert [path.name for path in folder.iterdir()] == ["error-0.json"]
    places[0].leave(deserted)
    assert not folder.exists()


LONG = {"epochs": 40, "batch_size": 8, "backbone": "vgg-tiny"}
"""A training of some minutes at most."""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_process_killed_ends_all_and_any_number_goes_on(engram, plan, ranks_in, wait_for, kill_hard, victim):
    options = {**LONG, "epochs": 4}
    folder, alone = plan(2, **options), plan(1, "alone", **options)
    process = engram.start("exec", folder, ENGRAM_CHECKPOINT_SECONDS="0.1")
    wait_for(lambda: list((folder / "ckpt").glob("state-*.json")), seconds=300)
    kill_hard(ranks_in(folder)[victim])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"process {victim} of its 2 was ended by SIGKILL (out of memory?); {AGAIN}" in err
    assert json.loads((folder / "error.json").read_text())["kind"] == "killed"
    assert not ranks_in(folder)
    plan(3 if victim else 1, **options)  # launch.json anew, with another number
    assert engram("exec", folder).code == 0
    assert "resumed at step" in (folder / "log.txt").read_text()
    assert work(alone, Stop()) == 0
    assert measured(folder)["test/accuracy"] == pytest.approx(measured(alone)["test/accuracy"], abs=0.02)
    assert lines(folder).keys() == lines(alone).keys()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "driver", "SIGKILL"])
def test_none_outlives_who_watches_them(engram, plan, ranks_in, wait_for, how, tmp_path):
    folder, place = plan(2, **LONG), tmp_path / "place"
    place.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "engram.benchmarks", "exec", str(folder)],
        env=engram.environment() | {"ENGRAM_DRIVEN": "1", "ENGRAM_CHECKPOINT_SECONDS": "1000", "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
    )
    wait_for(lambda: (folder / "progress.json").exists(), seconds=300)
    assert set(ranks_in(folder)) == {0, 1}
    if how == "driver":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, how))
    assert process.wait(timeout=300) == (-9 if how == "SIGKILL" else 143)
    wait_for(lambda: not ranks_in(folder), seconds=300)
    assert not list(place.glob("engram-*"))
    process.stdin.close()
    assert len(list((folder / "ckpt").glob("state-*.pt"))) == 1
    plan(2, **LONG)
    again = engram.start("exec", folder)
    wait_for(lambda: "resumed at step" in (folder / "log.txt").read_text(), seconds=300)
    again.terminate()
    again.communicate(timeout=300)
    assert again.returncode == 143
    assert not ranks_in(folder)


@pytest.mark.slow
def test_torchrun_starts_them_as_well(engram, plan):
    both, alone = plan(2), plan(1, "alone")
    words = ["--standalone", "--nproc-per-node", "2", "-m", "engram.benchmarks", "exec", str(both)]
    env = engram.environment() | {"GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([sys.executable, "-m", "torch.distributed.run", *words], env=env, check=True, timeout=300)
    assert work(alone, Stop()) == 0
    same(both, alone)


@pytest.mark.slow
def test_what_torchrun_leaves_behind_when_it_is_killed_saves_a_checkpoint(engram, plan, ranks_in, wait_for):
    folder = plan(2, **LONG)
    words = ["--standalone", "--nproc-per-node", "2", "-m", "engram.benchmarks", "exec", str(folder)]
    env = engram.environment() | {"GLOO_SOCKET_IFNAME": "lo", "ENGRAM_CHECKPOINT_SECONDS": "1000"}
    process = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *words], env=env)
    wait_for(lambda: (folder / "progress.json").exists(), seconds=300)
    process.kill()
    process.wait()
    wait_for(lambda: not ranks_in(folder), seconds=300)
    assert len(list((folder / "ckpt").glob("state-*.pt"))) == 1


@pytest.mark.slow
def test_two_nodes_of_torchrun(engram, plan):
    both, alone = plan(2), plan(1, "alone")
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "-m", "engram.benchmarks", "exec"]
    env = engram.environment() | {"GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", *words, str(both)]
    agents = [subprocess.Popen(command, env=env) for _ in range(2)]
    try:
        assert [each.wait(timeout=300) for each in agents] == [0, 0]
    finally:
        for each in agents:
            each.kill()
            each.wait()
    assert work(alone, Stop()) == 0
    same(both, alone)


@pytest.mark.slow
def test_a_spiking_network_by_two(engram, plan):
    options = {"experiment": "snn.train", "backbone": "vgg-tiny", "steps": 2}
    both, alone = plan(2, **options), plan(1, "alone", **options)
    assert engram("exec", both).code == 0
    assert work(alone, Stop()) == 0
    assert lines(both).keys() == lines(alone).keys()
    name = ("train/loss", max(step for _, step in lines(alone)))
    assert lines(both)[name] == pytest.approx(lines(alone)[name], rel=1e-2)


@pytest.mark.skipif(
    os.environ.get("ENGRAM_GPUS", "0") < "2", reason="set ENGRAM_GPUS to 2 or more where there are as many"
)
def test_two_gpus(engram, plan):
    both, alone = plan(2), plan(1, "alone")
    for folder in (both, alone):
        launch = json.loads((folder / "launch.json").read_text())
        (folder / "launch.json").write_text(json.dumps({**launch, "device": "cuda"}))
        assert engram("exec", folder).code == 0
    same(both, alone)
