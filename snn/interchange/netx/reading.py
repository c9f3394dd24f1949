"""A ``.net`` file of lava-dl as a network of Loihi's integers.

What it computes is what lava-dl's own reader makes of it in Lava: layers follow each other without delay in the
network's time, recurrent spikes arrive a step later.
"""

from __future__ import annotations

from pathlib import Path

import torch

from engram.backbone.errors import must
from engram.snn.interchange.netx.fields import REMEDY
from engram.snn.interchange.netx.layers import MOST_THRESHOLD, Layer, Netx, Neuron, layers_of
from engram.snn.interchange.screening import screened
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Integrator, Population, SigmaDelta, Synapses

STATE_EXP = 6
"""Of all sigma-delta neurons, as lava-dl's reader has it."""
STEPS = 32
"""Of a sample, where spiking neurons are in a file that does not say. Sigma-delta networks are done after one."""


def read(path: Path) -> ChipNetwork:
    """The network of a file, screened before it is parsed.

    Raises:
        UserError: it is no HDF5 file, is refused by the screening, or has a layer that we cannot run exactly.
    """
    return network_of(layers_of(screened(path, REMEDY), str(path)), str(path))


def network_of(file: Netx, name: str) -> ChipNetwork:
    """The layers of a file as populations.

    Args:
        file: its layers.
        name: what errors call it.

    Raises:
        UserError: what is read out leaks, or something that never fires drives a layer.
    """
    first, *rest = file.layers
    populations = [_of_input(first)] if first.neuron is not None and not _plain(first.neuron) else []
    source, shape = (populations[0].name if populations else INPUT), first.shape
    for layer in rest:
        up = first.neuron.spike_exp if source == INPUT and first.neuron is not None else 0
        made = _population(layer, source, shape, up, last=layer is rest[-1], what=f"{name}: layer {layer.number}")
        populations.append(made)
        source, shape = made.name, layer.shape
    notes: list[str] = []
    sums = not isinstance(populations[-1].neurons, LIF)
    steps = file.steps
    if steps is None:
        steps = 1 if first.neuron is not None and first.neuron.kind == "sigma-delta" else STEPS
        notes.append(f"the file does not say how many steps a sample takes: {steps}")
    if any(layer.neuron is not None and layer.neuron.refractory for layer in file.layers):
        notes.append("neurons rest for refDelay - 1 steps after a spike; lava-dl's reader ignores that")
    return ChipNetwork(
        input=Input(
            shape=first.shape,
            bits=first.bits,
            signed=first.signed,
            encoding="delta" if first.neuron is not None and first.neuron.kind == "sigma-delta" else "value",
            gain=first.gain,
            offset=first.offset,
        ),
        populations=tuple(populations),
        steps=steps,
        delay=file.delay,
        frames=file.frames,
        readout="potential" if sums else "spikes",
        notes=tuple(notes),
    )


def _plain(neuron: Neuron) -> bool:
    """Whether an input's neurons send every difference, as the network's input does by itself."""
    return neuron.kind == "sigma-delta" and neuron.vth == 0


def _of_input(layer: Layer) -> Population:
    """The neurons of an input layer, each driven by one place of the image.

    In Lava the image is their bias, which reaches no current, and what sigma-delta ones are given is no sum: both are
    what a synapse of weight 1 does to neurons that keep no current, and to sums of differences.
    """
    assert layer.neuron is not None
    channels, neuron = layer.shape[0], layer.neuron
    if neuron.kind == "lif":
        cells = LIF(dv=neuron.v_decay, vth=neuron.vth, refractory=neuron.refractory)
    else:
        cells = SigmaDelta(vth=neuron.vth, spike_exp=neuron.spike_exp, state_exp=STATE_EXP, activation="unit")
    identity = Synapses(
        source=INPUT,
        kind="conv",
        weight=torch.ones(channels, 1, 1, 1, dtype=torch.int32),
        in_shape=layer.shape,
        exponent=0 if neuron.kind == "lif" else neuron.spike_exp + STATE_EXP,
        groups=channels,
    )
    return Population(name=layer.name, shape=layer.shape, neurons=cells, synapses=(identity,), scale=layer.scale)


def _population(layer: Layer, source: str, in_shape: tuple[int, ...], up: int, last: bool, what: str) -> Population:
    synapses = [
        Synapses(
            source=source,
            kind="conv" if layer.kind == "conv" else "dense",
            weight=torch.from_numpy(layer.weight),
            in_shape=in_shape,
            exponent=up,
            delays=None if layer.delay is None else torch.from_numpy(layer.delay),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )
    ]
    if layer.recurrent is not None:
        again = torch.from_numpy(layer.recurrent)
        synapses.append(Synapses(source=layer.name, kind="dense", weight=again, in_shape=layer.shape, delay=1))
    return Population(
        name=layer.name,
        shape=layer.shape,
        neurons=_cells(layer, last, what),
        synapses=tuple(synapses),
        scale=layer.scale,
    )


def _cells(layer: Layer, last: bool, what: str) -> LIF | SigmaDelta | Integrator:
    neuron = layer.neuron
    assert neuron is not None
    bias = torch.zeros(1, dtype=torch.int32) if layer.bias is None else torch.from_numpy(layer.bias)
    if neuron.reads_out or neuron.kind == "sigma":
        if not last:
            raise must(what, "one that sends, in front of another layer", "one that only adds up", REMEDY)
    elif neuron.kind == "lif" and neuron.vth > MOST_THRESHOLD - last:
        got = f"threshold {neuron.vth} with decays {neuron.i_decay} and {neuron.v_decay}"
        raise must(what, f"one with a threshold below {MOST_THRESHOLD}, or a sum without leaks", got, REMEDY)
    if neuron.reads_out:
        return Integrator(bias=bias)
    if neuron.kind == "sigma":  # it sends on what it got, unshifted
        return SigmaDelta(vth=0, bias=bias, activation="unit")
    if neuron.kind == "sigma-delta":
        return SigmaDelta(vth=neuron.vth, bias=bias, spike_exp=neuron.spike_exp, state_exp=STATE_EXP)
    return LIF(du=neuron.i_decay - 1, dv=neuron.v_decay, vth=neuron.vth, bias=bias, refractory=neuron.refractory)
