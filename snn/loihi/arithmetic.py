"""One step of Loihi 2's neurons in whole numbers, as lava-nc 0.10.0's ``fixed_pt`` models compute it, bit for bit.

Tensors are int32 of any one shape. Sums are those of 32-bit registers: what leaves 32 bits wraps, here as there.

Source: lava-nc 0.10.0, the behaviour of ``lava.proc.lif``, ``sdn``, ``rf``, ``rf_iz``, ``dense`` and ``conv``, found by
running them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

DECAY_BITS = 12
ALIGNED_BITS = 6
"""What arrives and the threshold stand this many bits higher in the state."""
STATE_BITS = 24
HALF = 1 << (STATE_BITS - 1)
"""|u| is at most this after a wrap, |v| less."""


class Cells(NamedTuple):
    """Parameters of leaky integrate-and-fire neurons, ready for `lif`.

    Attributes:
        keep_u, keep_v: 4096ths of the current and the potential that are left after a step, 0 to 4096.
        threshold: a neuron fires when v is larger; None: it never does.
        back: what a spike subtracts from v; None: it sets v to 0.
        refractory: steps after a spike in which v stays and nothing fires.
        bias: int32, added to v at every step, already shifted; one that spreads over the drive.
    """

    keep_u: int
    keep_v: int
    threshold: int | None
    back: int | None
    refractory: int
    bias: Tensor


class Step(NamedTuple):
    """What `lif` gives: spikes, the state after the step, and where it left its range.

    Attributes:
        spikes: uint8 in {0, 1}.
        u, v: int32.
        rest: int32, steps without firing that are left; None where there are none.
        wrapped, clipped: bool, where u wrapped and where v was clipped.
    """

    spikes: Tensor
    u: Tensor
    v: Tensor
    rest: Tensor | None
    wrapped: Tensor
    clipped: Tensor


def lif(a: Tensor, u: Tensor, v: Tensor, rest: Tensor | None, cells: Cells) -> Step:
    """One step of leaky integrate-and-fire neurons.

        u <- wrap(trunc(u (4095 - du) / 4096) + 64 a)
        v <- clip(trunc(v (4096 - dv) / 4096) + u + bias)
        s  = v > threshold
        v <- 0 where s  (hard)    or    v - 64 (vth + 1) s  (soft)

    While a neuron rests v stays as it is and s is 0; u goes on. A threshold of None is an integrator.

    Args:
        a: int32, what arrives.
        u, v: int32, the state before.
        rest: int32, of `Step`; None where ``cells.refractory`` is 0.
        cells: the parameters (`Cells`).
    """
    u, wrapped = wrap(_int32(decayed(u, cells.keep_u).long() + (a.long() << ALIGNED_BITS)))
    to_be = _int32(decayed(v, cells.keep_v).long() + u + cells.bias)
    after = to_be.clamp(1 - HALF, HALF - 1)
    clipped = after != to_be
    resting = None if rest is None else rest > 0
    if resting is not None:
        after, clipped = torch.where(resting, v, after), clipped & ~resting
    if cells.threshold is None:
        return Step(torch.zeros_like(v, dtype=torch.uint8), u, after, rest, wrapped, clipped)
    fired = after > cells.threshold
    if rest is not None and resting is not None:
        fired = fired & ~resting
        rest = torch.where(fired, cells.refractory, (rest - 1).clamp(min=0)).to(torch.int32)
    after = torch.where(fired, torch.zeros_like(after) if cells.back is None else after - cells.back, after)
    return Step(fired.to(torch.uint8), u, after, rest, wrapped, clipped)


class SigmaDeltaCells(NamedTuple):
    """Parameters of sigma-delta neurons, ready for `sigma_delta`.

    Attributes:
        threshold: a change of at least this, in units of the state, is sent.
        state_exp: a message is the change shifted right by so many bits.
        rectified: whether the activation is a ReLU.
        cum_error: whether changes add up until their sum reaches the threshold.
        bias: int32 in units of the state.
    """

    threshold: int
    state_exp: int
    rectified: bool
    cum_error: bool
    bias: Tensor


class SigmaDeltaState(NamedTuple):
    """State of sigma-delta neurons, int32 each: what arrived in all, its activation, what was not sent, its sum."""

    sigma: Tensor
    act: Tensor
    residue: Tensor
    error: Tensor


def sigma_delta(a: Tensor, state: SigmaDeltaState, cells: SigmaDeltaCells) -> tuple[Tensor, SigmaDeltaState]:
    """One step of neurons that send what their activation has changed by.

        sigma <- sigma + a
        x      = max(sigma + bias, 0)  (or  sigma + bias)
        delta  = x - act + residue,    act <- x
        sent   = delta where |delta| >= threshold, else 0;    residue <- delta - sent

    With ``cum_error`` it is |error + delta| that is compared; error keeps that sum until something is sent.

    Args:
        a: int32, what arrives.
        state: of the step before (`SigmaDeltaState`).
        cells: the parameters (`SigmaDeltaCells`).

    Returns: (int32 messages, ``sent`` shifted right by ``state_exp``; the state after the step).
    """
    sigma = state.sigma + a
    x = sigma + cells.bias
    if cells.rectified:
        x = x.clamp(min=0)
    delta = x - state.act + state.residue
    compared = state.error + delta if cells.cum_error else delta
    sent = torch.where(compared.abs() >= cells.threshold, delta, 0)
    error = torch.where(sent != 0, 0, compared) if cells.cum_error else state.error
    return sent >> cells.state_exp, SigmaDeltaState(sigma, x, delta - sent, error)


class ResonatorCells(NamedTuple):
    """Parameters of resonate-and-fire neurons, ready for `resonate`.

    Attributes:
        sine, cosine: of the turn of a step, times what is left after it, in 2 ** -decay_bits.
        decay_bits: of both.
        state_exp: what arrives stands so many bits higher in the state.
        threshold: of the state.
        izhikevich: whether it is the imaginary part that fires, and is held below the threshold when it does.
    """

    sine: int
    cosine: int
    decay_bits: int
    state_exp: int
    threshold: int
    izhikevich: bool = False


def resonator(period: float, alpha: float, decay_bits: int, state_exp: int, vth: float, **more: bool) -> ResonatorCells:
    """Cells that turn once in ``period`` steps and lose a share ``alpha`` at each, rounded as Lava's ``RF`` does it."""
    turn, kept = 2 * math.pi / period, (1 - alpha) * 2**decay_bits
    threshold = int(vth * 2**state_exp)
    return ResonatorCells(
        int(kept * math.sin(turn)), int(kept * math.cos(turn)), decay_bits, state_exp, threshold, **more
    )


def resonate(
    a: tuple[Tensor, Tensor], state: tuple[Tensor, Tensor], cells: ResonatorCells
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One step of resonate-and-fire neurons: the state (x, y) is turned, decays and takes up what arrives.

        x <- trunc(cosine x) - trunc(sine y) + 2 ** state_exp a_x,   y <- trunc(sine x) + trunc(cosine y) + ... a_y
        s  = x >= threshold, and y >= 0 where it was below 0
        s  = y >= threshold; where s then x <- 0, y <- threshold - 1    (izhikevich)

    Args:
        a: int32 each, what arrives at the real and at the imaginary part.
        state: int32 each.
        cells: the parameters (`ResonatorCells`).

    Returns: (uint8 spikes, the state after the step).
    """
    (x, y), bits = (part.long() for part in state), cells.decay_bits

    def turned(factor: int, part: Tensor) -> Tensor:
        product = factor * part
        return product.sign() * (product.abs() >> bits)

    to_x = turned(cells.cosine, x) - turned(cells.sine, y) + (a[0].long() << cells.state_exp)
    to_y = turned(cells.sine, x) + turned(cells.cosine, y) + (a[1].long() << cells.state_exp)
    to_x, to_y = (part.clamp(1 - HALF, HALF - 1) for part in (to_x, to_y))
    if cells.izhikevich:
        fired = to_y >= cells.threshold
        to_x, to_y = torch.where(fired, 0, to_x), torch.where(fired, cells.threshold - 1, to_y)
    else:
        fired = (to_x >= cells.threshold) & (to_y >= 0) & (y < 0)
    return fired.to(torch.uint8), (_int32(to_x), _int32(to_y))


def decayed(x: Tensor, keep: int) -> Tensor:
    """x: int32 -> x keep / 4096, cut off towards zero."""
    if keep in (0, 1 << DECAY_BITS):
        return x if keep else torch.zeros_like(x)
    product = x.long() * keep
    return (product.sign() * (product.abs() >> DECAY_BITS)).to(torch.int32)


def wrap(u: Tensor) -> tuple[Tensor, Tensor]:
    """u: int32 -> (u, 2 ** 24 added or subtracted where it lies outside of (-2 ** 23, 2 ** 23]; where that is).

    Once: what is further away stays outside.
    """
    above, below = u > HALF, u <= -HALF
    return u - (above.to(torch.int32) << STATE_BITS) + (below.to(torch.int32) << STATE_BITS), above | below


def clamped(x: Tensor) -> Tensor:
    """x: int32 or int64 -> its lowest 24 bits as a number with a sign, int32: what a convolution sends on."""
    return (((x + HALF) & ((1 << STATE_BITS) - 1)) - HALF).to(torch.int32)


def shifted(x: Tensor, exponent: int) -> Tensor:
    """x: int64 -> int32 x 2 ** exponent; a negative exponent rounds down."""
    return _int32(x << exponent if exponent >= 0 else x >> -exponent)


def _int32(x: Tensor) -> Tensor:
    """x: int64 -> its lowest 32 bits."""
    return x.to(torch.int32)
