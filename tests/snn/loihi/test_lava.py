"""Lava's environment and the asking of it: what happens where it is not, breaks, or takes too long."""

import time
from pathlib import Path

import pytest
import torch

from engram.backbone.contract import Places
from engram.backbone.errors import TrialError, UserError
from engram.snn.loihi.lava import driver, environment
from engram.snn.loihi.lava.driver import agreement, compared, run_in_lava
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Integrator, Population, Synapses
from engram.snn.loihi.simulator import Simulator

KEEP = ("spikes", "u", "v")


@pytest.fixture(scope="module")
def lava():
    try:
        return environment.find()
    except UserError:
        pytest.skip("no environment with Lava")


def chain(weight, *, start=0, back=None, delay=1, **neurons):
    """Two inputs, two neurons, and one that adds up."""
    first = Synapses(source=INPUT, kind="dense", weight=torch.tensor(weight, dtype=torch.int32), in_shape=(1, 1, 2))
    again = () if back is None else (Synapses(source="read", kind="dense", weight=back, in_shape=(1,), delay=delay),)
    read = Synapses(source="first", kind="dense", weight=torch.tensor([[3, 5]], dtype=torch.int32), in_shape=(2,))
    lif = LIF(start=torch.tensor([start], dtype=torch.int32), **neurons)
    return ChipNetwork(
        input=Input(shape=(1, 1, 2), bits=4),
        populations=(
            Population(name="first", shape=(2,), neurons=lif, synapses=(first, *again)),
            Population(name="read", shape=(1,), neurons=Integrator(), synapses=(read,)),
        ),
        steps=4,
    )


def test_where_the_two_differ_is_said():
    network = chain([[10, 0], [0, 10]], vth=50)
    images = torch.tensor([[[[3, 0]]], [[[0, 9]]]], dtype=torch.int32)
    ours = Simulator(network).run(images, KEEP).kept
    theirs = {name: {what: value.clone().int() for what, value in kept.items()} for name, kept in ours.items()}
    assert compared(network, ours, theirs).share == 1.0
    theirs["first"]["v"][2, 1, 0] += 7
    theirs["read"]["u"][1, 1, 0] += 7
    found = compared(network, ours, theirs)
    before = int(ours["first"]["v"][2, 1, 0])
    assert found.first == f"first: v of neuron (0,) at step 3 of image 2 is {before}, and {before + 7} in Lava"
    assert found.shares["first"] == {"spikes": 1.0, "u": 1.0, "v": 1 - 1 / 16} and found.share == 1 - 1 / 8


def test_many_images_are_compared_a_part_at_a_time(monkeypatch):
    network = chain([[10, 0], [0, 10]], vth=50)
    images = torch.randint(0, 16, (5, 1, 1, 2), dtype=torch.int32)
    seen = []

    def wrong_once(jobs, how):
        kept = [Simulator(job.network).run(job.images, KEEP).kept for job in jobs]
        kept = [{n: {w: x.clone().int() for w, x in each.items()} for n, each in one.items()} for one in kept]
        if seen:
            kept[0]["read"]["v"][3, 1, 0] += 1
        seen.append(len(jobs[0].images))
        return kept

    monkeypatch.setattr(driver, "run_jobs", wrong_once)
    monkeypatch.setattr(driver, "MEMORY", 3 * 4 * 4 * 3 * 3 + 1)
    found = agreement(network, images)
    assert seen == [3, 2] and found.values == 5 * 4 * 3 * 3
    assert found.shares["read"]["v"] == pytest.approx(1 - 1 / 20) and found.shares["first"]["v"] == 1.0
    assert found.first is not None and found.first.endswith("in Lava (of images from 4 on)")


def test_what_lava_cannot_do_is_said_before_it_begins(monkeypatch, tmp_path):
    monkeypatch.setenv(environment.VARIABLE, str(script(tmp_path, "exit 9")))
    network = chain([[1, 2], [3, 4]], vth=3, back=torch.ones(2, 1, dtype=torch.int32), reset="soft", start=5)
    images = torch.zeros(1, 1, 1, 2, dtype=torch.int32)
    with pytest.raises(UserError, match=r"^first: steps from read must be at least 1 in Lava.*got 0\. Delay it by 1"):
        run_in_lava(network, images)
    with pytest.raises(UserError) as caught:
        run_in_lava(network, images, how="hardware")
    assert [line.split(" must be ")[0] for line in str(caught.value).splitlines()] == [
        "first: steps from read",
        "first: steps from read",
        "first: reset",
        "first: neurons",
    ]


def script(folder, body):
    """A program in place of a python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_crash_is_one_error_with_its_last_words(monkeypatch, tmp_path):
    monkeypatch.setenv(environment.VARIABLE, str(script(tmp_path, "echo first; echo 'Traceback' >&2; exit 3")))
    with pytest.raises(TrialError, match=r"^Lava failed with exit code 3\. Its last words: first \| Traceback$"):
        agreement(chain([[1, 2], [3, 4]], vth=3), torch.zeros(1, 1, 1, 2, dtype=torch.int32))


def test_what_takes_too_long_is_ended_with_all_its_processes(monkeypatch, tmp_path):
    body = f"sleep 60 & echo $! > {tmp_path}/child; echo working; wait"
    monkeypatch.setenv(environment.VARIABLE, str(script(tmp_path, body)))
    monkeypatch.setattr(driver, "_seconds", lambda job: 1.0)
    with pytest.raises(TrialError, match=r"must end within 1 s; it did not, and was stopped\. .* working$"):
        run_in_lava(chain([[1, 2], [3, 4]], vth=3), torch.zeros(1, 1, 1, 2, dtype=torch.int32))
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    for _ in range(100):
        if not child.exists() or " Z " in child.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("a process of it is still there")


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """A machine without any environment, and without Python 3.10."""
    for name in (environment.VARIABLE, "PYENV_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return Places(out=tmp_path, data=tmp_path)


def test_without_lava_the_remedy_is_said(nothing):
    with pytest.raises(UserError, match=r"Give engram doctor --install lava\.$"):
        environment.find()
    (row,) = environment.check(nothing)
    assert row.state == "ok" and "engram doctor --install lava" in row.found
    with pytest.raises(UserError, match=r"^Python 3\.10 must be .*; got none that runs\. Install it: uv python"):
        environment.install(print)


def test_an_environment_that_is_named_and_broken_is_bad(nothing, monkeypatch, tmp_path):
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "nowhere"))
    (row,) = environment.check(nothing)
    assert row.state == "bad" and "got" in row.found and "or give engram doctor --install lava" in row.found
    broken = script(tmp_path, "echo \"ImportError: No module named 'lava'\" >&2; exit 1")
    monkeypatch.setenv(environment.VARIABLE, str(broken))
    (row,) = environment.check(nothing)
    assert (row.state, row.found) == ("bad", f"{broken} fails: ImportError: No module named 'lava'")
    old = script(tmp_path, "echo 0.9.0")
    monkeypatch.setenv(environment.VARIABLE, str(old))
    (row,) = environment.check(nothing)
    assert row.found == "lava-nc 0.10.0 is needed, and 0.9.0 is there"


PYTHON = """case "$*" in
  *version_info*) echo 3.10 ;;
  *"-m venv"*) /bin/mkdir -p "$3/bin"; /bin/cp "$0" "$3/bin/python" ;;
  *"-m pip"*) PIP ;;
  *) echo 0.10.0 ;;
esac"""


def test_installing_makes_an_environment_or_leaves_nothing(nothing, tmp_path, monkeypatch):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    home = tmp_path / "pyenv" / "versions" / "3.10.9" / "bin"
    home.mkdir(parents=True)
    script(home, PYTHON.replace("PIP", "echo 'ERROR: No matching distribution found' >&2; exit 1"))
    said = []
    with pytest.raises(TrialError, match=r"^-m pip install failed: ERROR: No matching distribution found$"):
        environment.install(said.append)
    assert list((tmp_path / "cache" / "engram").iterdir()) == [] and "pyenv" in said[0]
    script(home, PYTHON.replace("PIP", "exit 0"))
    assert environment.install(said.append) == f"Lava 0.10.0 in {environment.folder()}"
    assert environment.fault(environment.find()) is None
    (row,) = environment.check(nothing)
    assert row.state == "ok" and row.found.startswith("lava-nc 0.10.0 with ")


ADAPTERS = """
import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

class PyToNxAdapter(AbstractProcess):
    def __init__(self, *, shape):
        super().__init__(shape=shape)
        self.inp, self.out = InPort(shape=shape), OutPort(shape=shape)

class NxToPyAdapter(AbstractProcess):
    def __init__(self, *, shape):
        super().__init__(shape=shape)
        self.inp, self.out = InPort(shape=shape), OutPort(shape=shape)

class Hands(PyLoihiProcessModel):
    inp: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    def run_spk(self):
        self.out.send(self.inp.recv())

@implements(proc=PyToNxAdapter, protocol=LoihiProtocol)
@requires(CPU)
class In(Hands): pass

@implements(proc=NxToPyAdapter, protocol=LoihiProtocol)
@requires(CPU)
class Out(Hands): pass
"""
STANDING_IN = """
import runpy, sys
sys.path[:0] = ["HERE", sys.argv[3].rpartition("/")[0]]
import lava.magma.core.run_configs as configs
configs.Loihi2HwCfg = lambda: configs.Loihi2SimCfg(
    exception_proc_model_map={}, select_tag="fixed_pt", select_sub_proc_model=False
)
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_on_hardware_only_stock_processes_are_used_an_image_each(lava, monkeypatch, tmp_path):
    """With stand-ins for the closed package's adapters, and its chip simulated."""
    closed = tmp_path / "lava"
    for name, text in (("utils/loihi2_profiler.py", ""), ("proc/embedded_io/spike.py", ADAPTERS)):
        (closed / name).parent.mkdir(parents=True)
        (closed / name).write_text(text)
    (tmp_path / "launch.py").write_text(STANDING_IN.replace("HERE", str(tmp_path)))
    monkeypatch.setenv(environment.VARIABLE, str(script(tmp_path, f'exec {lava} {tmp_path}/launch.py "$@"')))
    network = chain([[100, 3], [-20, 60]], vth=90, dv=300, du=2000, bias=torch.tensor([40, -3], dtype=torch.int32))
    images = torch.tensor([[[[3, 0]]], [[[2, 9]]]], dtype=torch.int32)
    found, ours = run_in_lava(network, images, how="hardware"), Simulator(network).run(images, KEEP).kept
    assert int(ours["first"]["spikes"].sum()) > 3 and set(found["first"]) == {"spikes"}
    for name, what in (("first", "spikes"), ("read", "spikes"), ("read", "v")):
        assert torch.equal(found[name][what], ours[name][what].int())


@pytest.mark.slow
def test_hardware_needs_the_closed_package(lava):
    network = chain([[1, 2], [3, 4]], vth=3)
    with pytest.raises(TrialError, match="lava-loihi"):
        run_in_lava(network, torch.zeros(1, 1, 1, 2, dtype=torch.int32), how="hardware")
