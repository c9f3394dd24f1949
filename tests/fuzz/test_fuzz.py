"""Damaged and hostile files of every kind that strangers send: each is read or ends in one clear error.

No crash, no hang, no file opened but its own, memory bounded: `worker.py` reads them under limits of the system.
"""

import collections
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engram.backbone.nets.making import LINEAR, build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import save_model
from engram.backbone.saved.states import save_state
from engram.snn.interchange.netx.writing import write
from engram.snn.interchange.nir.writing import with_shapes
from engram.snn.interchange.nir.writing import write as write_nir
from engram.snn.interchange.screening import as_hdf5, screened
from engram.snn.loihi import stored

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
HERE = Path(__file__).parent
SHARES = {"netx": 24, "nir": 24, "model": 8, "state": 8, "chip": 8}
"""Of 100 files, those of each kind; recordings share the rest."""
EVENTS = (".bin", ".aedat", ".aedat4", ".raw", ".dat", ".npz", ".npy", ".h5", ".mat")


def helper(path):
    """The module of another folder's tests."""
    spec = importlib.util.spec_from_file_location("helper", HERE.parent / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Whole files of every kind, a folder for each."""
    root = tmp_path_factory.mktemp("seeds")
    for kind in (*SHARES, *(f"events{suffix}" for suffix in EVENTS)):
        (root / kind).mkdir()
    networks = helper("snn/interchange/test_netx_writing.py").NETWORKS
    for place, (name, network) in enumerate(networks.items()):
        file = root / "netx" / f"{place}.net"
        write(network, file)
        stored.save(network, root / "chip" / f"{place}.npz")
        if name == "driven":
            packed(screened(file, "-"), root / "netx" / "packed.net")
    graphs = helper("snn/interchange/nir/conftest.py")
    for seed in range(4):
        file = root / "nir" / f"{seed}.nir"
        write_nir(with_shapes(graphs.random_graph(seed)[1]), file)
    recordings(root)
    models(root)
    return root


def packed(tree, path):
    """The same in the newest format of HDF5, with filters."""
    with h5py.File(as_hdf5(tree)) as old, h5py.File(path, "w", libver="latest") as new:

        def copy(name, each):
            if isinstance(each, h5py.Dataset):
                more = {"compression": "gzip", "shuffle": True, "fletcher32": True} if each.size > 9 else {}
                new.create_dataset(name, data=each[()], dtype=each.dtype, **more)

        old.visititems(copy)


def recordings(root):
    writers = helper("backbone/data/recordings/conftest.py")
    for place, count in enumerate((5, 60)):
        fields = writers.made(count, side=(10, 10))
        for suffix, make in writers.WRITERS.items():
            (root / f"events{suffix}" / f"{place}{suffix}").write_bytes(make(*fields))
        (root / "events.raw" / f"2{place}.raw").write_bytes(writers.evt2(*fields))
        for codec in ("lz4", "zstd"):
            (root / "events.aedat4" / f"{codec}{place}.aedat4").write_bytes(writers.aedat4(*fields, codec=codec))
        held = io.BytesIO()
        with h5py.File(held, "w") as file:
            for name, values in zip("txyp", fields, strict=True):
                file.create_dataset(f"events/{name}", data=values, compression="gzip" if place else None)
        (root / "events.h5" / f"{place}.h5").write_bytes(held.getvalue())


def models(root):
    """Saved networks of our own and of adapters, and what a trial resumes from."""
    registry = Registry.discover()
    for place, (name, adapters) in enumerate([("mlp", ()), ("lenet5", ()), ("lenet5", ("snn.spiking",))]):
        torch.manual_seed(0)
        net = in_full(registry, "backbones", name, {"width": 4} if name == "mlp" else {})
        changed = tuple(in_full(registry, "adapters", each, {}) for each in adapters)
        zero, one = torch.zeros(1), torch.ones(1)
        model = build(net.name, net.options, (1, 28, 28), 3, zero, one, LINEAR, changed)
        made = Made(backbone=net, head=LINEAR, adapters=changed, classes=("a", "b", "c"), in_shape=(1, 28, 28))
        save_model(root / "model", model, made)
        for suffix in (".json", ".safetensors"):
            (root / "model" / f"model{suffix}").rename(root / "model" / f"{place}{suffix}")
        optimizer = torch.optim.Adam(model.head.parameters())
        model.head(torch.zeros(2, model.backbone.feature_dim)).sum().backward()
        optimizer.step()
        state = {"model": model.head.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "w": torch.ones(4)}
        save_state(root / "state", 3, state)
        for suffix in (".json", ".pt"):
            (root / "state" / f"state-000000003{suffix}").rename(root / "state" / f"{place}{suffix}")


def fuzzed(seeds, folder, wanted):
    """What came of each file: (kind, number) -> ok, refused, or what is wrong; and the files that ended their process.

    Args:
        wanted: kind -> (first, count).
    """
    came, left = {}, dict(wanted)
    while left:
        words = [f"{kind}:{first}:{count}" for kind, (first, count) in left.items()]
        command = [sys.executable, str(HERE / "worker.py"), str(seeds), str(folder), *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (folder.parent / "errors").open("wb") as errors:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for key, outcome in zip(lines[::2], lines[1::2], strict=False):
            came[tuple(key)] = outcome
        if done.returncode == 0:
            break
        assert lines, (folder.parent / "errors").read_text()[-2000:]
        kind, number = lines[-1] if len(lines) % 2 else lines[-2]
        came[kind, number] = f"the process ended ({done.returncode})"
        kinds = list(left)
        left = {each: left[each] for each in kinds[kinds.index(kind) :]}
        first, count = left[kind]
        left[kind] = (number + 1, first + count - number - 1)
    return came


def shares(total):
    """How many of so many files are of each kind."""
    events = (100 - sum(SHARES.values())) / len(EVENTS)
    each = {**SHARES, **{f"events{suffix}": events for suffix in EVENTS}}
    return {kind: (0, round(total * share / 100)) for kind, share in each.items()}


def judged(came, total):
    assert len(came) == sum(count for _, count in shares(total).values())
    wrong = {key: outcome for key, outcome in came.items() if outcome not in ("ok", "refused")}
    assert not wrong, f"{len(wrong)} of {len(came)}: {list(wrong.items())[:20]}"
    for kind in shares(total):
        counted = collections.Counter(outcome for (each, _), outcome in came.items() if each == kind)
        assert (counted["refused"] and counted["ok"]) or total < 2000, f"{kind}: {counted}"


def test_some_damaged_files(seeds, tmp_path):
    judged(fuzzed(seeds, tmp_path / "files", shares(150)), 150)


@pytest.mark.slow
def test_a_hundred_thousand_damaged_files(seeds, tmp_path):
    total = int(os.environ.get("ENGRAM_FUZZ", "100000"))
    judged(fuzzed(seeds, tmp_path / "files", shares(total)), total)
