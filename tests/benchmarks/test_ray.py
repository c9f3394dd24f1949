"""What a Ray cluster must be for trials, without one: tests/clusters has a real one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.driving.launch import ray
from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.driving.launch.packing import pack
from engram.benchmarks.driving.launch.ray import RayLauncher, Task, _drop_probes
from engram.benchmarks.driving.launch.ray_connection import check


@pytest.mark.parametrize("address", ["local", "ray://host:1", "nowhere", "host:x", ""])
def test_no_cluster_is_started_silently(address):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"--ray must be auto or HOST:PORT of a running cluster; got "):
        check(address, Resources())


def test_where_nobody_answers():
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"must be the address of a running cluster; got 127.0.0.1:1 \(.*refused\)"):
        check("127.0.0.1:1", Resources())


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray must have ray; got none. pip install 'engram\[ray\]'"):
        check("auto", Resources())


def test_what_killed_drivers_of_this_machine_left_is_removed(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = f".node-{socket.gethostname()}"
    kept = {".node-elsewhere-1-ab", f"{here}-{os.getpid()}-ab", f"{here}-x-ab"}
    for name in (*kept, f"{here}-{gone.pid}-ab"):
        (tmp_path / name).touch()
    _drop_probes(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_what_comes_back_to_a_full_disk_is_lost_and_nothing_else(tmp_path):
    exceptions = pytest.importorskip("ray").exceptions
    there, here = tmp_path / "there" / "trial", tmp_path / "here" / "trial"
    there.mkdir(parents=True)
    (there / "result.json").write_text("{}")
    here.parent.write_text("no folder")
    launcher = RayLauncher.__new__(RayLauncher)  # without a cluster
    launcher._ray = SimpleNamespace(get=lambda ref: ref, exceptions=exceptions)
    ended = launcher._outcome(here, Task((0, "", pack({"trial": there}))))
    assert ended.code is None and "could not be written" in ended.words


def test_who_did_not_hear_that_it_is_to_stop_is_asked_again(tmp_path, monkeypatch):
    asked = []
    launcher = RayLauncher.__new__(RayLauncher)  # without a cluster
    launcher._ray = SimpleNamespace(cancel=lambda ref, force: asked.append((ref, force)))
    launcher._tasks = {tmp_path: (task := Task("task"))}
    launcher.stop()
    launcher.stop()
    launcher._press(task)
    assert asked == [("task", False)]
    monkeypatch.setattr(ray, "AGAIN_SECONDS", -1.0)
    launcher._press(task)
    assert asked == [("task", False)] * 2
    launcher.kill()
    assert asked == [("task", False)] * 3
