"""Weights, biases and delays as a ``.net`` file has them: whole numbers without exponents, in its reader's ranges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from engram.snn.interchange.netx.layers import BIAS, LONGEST_DELAY, SIGMA_BIAS, WEIGHT
from engram.snn.interchange.netx.losses import Losses
from engram.snn.loihi.network import Population, SigmaDelta, Synapses

MIXED = -256, 254
"""Of weights of both signs; lava-dl's reader clips a matrix there."""
BIAS_EXP = 6


def excess(synapses: Sequence[Synapses]) -> int:
    """Binary digits by which weights with their exponents are too large for a file, of all synapses of a population."""
    return max(0, *(one.exponent - _room(one.weight) for one in synapses))


def _room(weight: Tensor) -> int:
    """How far to the left weights can be shifted."""
    least, most = _range(weight.cpu().numpy())
    low, high = int(weight.min()), int(weight.max())
    return max((up for up in range(9) if low << up >= least and high << up <= most), default=0)


def _range(weight: np.ndarray) -> tuple[int, int]:
    return MIXED if weight.min() < 0 < weight.max() else WEIGHT


def weights_of(name: str, one: Synapses, up: int, losses: Losses) -> np.ndarray:
    """Weights with their exponent in them, int64 [out, in] or [O, I / groups, kH, kW].

    Args:
        name: of the population they reach.
        one: the synapses.
        up: binary digits to add to the exponent.
        losses: told of weights that are too large, or not whole.
    """
    exponent, weight = one.exponent + up, one.weight.cpu().numpy().astype(np.int64)
    if exponent >= 0:
        weight = weight << min(exponent, 32)
    elif (weight & ((1 << -exponent) - 1)).any():
        losses.note(f"weights of {name} with an exponent of {exponent} (they would be rounded)")
        weight = np.round(weight / (1 << -exponent)).astype(np.int64)
    else:
        weight = weight >> -exponent
    least, most = _range(weight)
    if weight.min() < least or weight.max() > most:
        got = f"{weight.min()} to {weight.max()}"
        losses.note(f"weights of {name} from {got}, exponent included (they would be cut to {least} to {most})")
        weight = weight.clip(least, most)
    if one.kind == "dense" and _misread(weight):
        losses.never(f"weights of {name} of which none is positive: lava-dl's reader gets those wrong")
    return weight


def _misread(weight: np.ndarray) -> bool:
    """Where lava-dl 0.6.0 chooses a sign mode or an exponent that does not fit, or ends in an overflow.

    Source: its ``optimize_weight_bits`` and lava-nc's ``Dense``, found by running them.
    """
    most, least = int(weight.max()), int(weight.min())
    return most == 0 or (most < 0 and (-least & (-least - 1)) == 0)


def bias_of(each: Population, losses: Losses) -> np.ndarray:
    """The biases of a population, int64 [C], or [W, H, C] where each neuron has its own."""
    cells = each.neurons
    bias = cells.bias.cpu().numpy().astype(np.int64)
    least, most = SIGMA_BIAS if isinstance(cells, SigmaDelta) else BIAS
    if not isinstance(cells, SigmaDelta):
        whole = np.round(bias * 2.0 ** (cells.bias_exp - BIAS_EXP)).astype(np.int64)
        if (whole * 2.0 ** (BIAS_EXP - cells.bias_exp) != bias).any():
            losses.note(f"biases of {each.name} with an exponent of {cells.bias_exp} (they would be rounded)")
        bias = whole
    if bias.min() < least or bias.max() > most:
        got = f"{bias.min()} to {bias.max()}"
        losses.note(f"biases of {each.name} from {got} (they would be cut to {least} to {most})")
        bias = bias.clip(least, most)
    if bias.ndim <= 1:
        return np.broadcast_to(bias.reshape(-1), each.shape[:1]).copy()
    return np.ascontiguousarray(bias.transpose())


def delays_of(name: str, one: Synapses, losses: Losses) -> np.ndarray | None:
    """Steps of each synapse of a matrix, int64 [out, in]; None where all arrive at once."""
    if one.delays is None and not one.delay:
        return None
    delays = np.zeros(tuple(one.weight.shape), np.int64) if one.delays is None else one.delays.cpu().numpy()
    delays = delays.astype(np.int64) + one.delay
    if delays.max() > LONGEST_DELAY:
        losses.note(f"delays of {name} above {LONGEST_DELAY} steps (they would be that)")
        delays = delays.clip(0, LONGEST_DELAY)
    return delays
