"""What a network of chip integers must be like, so that every number in it exists on the chip."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from engram.backbone.errors import UserError, must
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Population, SigmaDelta, Synapses

WEIGHTS = (-256, 255)
"""Of 8 bits with a sign, doubled (even numbers), or without one."""
PLAIN_WEIGHTS = (-128, 127)
LONGEST_DELAY = 62
"""Lava's ``DelayDense`` takes 63 steps, of which its own is one."""


def check(network: ChipNetwork) -> None:
    """Raise for a network that the chip cannot hold.

    Raises:
        UserError: everything that is wrong, one line each.
    """
    wrong = [str(each) for each in problems(network)]
    if wrong:
        raise UserError("\n".join(wrong))


def problems(network: ChipNetwork) -> Iterator[UserError]:
    """What is wrong with a network; nothing where it can run."""
    shapes = {INPUT: network.input.shape} | {each.name: each.shape for each in network.populations}
    before = {INPUT}
    if not network.populations:
        yield must("a network", "of at least one population", "none", "Quantise a classifier.")
        return
    for each in network.populations:
        yield from _of_neurons(each)
        for one in each.synapses:
            what = f"{each.name}: synapses from {one.source}"
            if one.source not in shapes:
                yield must(what, f"from one of {', '.join(shapes)}", one.source, "Name a population.")
            elif one.in_shape != shapes[one.source]:
                yield must(what, f"for {shapes[one.source]}", one.in_shape, "Give the source's shape.")
            elif one.delay < 0 or (one.delay == 0 and one.source not in before):
                yield must(what, "delayed, or from an earlier population", f"delay {one.delay}", "Reorder or delay it.")
            else:
                yield from _of_synapses(what, one, each)
        before.add(each.name)
    last = network.populations[-1].neurons
    if network.readout == "spikes" and not isinstance(last, LIF):
        yield must(
            "a network read by its spikes", "one that ends in LIF neurons", type(last).__name__, "Read potential."
        )
    if network.readout == "potential" and isinstance(last, LIF):
        yield must("a network read by its potential", "one that ends in an Integrator", "LIF", "Read its spikes.")


def _of_neurons(population: Population) -> Iterator[UserError]:
    neurons, name = population.neurons, population.name
    ranges: dict[str, tuple[int, int, int]] = {}
    if isinstance(neurons, LIF):
        ranges = {
            "du": (neurons.du, 0, 4095),
            "dv": (neurons.dv, 0, 4095),
            "vth": (neurons.vth, 0, 131071),
            "refractory": (neurons.refractory, 0, 63),
        }
    if isinstance(neurons, SigmaDelta):
        ranges = {
            "vth": (neurons.vth, 0, 2**23 - 1),
            "spike_exp": (neurons.spike_exp, 0, 7),
            "state_exp": (neurons.state_exp, 0, 7),
        }
    else:
        ranges["bias_exp"] = (neurons.bias_exp, 0, 7)
    for what, (value, low, high) in ranges.items():
        if not low <= value <= high:
            yield must(f"{name}: {what}", f"{low} to {high}", value, "Scale the layer.")
    most = (-(2**15), 2**15 - 1) if isinstance(neurons, SigmaDelta) else (-4096, 4095)
    yield from _in_range(f"{name}: bias", neurons.bias, *most)
    yield from _spreads(f"{name}: bias", neurons.bias, population.shape)
    if isinstance(neurons, LIF):
        yield from _in_range(f"{name}: start", neurons.start, 1 - 2**23, 2**23 - 1)
        yield from _spreads(f"{name}: start", neurons.start, population.shape)


def _in_range(what: str, values: Tensor, low: int, high: int) -> Iterator[UserError]:
    if values.is_floating_point() or values.numel() == 0:
        yield must(what, "int32 with a value", f"{values.dtype} of {tuple(values.shape)}", "Round it.")
        return
    least, most = int(values.min()), int(values.max())
    if least < low or most > high:
        yield must(what, f"{low} to {high}", f"{least} to {most}", "Scale the layer.")


def _spreads(what: str, values: Tensor, shape: tuple[int, ...]) -> Iterator[UserError]:
    if tuple(values.shape) not in {(1,), shape[:1], shape}:
        yield must(what, f"of shape (1,), {shape[:1]} or {shape}", tuple(values.shape), "Spread it.")


def _of_synapses(what: str, one: Synapses, target: Population) -> Iterator[UserError]:
    yield from _in_range(f"{what}: weight", one.weight, *WEIGHTS)
    found = _out_shape(one)
    if found is None or (math.prod(found) != math.prod(target.shape) if one.kind == "dense" else found != target.shape):
        got = f"weight {tuple(one.weight.shape)}, which gives {found or 'nothing'}"
        yield must(what, f"for a population of {target.shape}", got, "Change the weight's shape.")
    if not one.weight.is_floating_point() and one.weight.numel() and not _representable(one.weight):
        least, most = PLAIN_WEIGHTS
        rule = f"even, or {least} to {most}, where some are below 0 and some above"
        yield must(f"{what}: weight", rule, "odd numbers beyond", "Round it to even numbers.")
    if one.delays is not None:
        if one.kind != "dense" or one.delays.shape != one.weight.shape:
            yield must(f"{what}: delays", "of dense synapses, one for each", tuple(one.delays.shape), "Give [out, in].")
        yield from _in_range(f"{what}: delays", one.delays, 0, LONGEST_DELAY)


def _representable(weight: Tensor) -> bool:
    least, most = int(weight.min()), int(weight.max())
    plain = PLAIN_WEIGHTS[0] <= least and most <= PLAIN_WEIGHTS[1]
    return plain or least >= 0 or (most <= 0 and least > WEIGHTS[0]) or not bool((weight & 1).any())


def _out_shape(one: Synapses) -> tuple[int, ...] | None:
    """The shape that synapses give; None where their weight does not go with what they come from."""
    if one.kind == "dense":
        fits = one.weight.ndim == 2 and one.weight.shape[1] == math.prod(one.in_shape)
        return (one.weight.shape[0],) if fits else None
    if one.weight.ndim != 4 or len(one.in_shape) != 3:
        return None
    filters, channels, *kernel = one.weight.shape
    if one.groups < 1 or channels * one.groups != one.in_shape[0] or filters % one.groups:
        return None
    sides = zip(one.in_shape[1:], kernel, one.stride, one.padding, one.dilation, strict=True)
    size = tuple((n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k, stride, pad, dilation in sides)
    return (filters, *size) if min(size) > 0 else None


def check_images(network: ChipNetwork, images: Tensor) -> None:
    """Raise for images that the network's input does not take.

    Raises:
        UserError: another type, shape or range.
    """
    given, shape = network.input, network.input.shape
    wanted = ("B", "T", *shape) if network.frames else ("B", *shape)
    if images.is_floating_point() or images.is_complex() or images.dtype == torch.bool:
        raise must("images", "whole numbers", images.dtype, "Quantise them as the network's input says.")
    if images.ndim != len(wanted) or tuple(images.shape[-len(shape) :]) != shape or not images.numel():
        raise must("images", f"[{', '.join(map(str, wanted))}]", list(images.shape), "Give the network's own.")
    least = -(1 << (given.bits - 1)) if given.signed else 0
    most = (1 << (given.bits - 1)) - 1 if given.signed else (1 << given.bits) - 1
    got = int(images.min()), int(images.max())
    if got[0] < least or got[1] > most:
        raise must(
            "images", f"{least} to {most}", f"{got[0]} to {got[1]}", "Quantise them as the network's input says."
        )
