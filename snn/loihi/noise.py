"""What rounding adds to the drive of every population, where what is sent to it is right."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from engram.snn.loihi.ranges import LEVELS, TOGETHER, Wire
from engram.snn.lowering.network import INPUT, Lowered
from engram.snn.lowering.running import steps
from engram.snn.neurons.integrate_fire import per_neuron


def drive_noise(
    lowered: Lowered, changed: Mapping[str, tuple[list[Wire], Tensor]], images: Tensor
) -> Mapping[str, float]:
    """Signal to quantisation noise in dB of every population's drives.

    Args:
        changed: population -> what rounding added to each of its connections, of which those with a delay are left out,
            and to what it gets besides (`engram.snn.loihi.made.Made`).
        images: see `engram.snn.lowering.running.run`.
    """
    signal, noise = dict.fromkeys(changed, 0.0), dict.fromkeys(changed, 0.0)
    for part in images.split(TOGETHER):
        for step in steps(lowered, part):
            for each in lowered.populations:
                cells, drive = each.cells, step.drives[each.name].double()
                if cells.kind == "spiking":
                    drive = drive / per_neuron(cells.threshold.double(), drive)
                wires, constant = changed[each.name]
                error = per_neuron(constant.double(), drive)
                for wire in wires:
                    if wire.delay == 0:
                        error = error + wire.layer.apply(_messages(step.sent[wire.source], wire.source))
                signal[each.name] += float(drive.square().sum())
                noise[each.name] += float(error.expand_as(drive).square().sum())
    return {name: _decibels(signal[name], noise[name]) for name in changed}


def _messages(sent: Tensor, source: str) -> Tensor:
    return sent.double() * LEVELS if source == INPUT else sent.double()


def _decibels(signal: float, noise: float) -> float:
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf
