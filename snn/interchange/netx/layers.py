"""The layers of a ``.net`` file as checked plain values, in the order of the file; no torch here.

Source: files of lava-dl 0.6.0, and what its reader (``netx.hdf5``) makes of them, found by running it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from engram.backbone.hdf5.reading import Tree
from engram.snn.interchange.netx.fields import Fields

WEIGHT = -256, 255
BIAS = -4096, 4095
"""A mantissa of 13 bits."""
SIGMA_BIAS = -(1 << 15), (1 << 15) - 1
MOST_THRESHOLD = (1 << 17) - 1
LONGEST_DELAY = 62
DIALECTS = ("LOIHI", "CUBA")


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A neuron group.

    Attributes:
        kind: ``lif`` (LOIHI and CUBA); ``sigma-delta``, or ``sigma`` where sums are the output (SDNN); ``integrator``
            for a layer without a neuron group.
        vth: the threshold mantissa, as the file has it.
        i_decay, v_decay: 4096ths that current and potential lose in a step.
        refractory: steps of rest after a spike (``refDelay`` less 1).
        spike_exp: binary digits behind the point of sigma-delta messages.
    """

    kind: Literal["lif", "sigma-delta", "sigma", "integrator"]
    vth: int = 0
    i_decay: int = 4096
    v_decay: int = 0
    refractory: int = 0
    spike_exp: int = 6

    @property
    def reads_out(self) -> bool:
        """Whether it only adds up what arrives."""
        silent = self.vth >= MOST_THRESHOLD and (self.i_decay, self.v_decay) == (4096, 0)
        return self.kind == "integrator" or (self.kind == "lif" and silent)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer that has neurons or sends: flattening has none.

    Attributes:
        number: its place in the file.
        name, scale: what we wrote beside it (`engram.snn.loihi.network.Population`).
        kind: ``input``, ``conv``, ``dense`` or ``average``; pooling is a convolution.
        shape: (C, H, W) or (N,) of its neurons.
        neuron: None for an input that sends what it is given.
        weight: int32 [O, I / groups, kH, kW] or [out, in].
        bias: int32 [O], [O, H, W], or None.
        recurrent: int32 [out, out], from each neuron of a ``dense_rec`` layer to each, a step later.
        delay: int32 [out, in], steps, or None.
        stride, padding, dilation: (y, x).
        gain, offset: an input's whole number for x is round(gain x + offset).
        bits, signed: an input's, of what it is given: a mantissa where it has neurons (13), or a message (16; 11 where
            it has a threshold, which is compared with differences of 12 more bits).
    """

    number: int
    name: str = ""
    scale: float = 1.0
    kind: Literal["input", "conv", "dense", "average"]
    shape: tuple[int, ...]
    neuron: Neuron | None = None
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    bias: np.ndarray | None = None
    recurrent: np.ndarray | None = None
    delay: np.ndarray | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    gain: float = 1.0
    offset: float = 0.0
    bits: int = 1
    signed: bool = False


@dataclass(frozen=True)
class Netx:
    """A whole file.

    Attributes:
        layers: the first is an input.
        steps: of a sample; None: it does not say.
        delay: steps that the read-out leaves out, of a file that we wrote.
        frames: whether a sample has an image for every step, of such a file.
    """

    layers: tuple[Layer, ...]
    steps: int | None
    delay: int = 0
    frames: bool = False


def layers_of(tree: Tree, name: str) -> Netx:
    """The layers of a file.

    Args:
        tree: what it holds.
        name: what errors call it.

    Raises:
        UserError: a layer is none that we read exactly, or has other values than its kind can have.
    """
    whole = Fields(tree, name)
    groups = whole.group("layer")
    count = len(groups.values)
    if not count or any(str(place) not in groups for place in range(count)):
        raise whole.wrong("layer", "groups 0, 1, 2 and so on", ", ".join(groups.values)[:60] or "nothing")
    found: list[Layer] = []
    for place in range(count):
        fields = groups.group(str(place))
        kind = fields.text("type")
        if kind == "flatten":
            continue
        if kind not in _READERS:
            raise fields.wrong("type", f"one of {', '.join([*_READERS, 'flatten'])}", kind[:40])
        if found and found[-1].kind == "average":
            raise fields.wrong("type", "nothing behind an average", kind)
        if not found and kind != "input":
            found.append(_first(fields, place))
        made = _READERS[kind](fields, place, found[-1].shape if found else ())
        found.append(replace(made, name=_name(fields, place), scale=fields.real("scale", 1.0)))
    if len(found) < 2:
        raise whole.wrong("layer", "an input and at least one layer with weights", f"{len(found)} layers")
    if len({layer.name for layer in found}) < len(found):
        raise whole.wrong("layer", "layers of different names", "two of one name")
    if "simulation" not in whole:
        return Netx(tuple(found), None)
    sample = whole.group("simulation")
    steps = sample.number("tSample", 1, 100_000) if "tSample" in sample else None
    delay = sample.number("readoutDelay", 0, (steps or 1) - 1, 0)
    return Netx(tuple(found), steps, delay, sample.flag("frames"))


def _name(fields: Fields, place: int) -> str:
    name = fields.text("name") if "name" in fields else f"layer{place}"
    if not 0 < len(name) <= 200 or not name.isprintable() or name == "input":
        raise fields.wrong("name", "a name of at most 200 letters other than input", repr(name[:40]))
    return name


def _first(fields: Fields, place: int) -> Layer:
    """The input of a file that begins with a dense layer: as many spikes as that takes."""
    if "inFeatures" not in fields:
        raise fields.wrong("type", "an input layer, or a dense one that says inFeatures", fields.text("type"))
    return Layer(number=place, name="spikes", kind="input", shape=(fields.number("inFeatures", 1, 1 << 24), 1, 1))


def _input(fields: Fields, place: int, before: tuple[int, ...]) -> Layer:
    if before:
        raise fields.wrong("type", "another than input behind the first layer", "input")
    shape = fields.shape()
    shape = (*shape, 1, 1) if len(shape) == 1 else (1, *shape)[-3:]
    if "neuron" not in fields:
        bits = fields.number("messageBits", 0, 24, 0) or 1
        return Layer(
            number=place,
            kind="input",
            shape=shape,
            bits=bits,
            signed=fields.flag("signed"),
            gain=_gain(fields, 1.0),
            offset=fields.real("bias", 0.0),
        )
    neuron = _neuron(fields)
    if neuron.kind == "sigma":
        raise fields.wrong("neuron/sigma_output", "off in an input", "on")
    return Layer(
        number=place,
        kind="input",
        shape=shape,
        neuron=neuron,
        bits=13 if neuron.kind == "lif" else 11 if neuron.vth else 16,
        signed=True,
        gain=_gain(fields, 64.0),
        offset=fields.real("bias", 0.0),
    )


def _gain(fields: Fields, default: float) -> float:
    gain = fields.real("weight", default)
    if not gain:
        raise fields.wrong("weight", "other than 0", gain)
    return gain


def _conv(fields: Fields, place: int, before: tuple[int, ...]) -> Layer:
    weight = _kernels(fields)
    groups = fields.number("groups", 1, 1 << 16, 1)
    return _convolved(fields, place, before, weight, groups)


def _pool(fields: Fields, place: int, before: tuple[int, ...]) -> Layer:
    """Sums of windows, all by one weight: a convolution of each channel by itself."""
    size = fields.pair("kernelSize", 1, 1 << 12)
    weight = _weights(fields)
    if weight.size == 0 or (weight != weight.flat[0]).any():
        raise fields.wrong("weight", "one number for the whole window", f"an array of shape {list(weight.shape)}")
    channels = before[0]
    return _convolved(fields, place, before, np.full((channels, 1, *size), weight.flat[0], np.int32), channels)


def _convolved(fields: Fields, place: int, before: tuple[int, ...], weight: np.ndarray, groups: int) -> Layer:
    if len(before) != 3:
        raise fields.wrong("type", "dense behind a dense layer", fields.text("type"))
    outs, ins, *kernel = weight.shape
    if before[0] != ins * groups or outs % groups:
        rule = f"kernels [O, {before[0]} / groups, y, x] for the {before[0]} channels before"
        raise fields.wrong("weight", rule, f"shape {list(weight.shape)} with groups {groups}")
    stride = fields.pair("stride", 1, 1 << 12, 1)
    padding = fields.pair("padding", 0, 1 << 12, 0)
    dilation = fields.pair("dilation", 1, 1 << 12, 1)
    sizes = [
        (size + 2 * pad - d * (k - 1) - 1) // s + 1
        for size, pad, d, k, s in zip(before[1:], padding, dilation, kernel, stride, strict=True)
    ]
    shape = (outs, *sizes)
    if min(sizes) < 1 or math.prod(shape) > 1 << 24:
        raise fields.wrong("weight", f"kernels that fit into {list(before[1:])}", f"an output of {list(shape)}")
    if "shape" in fields and fields.shape() != shape:
        raise fields.wrong("shape", f"{list(shape)}, which kernels, strides and padding give", list(fields.shape()))
    if "delay" in fields and fields.whole("delay", 0, math.inf).any():
        raise fields.wrong("delay", "left out of a convolution, where Lava ignores it", "delays")
    neuron = _neuron(fields)
    return Layer(
        number=place,
        kind="conv",
        shape=shape,
        neuron=neuron,
        weight=weight,
        bias=_bias(fields, shape, neuron),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def _dense(fields: Fields, place: int, before: tuple[int, ...]) -> Layer:
    if isinstance(fields.values.get("weight"), dict):
        raise fields.wrong("weight", "real", "complex weights, which only resonate-and-fire neurons take")
    ins, out = math.prod(before), math.prod(fields.shape())
    weight = _weights(fields)
    if weight.size != out * ins or weight.shape[:1] not in ((out,), (weight.size,)):
        raise fields.wrong("weight", f"{[out, ins]} for the {ins} values before", f"shape {list(weight.shape)}")
    recurrent = None
    if fields.text("type") == "dense_rec":
        recurrent = _weights(fields, "weight_rec")
        if recurrent.size != out * out:
            raise fields.wrong("weight_rec", f"{[out, out]}", f"shape {list(recurrent.shape)}")
        recurrent = recurrent.reshape(out, out)
    delay = _delay(fields, out, ins)
    if delay is not None and recurrent is not None:
        raise fields.wrong("delay", "left out of a recurrent layer, where Lava delays its own spikes too", "delays")
    neuron = _neuron(fields)
    return Layer(
        number=place,
        kind="dense",
        shape=(out,),
        neuron=neuron,
        weight=weight.reshape(out, ins),
        bias=_bias(fields, (out,), neuron),
        recurrent=recurrent,
        delay=delay,
    )


def _average(fields: Fields, place: int, before: tuple[int, ...]) -> Layer:
    """The mean over groups of neurons that follow each other, which is read out."""
    out, ins = math.prod(fields.shape()), math.prod(before)
    if ins % out:
        raise fields.wrong("shape", f"a number of groups that {ins} neurons are dealt into", list(fields.shape()))
    weight = np.kron(np.eye(out, dtype=np.int32), np.ones((1, ins // out), np.int32))
    return Layer(number=place, kind="average", shape=(out,), neuron=Neuron(kind="integrator"), weight=weight)


_READERS = {"input": _input, "conv": _conv, "dense": _dense, "dense_rec": _dense, "pool": _pool, "average": _average}


def _neuron(fields: Fields) -> Neuron:
    if "neuron" not in fields:
        return Neuron(kind="integrator")
    inner = fields.group("neuron")
    kind = inner.text("type")
    if kind == "SDNN":
        if "activation" in inner and inner.text("activation") != "relu":
            raise inner.wrong("activation", "relu: Lava's reader knows no other", inner.text("activation")[:40])
        vth, point = inner.number("vThMant", 0, MOST_THRESHOLD), inner.number("spikeExp", 0, 7, 6)
        return Neuron(kind="sigma" if inner.flag("sigma_output") else "sigma-delta", vth=vth, spike_exp=point)
    if kind not in DIALECTS:
        hint = " (resonate-and-fire neurons are not supported)" if "RF" in kind else ""
        raise inner.wrong("type", f"LOIHI, CUBA or SDNN{hint}", kind[:40])
    for name in ("wgtExp", "weight_exp"):
        if inner.number(name, -64, 64, 0):
            raise inner.wrong(name, "0: Lava ignores it", inner.number(name, -64, 64))
    if inner.flag("gradedSpike"):
        raise inner.wrong("gradedSpike", "off: Lava sends spikes of 1", "on")
    return Neuron(
        kind="lif",
        vth=inner.number("vThMant", 0, (1 << 24) - 1),
        i_decay=inner.number("iDecay", 1, 4096),
        v_decay=inner.number("vDecay", 0, 4095),
        refractory=inner.number("refDelay", 1, 63, 1) - 1,
    )


def _weights(fields: Fields, name: str = "weight") -> np.ndarray:
    """Weights as the chip holds them: 8 bits, doubled where they have both signs and any is beyond 7 bits."""
    weight = fields.whole(name, *WEIGHT)
    mixed = weight.size and weight.min() < 0 < weight.max()
    if mixed and (weight.min() < -128 or weight.max() > 127) and (weight & 1).any():
        raise fields.wrong(name, "even numbers, or -128 to 127, where they have both signs", "odd ones beyond")
    return weight


def _kernels(fields: Fields) -> np.ndarray:
    """[O, I / groups, y, x], of an array that may have a time of one step behind it."""
    weight = _weights(fields)
    if weight.ndim == 5 and weight.shape[4] == 1:
        weight = weight[..., 0]
    if weight.ndim != 4 or not weight.size:
        raise fields.wrong("weight", "kernels [O, I / groups, y, x]", f"shape {list(weight.shape)}")
    if "kernelSize" in fields and fields.pair("kernelSize", 1, 1 << 12) != weight.shape[2:]:
        raise fields.wrong("kernelSize", f"{list(weight.shape[2:])}, as weight has", fields.pair("kernelSize", 1, 4096))
    return weight


def _bias(fields: Fields, shape: tuple[int, ...], neuron: Neuron) -> np.ndarray | None:
    if "bias" not in fields:
        return None
    bias = fields.whole("bias", *(BIAS if neuron.kind in ("lif", "integrator") else SIGMA_BIAS))
    if bias.ndim <= 1 and bias.size in (1, shape[0]):
        return np.broadcast_to(bias.reshape(-1), shape[:1]).copy()
    if bias.shape == shape[::-1]:  # one for each neuron, (W, H, C)
        return np.ascontiguousarray(bias.transpose())
    raise fields.wrong("bias", f"{shape[0]} numbers, or {list(shape[::-1])}", f"shape {list(bias.shape)}")


def _delay(fields: Fields, out: int, ins: int) -> np.ndarray | None:
    """Of one number, one for each neuron that is reached (or, where those are not as many, that sends), or all."""
    if "delay" not in fields:
        return None
    delay = fields.whole("delay", 0, LONGEST_DELAY)
    if delay.ndim <= 1 and delay.size == out:
        delay = delay.reshape(-1, 1)
    elif (delay.ndim > 1 or delay.size not in (1, ins)) and delay.shape != (out, ins):
        raise fields.wrong("delay", f"1, {out} or {ins} numbers, or {[out, ins]}", f"shape {list(delay.shape)}")
    return np.broadcast_to(delay, (out, ins)).copy() if delay.any() else None
