"""``python tests/chaos/storm [--kills N] [--seed N]``: sweeps of 100 short trials while their workers, drivers and
servers, and the nodes of a Ray cluster, are killed at random, and a look at what is left.

Each sweep tells MLflow's server on PostgreSQL. When enough was killed, what is not done is run to its end, undisturbed.
Then every table, ledger and figure must be that of a run that nothing happened to, every number must stand once in
PostgreSQL, and no process, no lock and no half-written file may be left.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE.parents[1]),
    str(HERE.parents[1] / "services"),
    str(HERE.parents[1] / "clusters"),
    str(HERE.parents[2]),
]

from checking import nobody_left, nothing_held, same_trials, told_once  # noqa: E402
from conftest import Engram, install  # noqa: E402
from killing import Storm  # noqa: E402
from processes import MARKER, kill, ours  # noqa: E402
from ray_nodes import RayCluster  # noqa: E402
from servers import Postgres, Tracking, missing  # noqa: E402
from sweeping import Sweep  # noqa: E402


def run(folder: Path, token: str, given: argparse.Namespace) -> str:
    """One storm in a folder; what is to be said of it."""
    site = folder / "site"
    site.mkdir()
    install(site, HERE / "walking")
    engram = Engram(folder, site, {"ENGRAM_CHECKPOINT_SECONDS": "0", MARKER: token})
    undisturbed = Sweep(engram, "undisturbed", given.trials, None)
    with Postgres(folder / "postgres") as database, Tracking(folder / "mlflow", database.uri) as tracking:
        with ray_cluster(folder / "ray", engram) as cluster:
            storm = Storm(token, {"postgres": database, "mlflow": tracking}, cluster, given.seed)
            sweeps: list[Sweep] = []
            while storm.killed.total() < given.kills:
                sweeps.append(Sweep(engram, f"sweep{len(sweeps)}", given.trials, tracking.uri))
                storm.rage(sweeps[-1], given.kills)
                tell(f"{storm.killed.total()} kills: {dict(storm.killed)}; sweep {len(sweeps)}")
            storm.calm()
            for sweep in (*sweeps, undisturbed):
                sweep.finish(("--workers", "2"))
                tell(f"{sweep.out.name} is done, after {sweep.starts} drivers")
        nobody_left(token)
        measured = sum(same_trials(sweep, undisturbed) for sweep in sweeps)
        table = undisturbed.table()
        assert [sweep.table() for sweep in sweeps] == [table] * len(sweeps)
        rows = told_once(sweeps, database, tracking)
        for sweep in sweeps:
            nothing_held(sweep.out)
    kinds = ", ".join(f"{count} {kind}" for kind, count in storm.killed.most_common())
    return (
        f"{storm.killed.total()} kills ({kinds}) over {len(sweeps)} sweeps of {given.trials} trials, "
        f"{sum(sweep.starts for sweep in sweeps)} drivers: tables equal, {measured} measurements of the ledgers and "
        f"{rows} rows in PostgreSQL each once, nothing left behind"
    )


@contextmanager
def ray_cluster(home: Path, engram: Engram) -> Iterator[RayCluster | None]:
    """A cluster whose nodes have the storm's environment; None where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        tell("Ray is not installed: no node of it is killed")
        yield None
        return
    home.mkdir()
    cluster = RayCluster(home, engram.environment())
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def tell(line: str) -> None:
    print(f"{time.monotonic() - BEGUN:6.0f} s  {line}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--trials", type=int, default=100, help="of each sweep; 1 to 9, or tens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=900, help="it fails if it takes longer")
    given = parser.parse_args()
    if why := missing():
        print(why, file=sys.stderr)
        return 2
    token = secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="engram-storm-"))
    folder.chmod(0o755)

    def late(*_: object) -> None:
        raise TimeoutError(f"not done within {given.seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(given.seconds)
    try:
        said = run(folder, token, given)
    except BaseException:
        print(f"seed {given.seed}: what it left is in {folder}", file=sys.stderr)
        raise
    finally:
        signal.alarm(0)
        for each in ours(token):
            kill(each.number)
    shutil.rmtree(folder)
    tell(said)
    return 0


if __name__ == "__main__":
    BEGUN = time.monotonic()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
