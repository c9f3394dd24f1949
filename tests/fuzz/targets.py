"""What is fuzzed: for each kind of file how one is damaged, where it is put, and who reads it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mutating
import numpy as np
import torch

from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.recordings.reading import read as read_recording
from engram.backbone.errors import UserError
from engram.backbone.hdf5 import reading
from engram.backbone.saved.model import load_model
from engram.backbone.saved.states import load_latest
from engram.snn.interchange import screening
from engram.snn.interchange.netx.reading import read as read_netx
from engram.snn.interchange.nir.reading import read as read_nir
from engram.snn.loihi import stored
from engram.snn.loihi.simulator import Simulator

LIMITS = reading.Limits(seconds=2, values=1 << 28, memory=1 << 31)
"""Those of the program are larger: a file that takes long is given up sooner here."""


@cache
def reader() -> reading.Reader:
    """One process that reads HDF5 for all files; the program starts one for each."""
    return reading.Reader(LIMITS)


screening.read_hdf5 = lambda file, remedy: reader().read(file, remedy)
reading.Limits = lambda: LIMITS  # of the reader that recordings share


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        change: ``change(draw, seeds)``, the files of a folder by name.
        read: what the program makes of the folder; returns something with all of it.
    """

    change: Any
    read: Any


def _one(name, mutate):
    def change(draw, seeds):
        return {name: mutate(draw, seeds[Path(name).suffix])}

    return change


def _events(suffix):
    name = f"a{suffix}"
    ways = {".h5": mutating.hdf5, ".npz": mutating.archive}
    options = EventsOptions(unit="us", camera="dvs128") if suffix == ".aedat" else EventsOptions()

    def read(folder):
        found = read_recording(folder / name, options)
        return [found.t, found.x, found.y, found.p]

    return Target(_one(name, ways.get(suffix, mutating.bytes_of)), read)


def _netx(folder):
    network = read_netx(folder / "a.net")
    Simulator(network)
    return [one.weight.numpy() for each in network.populations for one in each.synapses]


def _nir(folder):
    return [repr(read_nir(folder / "a.nir")).encode()]


def _chip(folder):
    network = stored.load(folder / "a.npz")
    Simulator(network)
    return [one.weight.numpy() for each in network.populations for one in each.synapses]


def _model(folder):
    model, _ = load_model(folder)
    return [value.numpy() for value in model.state_dict().values()]


def _models(draw, seeds):
    pairs = list(zip(seeds[".json"], seeds[".safetensors"], strict=True))
    made = mutating.checked(draw, pairs, mutating.bytes_of)
    return dict(zip(("model.json", "model.safetensors"), made, strict=True))


def _state(folder):
    found = load_latest(folder)
    if found is None:  # the state before it would be taken
        raise UserError("no state that is whole")
    return [value.numpy() for value in found[1].values() if isinstance(value, torch.Tensor)]


def _states(draw, seeds):
    manifest, data = mutating.checked(draw, list(zip(seeds[".json"], seeds[".pt"], strict=True)), mutating.archive)
    return {"state-000000003.json": manifest, "state-000000003.pt": data}


EVENTS = (".bin", ".aedat", ".aedat4", ".raw", ".dat", ".npz", ".npy", ".h5", ".mat")
TARGETS = {
    "netx": Target(_one("a.net", mutating.hdf5), _netx),
    "nir": Target(_one("a.nir", mutating.hdf5), _nir),
    "model": Target(_models, _model),
    "state": Target(_states, _state),
    "chip": Target(_one("a.npz", mutating.changed_npz), _chip),
    **{f"events{suffix}": _events(suffix) for suffix in EVENTS},
}


def seeds_of(folder: Path) -> dict[str, list[bytes]]:
    """The whole files of a kind, by the ends of their names, in the order of their names."""
    found: dict[str, list[bytes]] = {}
    for file in sorted(folder.iterdir()):
        found.setdefault(file.suffix, []).append(file.read_bytes())
    return found


def holds(values: Any, canary: bytes) -> bool:
    """Whether what was read has the bytes of the canary in it."""
    return any(canary in (each if isinstance(each, bytes) else np.ascontiguousarray(each).tobytes()) for each in values)
