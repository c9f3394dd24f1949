"""How a still picture becomes a sequence of frames for spiking neurons."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engram.backbone.errors import must, nearest

DELTA = 1 / 16
"""Step of the delta code, in units of the pixel range."""


def encode(coding: str, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Frames for T time steps from pictures.

    ========  ===================================================================  ======================
    coding    frame at step t = 1 ... T                                            mean over time
    ========  ===================================================================  ======================
    constant  x                                                                    x
    poisson   1 with probability x, else 0, independently                          x expected, sd <= 1/(2 sqrt T)
    latency   1 from step ceil((1 - x) T) + 1 on, 0 before                         in (x - 1/T, x]
    delta     what a receiver has summed up from events of +-`DELTA`, one a step   tends to within `DELTA` of x
    ========  ===================================================================  ======================

    Frames are in [0, 1]; a network that normalises its input normalises frames the same, and as that is affine the
    mean of normalised frames is the normalised mean.

    Args:
        coding: as above.
        x: [B, C, H, W] in [0, 1].
        steps: T.
        generator: where ``poisson`` draws from, on the device of x; the frames are a function of it.

    Returns: [B, T, C, H, W]; ``constant`` repeats x without copying.

    Raises:
        UserError: the coding is unknown, there are no steps, or pixels are outside [0, 1] or NaN.
    """
    if coding not in _CODINGS:
        raise must("the input coding", "a known one", coding, nearest(coding, _CODINGS))
    if steps < 1:
        raise must("the number of steps", "at least 1", steps, "Use more steps.")
    if not bool(((x >= 0) & (x <= 1)).all()):  # NaN included
        raise must(
            "pixels to encode", "in [0, 1]", f"{float(x.min())} to {float(x.max())}", "Encode before normalising."
        )
    return _CODINGS[coding](x.unsqueeze(1).expand(-1, steps, *x.shape[1:]), generator)


def _constant(x: Tensor, _generator: torch.Generator | None) -> Tensor:
    return x


def _poisson(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Source: Heeger 2000, Poisson model of spike generation (one Bernoulli draw a step)."""
    if generator is None:
        raise ValueError("Poisson coding needs a generator")
    return torch.empty(x.shape, dtype=x.dtype, device=x.device).uniform_(generator=generator).lt(x).to(x.dtype)


def _latency(x: Tensor, _generator: torch.Generator | None) -> Tensor:
    """The brighter, the earlier. Source: Thorpe, Delorme, Van Rullen 2001 (doi 10.1016/S0893-6080(01)00083-1)."""
    steps = x.shape[1]
    on = (x * steps + 1e-4).floor()  # how many steps; 1e-4 of a step makes up for the rounding of k / T * T
    step = torch.arange(steps, device=x.device).view(-1, 1, 1, 1)
    return (step >= steps - on).to(x.dtype)


def _delta(x: Tensor, _generator: torch.Generator | None) -> Tensor:
    return delta_sums(delta_events(x), x.dtype).clamp_(0, 1)


def delta_events(frames: Tensor, delta: float = DELTA) -> Tensor:
    """The events of a sensor that sends changes: one of either sign per pixel and step, while its receiver is behind.

        s[t] = sign(x[t] - r[t-1]) if |x[t] - r[t-1]| >= delta else 0
        r[t] = r[t-1] + delta s[t],  r[0] = 0

    Args:
        frames: x, [B, T, C, H, W]; a still picture is the same T times over.
        delta: > 0, in units of the frames.

    Returns: s, [B, T, C, H, W] int8 in {-1, 0, 1}; ``events.abs().sum()`` is what is sent. A still picture sends
    ``min(T, floor(x / delta))`` events per pixel.

    Source: Lichtsteiner, Posch, Delbruck 2008 (doi 10.1109/JSSC.2007.914337), linear instead of logarithmic.
    """
    received = torch.zeros_like(frames[:, 0])  # in events, so that no rounding adds up
    events = torch.empty(frames.shape, dtype=torch.int8, device=frames.device)
    for t, x in enumerate(frames.unbind(1)):
        behind = x / delta - received
        sent = behind.sign() * (behind.abs() >= 1 - 1e-4)
        received += sent
        events[:, t] = sent.to(torch.int8)
    return events


def delta_sums(events: Tensor, dtype: torch.dtype, delta: float = DELTA) -> Tensor:
    """What a receiver has after each step. events: [B, T, C, H, W] in {-1, 0, 1} -> the same shape."""
    return events.cumsum(1, dtype=dtype).mul_(delta)


_CODINGS: dict[str, Callable[[Tensor, torch.Generator | None], Tensor]] = {
    "constant": _constant,
    "poisson": _poisson,
    "latency": _latency,
    "delta": _delta,
}
