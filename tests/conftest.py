"""What tests of the whole program share: a third party's plugin, installed, and engram as a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engram.backbone.data.sets import Data
from engram.backbone.data.trained import reference
from engram.backbone.nets.making import LINEAR
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.benchmarks.worker.stopping import Stop

HERE = Path(__file__).parent
THIRD_PARTY = HERE / "thirdparty"
WITH_MLFLOW = (HERE / "face", HERE / "benchmarks" / "sink", HERE / "services")
"""Where tests have the tracking store in their own process."""
THEIRS = (
    "DeprecationWarning",
    "FutureWarning",
    "UserWarning",
    "ResourceWarning",
    "pytest.PytestUnraisableExceptionWarning",
)
"""Warnings that mlflow, SQLAlchemy and alembic raise there."""


# pytest-xdist runs a process per core; more threads than cores only get in each other's way. Not in a fixture: modules
# of perf/ note the number when they are imported, and set it again.
torch.set_num_threads(1)


def pytest_itemcollected(item: pytest.Item) -> None:
    if any(folder in item.path.parents for folder in WITH_MLFLOW):
        for kind in THEIRS:
            item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))


def pytest_sessionfinish() -> None:
    """No test, and no doctest, may have imported anything of ours by its old name, without ``engram.`` before it."""
    twice = {"backbone", "benchmarks", "causal", "continual", "feedback", "fewshot", "snn"} & {
        name.partition(".")[0] for name in sys.modules
    }
    assert not twice, f"imported from the root of the repository: {', '.join(sorted(twice))}"


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one JSON object on standard output."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("engram: ")]


@dataclass
class Engram:
    """Runs ``engram`` in a folder of its own, with the plugins of ``site`` installed beside ours."""

    cwd: Path
    site: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        home = self.cwd / "home"
        home.mkdir(exist_ok=True)
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("ENGRAM_", "MLFLOW_"))}
        here = Path(__file__).parents[1]  # the code beside the tests, whichever copy is installed
        ours = {
            "PYTHONPATH": f"{self.site}{os.pathsep}{here}",
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
        }
        return {**keep, **ours, **self.env}

    def start(self, *words: object, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "engram.benchmarks", *map(str, words)],
            cwd=self.cwd,
            env=self.environment() | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: object, **more: str) -> Done:
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=300)
        return Done(process.returncode, out, err)


class Here(Engram):
    """As `Engram`, in this process, where everything is imported already; workers are processes as ever."""

    capture: Callable[[], tuple[str, str]]

    def __call__(self, *words: object, **more: str) -> Done:
        from engram.benchmarks.cli import main

        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mlflow's, which no process of its own would end with either
            for key in {*os.environ} - {*(wanted := self.environment() | more)}:
                patch.delenv(key)
            for key, value in wanted.items():
                patch.setenv(key, value)
            patch.chdir(self.cwd)
            patch.syspath_prepend(str(self.site))
            self.capture()
            code = main([str(word) for word in words])
        return Done(code, *self.capture())


def install(site: Path, package: Path) -> None:
    """What pip would leave of a package with one entry point."""
    name = package.name
    shutil.copytree(package, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[engram.plugins]\n{name} = {name}.plugin:PLUGIN\n")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed third-party plugins."""
    folder = tmp_path_factory.mktemp("site")
    for package in sorted(path for path in THIRD_PARTY.iterdir() if (path / "plugin.py").exists()):
        install(folder, package)
    return folder


class Stranger(nn.Module):
    """A network under the contract, of nobody who ever heard of memory layouts; ``flat`` makes rows of its pictures."""

    in_shape, feature_dim, stage_channels = (3, 8, 8), 12, (6, 8)
    steps, readout = 1, "mean"

    def __init__(self, flat: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.norm, self.pool, self.fc = nn.BatchNorm2d(8), nn.AvgPool2d(2), nn.Linear(8 * 4, 12)
        self.flat = flat

    def stages(self, x):
        first = self.pool(torch.relu(self.conv1(x)))
        return [first, self.pool(torch.relu(self.norm(self.conv2(first))))]

    def features(self, x):
        return torch.relu(self.fc(self.flat(self.stages(x)[-1], x)))

    def forward_steps(self, x):
        return self.forward(x).unsqueeze(0)

    def forward(self, x):
        return self.features(x)


def _sized(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = y.shape
    return y.view(n, c * h * w)


FLATTENINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "view(x.size(0), -1)": lambda y, x: y.view(y.size(0), -1),
    "view(x.shape[0], -1)": lambda y, x: y.view(y.shape[0], -1),
    "view(-1, k)": lambda y, x: y.view(-1, 32),
    "view(n, -1) of the images": lambda y, x: y.view(x.shape[0], -1),
    "reshape(n, -1) of the images": lambda y, x: y.reshape(x.shape[0], -1),
    "view((n, -1))": lambda y, x: y.view((y.size()[0], -1)),
    "view(n, c * h * w)": _sized,
    "flatten": lambda y, x: y.flatten(1),
    "torch.flatten": lambda y, x: torch.flatten(y, 1),
    "two views": lambda y, x: y.view(y.size(0), 8, -1).view(y.size(0), -1),
    "squeeze": lambda y, x: y.flatten(1).unsqueeze(-1).squeeze(-1),
}


@pytest.fixture(scope="session", params=FLATTENINGS)
def flattening(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stranger(flattening: str) -> Stranger:
    """A network as people write them, one for each of their ways from pictures to rows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Stranger(FLATTENINGS[flattening])


@pytest.fixture(scope="session")
def made_of() -> Callable[..., Made]:
    """``made_of(network, options, data, **more)``: what a saved network says of itself, with the classes and shape of
    data (loaded as ``digits``) or as they are given.
    """

    def make(network: str, options: dict[str, Any] | None = None, data: Data | None = None, **more: Any) -> Made:
        net = in_full(Registry.discover(), "backbones", network, options or {})
        if data is not None:
            more = {
                "classes": data.classes,
                "in_shape": data.in_shape,
                "data": reference("digits", {}, data, 0.1),
            } | more
        return Made(**{"backbone": net, "head": LINEAR} | more)

    return make


@pytest.fixture(scope="session")
def put_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Put an empty MLflow database into an output folder, as it is made there: made once, for that takes seconds."""
    from engram.benchmarks.sink import Sink

    made = tmp_path_factory.mktemp("store")

    def put(out: Path) -> Path:
        if not (made / "mlflow.db").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert Sink(made, None).sync([], None).ok
        out.mkdir(parents=True, exist_ok=True)
        path = out / "mlflow.db"
        shutil.copy(made / "mlflow.db", path)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:  # as if it had been made here
            place = (out / "mlartifacts").as_uri()
            connection.execute("update experiments set artifact_location = ? where name = 'engram'", (place,))
        return path

    return put


@pytest.fixture
def engram(tmp_path: Path, site: Path) -> Engram:
    return Engram(tmp_path, site)


@pytest.fixture
def here(tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> Engram:
    """As ``engram``, without a new process for each command: for all that imports do not matter to."""
    made = Here(tmp_path, site)
    made.capture = capsys.readouterr
    return made


@pytest.fixture
def with_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the third-party plugins importable in this process too."""
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Poll until something is true; fail after a time that only a hung process takes."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def workers_in() -> Callable[[Path], list[int]]:
    """Process ids of all workers of an output folder, whoever started or forked them: what they print goes there."""

    def find(out: Path) -> list[int]:
        found = []
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                printing = str((proc / "fd" / "1").readlink())
            except OSError:
                continue  # it has ended
            if printing.startswith(f"{out}{os.sep}"):
                found.append(int(proc.name))
        return found

    return find


def _script(name: str) -> Any:
    """A script of ``clusters/``, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, HERE / "clusters" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Any]:
    """A Slurm cluster of two nodes on this machine (`clusters/slurm_nodes.py`)."""
    kind = _script("slurm_nodes").SlurmCluster
    if missing := kind.missing():
        pytest.skip(f"{missing} is not installed: apt-get install slurm-wlm munge")
    with tempfile.TemporaryDirectory(prefix="slurm-") as home:  # names of sockets are short
        cluster = kind(Path(home) / "home")
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def new_ray_cluster(site: Path) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Start a Ray cluster on this machine (`clusters/ray_nodes.py`); its nodes come and go."""
    pytest.importorskip("ray")

    @contextlib.contextmanager
    def start() -> Iterator[Any]:
        with tempfile.TemporaryDirectory(prefix="ray-") as home, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cluster = _script("ray_nodes").RayCluster(Path(home), {"PYTHONPATH": f"{site}{os.pathsep}{HERE.parent}"})
            try:
                cluster.start()
                yield cluster
            finally:
                cluster.stop()

    return start


@pytest.fixture(scope="session")
def ray_cluster(new_ray_cluster: Callable[[], contextlib.AbstractContextManager[Any]]) -> Iterator[Any]:
    """The Ray cluster that tests share."""
    with new_ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kill_hard() -> Callable[[int], None]:
    def kill(process: int) -> None:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            return

    return kill


class StopAfter(Stop):
    """Asks to stop after so many steps; a checkpoint is saved before."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def asked(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture(scope="session")
def stop_after() -> type[StopAfter]:
    """``stop_after(steps)``: what has a worker leave after so many steps, with a checkpoint."""
    return StopAfter
