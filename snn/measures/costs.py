"""What a spiking network costs beside the network it came from: operations, memory, and energy under named models.

Energy counts arithmetic only (`engram.backbone.measures.energy`). Yan et al. 2024 (arXiv 2409.08290) count memory
traffic too, and far fewer spikes pay. Nothing here is a measurement of a chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from engram.backbone.contract import Row
from engram.backbone.errors import must
from engram.backbone.measures.energy import Memory, Work, priced, stored_bytes
from engram.snn.simulation.counting import Synapses, Tally, macs
from engram.snn.simulation.network import peak_bytes

CAPTION = (
    "Per image. Energy is arithmetic only, under the cost model named beside it: MACs, ACs, and one AC (leaky neurons:"
    " one MAC) for every neuron and step; no memory traffic, which is known to dominate, so no chip's energy."
    " Behind its first neurons zeros cost the SNN nothing; the ANN comes with all its MACs, and with zeros skipped."
)
"""Goes with every table of `costs`."""

POTENTIAL_BYTES = 4
"""A membrane potential, and a drive that is kept: float32."""

InputLayer = Literal["once", "once a frame", "every step", "spikes"]
"""How often the layers before the first neurons multiply, for one image; "spikes": they only add, as `costs` says."""


@dataclass(frozen=True, kw_only=True)
class Analog:
    """The network a spiking one is compared with.

    Attributes:
        macs: on one image, whatever its activations.
        effective_macs: those whose activation is not zero, the mean over images. Hardware that skips zeros does these,
            and a spiking network skips them by nature: the fair comparison is with both.
    """

    macs: int
    effective_macs: float
    memory: Memory


def analog(
    graph: fx.GraphModule, head: nn.Linear, in_shape: tuple[int, int, int], effective_macs: float, frames: int = 1
) -> Analog:
    """Operations and memory of an analog network on one image, or on a recording of frames one after another.

    Zero weights and padding are left out.

    Args:
        graph: traced, BatchNorm folded (`engram.snn.conversion.convert.lower`).
        head: its read-out.
        in_shape: (C, H, W) of one image.
        effective_macs: as in `Analog` (`engram.snn.measures.neurobench.Workload.effective`).
        frames: how many images one recording is.
    """
    parameters, buffers = stored_bytes(graph, head)
    peak = peak_bytes(graph, in_shape)
    memory = Memory(parameters=parameters, buffers=buffers, activations=peak)
    return Analog(macs=frames * macs(graph, head, in_shape), effective_macs=effective_macs, memory=memory)


def spiking_memory(
    graph: fx.GraphModule, head: nn.Linear, structure: Synapses, input_layer: InputLayer = "once"
) -> Memory:
    """Memory of a spiking network that keeps one potential per neuron, whatever the number of steps.

    Args:
        graph: its activations are neurons.
        head: its read-out.
        structure: of both.
        input_layer: as in `costs`; a result that is kept takes memory.
    """
    parameters, buffers = stored_bytes(graph, head)
    kept = structure.analog_driven if input_layer in ("once", "once a frame") else 0
    state = POTENTIAL_BYTES * (structure.neurons + kept)
    return Memory(parameters=parameters, buffers=buffers, state=state)


def spikes_sent(structure: Synapses, tally: Tally, images: int) -> list[float]:
    """Spikes of all neurons for one image up to each checkpoint of a tally; what relays pass on is no spike more."""
    neurons = [place for place, name in enumerate(tally.fan_out) if name not in structure.relays]
    return (tally.spikes[neurons].sum(0) / images).tolist()


def operations(structure: Synapses, tally: Tally, images: int) -> list[float]:
    """Synaptic operations of one image up to each checkpoint of a tally, those of relays and input spikes included.

    Raises:
        UserError: the values of a relay were not tallied, so that what they cause would be missing.
    """
    missing = sorted(structure.relays - tally.seen)
    if missing:
        raise must("values of relays", "tallied", f"none of {', '.join(missing)}", "Call `Tally.add` with them.")
    return (tally.operations.sum(0) / images).tolist()


def costs(
    reference: Analog,
    structure: Synapses,
    memory: Memory,
    steps: Sequence[int],
    acs: Sequence[float],
    *,
    input_layer: InputLayer = "once",
    frame_steps: int = 1,
    link_macs: int = 0,
    update: Literal["AC", "MAC"] = "AC",
) -> list[Row]:
    """What one image costs: rows for the analog network, and one for the spiking network at each number of steps.

    The analog network comes twice: with all its MACs, and with those alone whose activation is not zero. ACs are
    synaptic operations that spikes cause, MACs those of the layers before the first neurons, zeros among their inputs
    included; ``input_layer`` says whether once or at every step. Updates are neurons times steps: every neuron adds its
    drive at every step, spikes or not. Resets, comparisons and ReLUs are left out. With enough steps a spiking network
    does more operations than the analog one, and the rows say so. Show them with `CAPTION`.

    Args:
        reference: the analog network.
        structure: synapses of the spiking network.
        memory: of the spiking network (`spiking_memory`).
        steps: numbers of steps T.
        acs: synaptic operations of one image up to each of them (`operations`).
        input_layer: what the layers before the first neurons do. "once": the image is constant, and their result is
            kept; "once a frame": so is every frame of a recording, for ``frame_steps`` steps; "every step": it
            changes, or nothing is kept; "spikes": the input is spikes, whose operations are already in ``acs``
            (tallied with `Synapses.input_fan_out`).
        frame_steps: steps of the simulation that a frame is shown for.
        link_macs: multiplications of what leads back, at every step but the first.
        update: "MAC" for leaky neurons, which multiply their potential at every step.

    Returns: rows of network, steps, input_layer, macs, acs, neuron_updates, memory_bytes, and for each of
        `COST_MODELS` the energy in nJ and its ratios to the analog network's, all MACs or zeros skipped.

    Source: prices: Horowitz 2014. Charging neuron updates, which most publications leave out: Lemaire et al. 2022, "An
    analytical estimation of spiking neural networks energy efficiency".
    """
    anns = Work(macs=reference.macs), Work(macs=reference.effective_macs)
    references = {"ann": anns[0], "ann_zeros_skipped": anns[1]}
    rows: list[Row] = [
        {"network": name, "steps": None, "input_layer": None, **priced(ann, references, reference.memory)}
        for name, ann in zip(("ANN", "ANN, zeros skipped"), anns, strict=True)
    ]
    for t, caused in zip(steps, acs, strict=True):
        times = {"once": 1, "once a frame": -(-t // frame_steps), "every step": t, "spikes": 0}[input_layer]
        work = Work(macs=times * structure.analog_macs + (t - 1) * link_macs, acs=caused, updates=structure.neurons * t)
        spent = priced(work, references, memory, update)
        rows.append({"network": "SNN", "steps": t, "input_layer": input_layer, **spent})
    return rows
