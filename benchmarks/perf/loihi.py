"""Images per second of our simulation of Loihi 2's integers, against Lava's and against the floats they came from.

A briefly trained LeNet-5 becomes a spiking network and is quantised; both sides get the same integers and the same
images, and their spikes are equal. Lava's rate is of its steps alone: the time for some images, less that for fewer,
so that neither its start nor its compiler counts. Ours is of whole runs of a batch. Where there is a GPU, it is timed
against the processor.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from engram.backbone.data.load import Data, load
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.benchmarks.perf.conversion import CASES, WITHOUT_MNIST, first, images, trained
from engram.benchmarks.perf.harness import Row, interleaved, seconds
from engram.snn.conversion.convert import convert
from engram.snn.loihi.lava.driver import run_in_lava
from engram.snn.loihi.network import ChipNetwork
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.quantiser import quantise
from engram.snn.loihi.simulator import Simulator
from engram.snn.lowering.lower import lower

STEPS = 32
BATCH = 256
ROUNDS = 5
CALIBRATION = 200
LAVA = (1, 4)
"""Images that Lava is timed on."""


def chip_network(model: Classifier, data: Data, steps: int = STEPS) -> tuple[ChipNetwork, Tensor]:
    """A trained network in chip integers, and [N, C, H, W] int32 images for it."""
    calibration = images(first(data.train, CALIBRATION))
    spiking = convert(model, [calibration], len(calibration), steps=steps)
    network = quantise(lower(spiking), QuantiseOptions(), calibration).network
    shown = images(first(data.train, BATCH))
    shown = shown.repeat(-(-BATCH // len(shown)), 1, 1, 1)[:BATCH]
    return network, network.input.whole(shown / 255)


def compare(label: str, network: ChipNetwork, shown: Tensor) -> list[Row]:
    """All rows of one network.

    Raises:
        RuntimeError: Lava's spikes are others.
        UserError: Lava is not there.
    """
    simulator = Simulator(network)
    few, more = LAVA
    theirs = run_in_lava(network, shown[:more], ["spikes"])
    ours = simulator.run(shown[:more], ["spikes"]).kept
    if not all(torch.equal(values["spikes"].int(), theirs[name]["spikes"].int()) for name, values in ours.items()):
        raise RuntimeError("both sides must compute the same")
    started = seconds(lambda: run_in_lava(network, shown[:few], []))
    took = seconds(lambda: run_in_lava(network, shown[:more], [])) - started
    mine, _ = interleaved(lambda: simulator.run(shown), lambda: None, ROUNDS)
    rows = [_row(f"{label}-B{BATCH}", len(shown) / mine, (more - few) / took, "lava-nc 0.10.0, fixed_pt")]
    if torch.cuda.is_available():
        on_gpu, there = Simulator(network, "cuda"), shown.cuda()
        fast, slow = interleaved(lambda: on_gpu.run(there), lambda: simulator.run(shown), ROUNDS)
        rows.append(_row(f"{label}-B{BATCH}-gpu", len(shown) / fast, len(shown) / slow, "the same on the processor"))
    return rows


def _row(name: str, ours: float, peer: float, peer_name: str) -> Row:
    unit = "images/s"
    return Row(name=name, ours=ours, peer=peer, peer_name=peer_name, unit=unit, higher_is_better=True, n=ROUNDS)


def measure() -> list[Row]:
    """LeNet-5 on MNIST, or on the embedded digits where that is not there."""
    try:
        case = CASES[0]
        data = load(case.dataset, {}, root=Path(os.environ.get("ENGRAM_DATA", "data")))
    except UserError:
        case = WITHOUT_MNIST
        data = load(case.dataset, {}, root=Path())
    network, shown = chip_network(trained(case, data), data)
    return compare(f"loihi/{case.net}/{data.name}/T{STEPS}", network, shown)
