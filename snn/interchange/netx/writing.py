"""A network of Loihi's integers as a ``.net`` file that lava-dl's reader loads, and that computes the same there."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engram.backbone.atomic import write_atomically
from engram.backbone.errors import must
from engram.snn.interchange.netx.losses import Losses
from engram.snn.interchange.netx.weights import bias_of, delays_of, excess, weights_of
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Integrator, Population, SigmaDelta, Synapses

STATE_EXP = 6
"""Of all sigma-delta neurons in a file."""
SILENT = (1 << 17) - 1
"""The threshold of neurons that are read by their potential."""
Group = dict[str, Any]


def write(network: ChipNetwork, path: Path, allow_approximate: bool = False) -> tuple[str, ...]:
    """Write a network, for lava-dl's ``netx.hdf5.Network``.

    Args:
        network: populations in a row; the first may be driven by values, spikes or differences.
        path: the file; another of that name is replaced at once.
        allow_approximate: write what the format can say in place of what it cannot.

    Returns: what was approximated, and what lava-dl's reader has to be told beside the file, one line each.

    Raises:
        UserError: something cannot be said; all of it, in one line.
    """
    losses = Losses()
    groups, told = _layers(network, losses)
    refused = losses.refused(allow_approximate)
    if refused:
        hint = "Deploy to another target." if losses.final else "Allow approximations, or deploy to another target."
        raise must("A network in a .net file", "one that it can say all of", f"one with {'; '.join(refused)}", hint)
    _store({"layer": {str(place): group for place, group in enumerate(groups)}, **_simulation(network)}, path)
    return (*losses.lines, *told)


def _simulation(network: ChipNetwork) -> Group:
    """What holds for all layers; lava-dl's reader looks at none of it."""
    more = {"readoutDelay": network.delay} if network.delay else {}
    return {"simulation": {"Ts": 1, "tSample": network.steps, **more, **({"frames": True} if network.frames else {})}}


def _layers(network: ChipNetwork, losses: Losses) -> tuple[list[Group], list[str]]:
    populations = list(network.populations)
    spike_exp = next(
        (each.neurons.spike_exp for each in populations if isinstance(each.neurons, SigmaDelta)), STATE_EXP
    )
    given, told = _input(network, spike_exp)
    groups = [given]
    before, shape = INPUT, network.input.shape
    if _drives_itself(populations[0], network.input.encoding, spike_exp):
        first = populations.pop(0)
        given["neuron"] = _neuron(first, spike_exp, losses, first=True)
        given.pop("messageBits", None)
        given.update(_ours(first))
        before = first.name
        told = []
    for each in populations:
        last = each is populations[-1]
        forward, again = _incoming(each, before, losses)
        if forward is None:
            break
        if forward.kind == "dense" and len(shape) == 3:
            groups.append({"type": _tag("flatten"), "shape": np.array([int(np.prod(shape))])})
        groups.append(
            _layer(each, forward, again, _input_exponent(network, before, spike_exp), spike_exp, last, losses)
        )
        before, shape = each.name, each.shape
    if spike_exp != STATE_EXP:
        told.append(f"give lava-dl's Network spike_exp={spike_exp}")
    return groups, told


def _input(network: ChipNetwork, spike_exp: int) -> tuple[Group, list[str]]:
    """The input layer, and what its reader has to be told."""
    given = network.input
    group: Group = {"type": _tag("input"), "shape": np.array(given.shape)}
    group |= {"weight": np.array([given.gain]), "bias": np.array([given.offset])}
    if given.encoding == "delta":
        return group | {"neuron": {"type": "SDNN", "vThMant": 0, "spikeExp": spike_exp}}, []
    if given.bits == 1:
        return group, []
    told = [f"give lava-dl's Network input_message_bits={given.bits}: the file cannot say that inputs are values"]
    return group | {"messageBits": given.bits, "signed": given.signed}, told


def _drives_itself(population: Population, encoding: str, spike_exp: int) -> bool:
    """Whether a population is an input layer: each neuron driven by one place of the image, by a weight of 1."""
    if len(population.synapses) != 1:
        return False
    (one,), cells = population.synapses, population.neurons
    same = one.kind == "conv" and one.groups == one.in_shape[0] and population.shape == one.in_shape
    if one.source != INPUT or not same or one.delay or bool((one.weight != 1).any()):
        return False
    if isinstance(cells, LIF):
        kept = cells.du != 4095 or bool(cells.bias.any()) or bool(cells.start.any())
        return encoding == "value" and one.exponent == 0 and not kept
    whole = one.exponent == spike_exp + STATE_EXP and isinstance(cells, SigmaDelta) and cells.activation == "unit"
    return encoding == "delta" and whole and not bool(cells.bias.any())


def _input_exponent(network: ChipNetwork, before: str, spike_exp: int) -> int:
    """Binary digits by which differences of the input are larger in lava-dl than here."""
    return spike_exp if before == INPUT and network.input.encoding == "delta" else 0


def _incoming(each: Population, before: str, losses: Losses) -> tuple[Synapses | None, Synapses | None]:
    """The synapses from the layer before, and those from the layer itself."""
    forward = [one for one in each.synapses if one.source == before]
    again = [one for one in each.synapses if one.source == each.name]
    if len(forward) != 1 or len(again) > 1 or len(forward) + len(again) != len(each.synapses):
        sources = ", ".join(one.source for one in each.synapses)
        losses.never(f"{each.name}, which is reached from {sources} and not from {before} alone: layers stand in a row")
        return None, None
    if again and (again[0].kind != "dense" or again[0].delay != 1 or again[0].delays is not None):
        losses.never(f"recurrent synapses of {each.name} that are no matrix, or take more than a step")
        return forward[0], None
    return forward[0], again[0] if again else None


def _layer(
    each: Population,
    forward: Synapses,
    again: Synapses | None,
    less: int,
    spike_exp: int,
    last: bool,
    losses: Losses,
) -> Group:
    each, by = _smaller(each, forward, again, losses)
    cells = each.neurons
    if isinstance(cells, Integrator) and not last:
        losses.never(f"{each.name}, which adds up and sends nothing, in front of another layer")
    up = STATE_EXP - cells.state_exp if isinstance(cells, SigmaDelta) and not _sums(cells) else 0
    weight = weights_of(each.name, forward, up - less - by, losses)
    group: Group = {"weight": weight.astype(np.float32), "neuron": _neuron(each, spike_exp, losses), **_ours(each)}
    if cells.bias.any():
        group["bias"] = bias_of(each, losses).astype(np.float32)
    if forward.kind == "conv":
        if forward.delay:
            losses.never(f"a delay of {forward.delay} steps of the convolution {each.name}")
        return group | _conv(each, forward)
    delays = delays_of(each.name, forward, losses)
    if delays is not None:
        group["delay"] = delays
    kind = "dense"
    if again is not None:
        kind, group["weight_rec"] = "dense_rec", weights_of(each.name, again, up - by, losses).astype(np.float32)
        if delays is not None:
            losses.never(f"delays of {each.name} beside its recurrent synapses")
    out, ins = weight.shape
    return group | {"type": _tag(kind), "shape": np.array([out]), "inFeatures": ins, "outFeatures": out}


def _smaller(each: Population, forward: Synapses, again: Synapses | None, losses: Losses) -> tuple[Population, int]:
    """A population in smaller whole numbers, where its weights do not fit with their exponents, and by how many digits.

    Neurons that keep no current and lose no potential fire at the same steps then: 64 more is the least that reaches
    them.
    """
    cells = each.neurons
    by = 0 if isinstance(cells, SigmaDelta) else excess([forward] if again is None else [forward, again])
    if isinstance(cells, SigmaDelta) or not by:
        return each, 0
    made = {"bias": cells.bias, "bias_exp": cells.bias_exp - by}
    if isinstance(cells, Integrator):
        return replace(each, neurons=replace(cells, **made), scale=each.scale * 2**by), by
    if cells.du != 4095 or cells.dv or cells.bias_exp < 6:
        losses.note(f"{by} binary digits of the states of {each.name}, whose leaks would round otherwise")
    return replace(each, neurons=replace(cells, **made, vth=cells.vth >> by)), by


def _conv(each: Population, one: Synapses) -> Group:
    outs, ins, *kernel = one.weight.shape
    sizes = {"inChannels": ins * one.groups, "outChannels": outs, "kernelSize": np.array(kernel), "groups": one.groups}
    steps = {name: np.array(getattr(one, name)) for name in ("stride", "padding", "dilation")}
    return {"type": _tag("conv"), "shape": np.array(each.shape), **sizes, **steps}


def _neuron(each: Population, spike_exp: int, losses: Losses, first: bool = False) -> Group:
    cells = each.neurons
    if isinstance(cells, Integrator):
        return {"type": "LOIHI", "iDecay": 4096, "vDecay": 0, "vThMant": SILENT, "refDelay": 1, "wgtExp": 0}
    if isinstance(cells, LIF):
        if cells.reset == "soft":
            losses.note(f"that {each.name} subtracts its threshold after a spike (it would be set to 0)")
        if cells.start.any():
            losses.note(f"where potentials of {each.name} begin (they would begin at 0)")
        if cells.refractory:
            losses.note(f"that {each.name} rests after a spike, in a way that lava-dl's reader follows (it would not)")
        lost = {"iDecay": cells.du + 1, "vDecay": cells.dv, "vThMant": cells.vth}
        return {"type": "LOIHI", **lost, "refDelay": cells.refractory + 1, "wgtExp": 0}
    if cells.cum_error:
        losses.note(f"that changes of {each.name} add up until they are sent (they would not)")
    group: Group = {"type": "SDNN", "activation": "relu", "vThMant": cells.vth}
    if _sums(cells):
        return group | {"sigma_output": True}
    if cells.activation == "unit" and not first:
        losses.never(f"{each.name}, sigma-delta neurons without a ReLU")
    if cells.spike_exp != spike_exp:
        losses.never(f"that {each.name} has another binary point ({cells.spike_exp}) than others ({spike_exp})")
    return group if spike_exp == STATE_EXP else group | {"spikeExp": spike_exp}


def _sums(cells: SigmaDelta) -> bool:
    """Whether neurons send on what they get, so that its sum is read."""
    return cells.activation == "unit" and cells.vth == cells.spike_exp == cells.state_exp == 0 and not cells.bias.any()


def _ours(each: Population) -> Group:
    """What only our reader looks at."""
    return {"name": each.name, "scale": each.scale}


def _tag(kind: str) -> np.ndarray:
    return np.array([kind.encode()], "S10")


def _store(tree: Group, path: Path) -> None:
    import h5py

    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        _fill(file, tree)
    write_atomically(path, held.getvalue())


def _fill(group: Any, tree: Group) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _fill(group.create_group(name), value)
        else:
            group.create_dataset(name, data=value)
