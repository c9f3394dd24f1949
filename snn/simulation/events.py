"""Spikes as bytes, and layers that take time by the spike: the compiled side of the simulation.

On a CPU, in fp32, with a C compiler; everything here computes what torch's layers do, up to the order of summation.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.caching import user_cache
from engram.snn import compiled as native
from engram.snn.graph.pooling import window

_VECTORS = 8  # of filters that are added up at a time; WIDEST in events.c
_MOST_NUMBERS = 2**24  # of the inputs in a row of pixels, or in a window
_LARGEST_POOL = 8


class _Convolution(ctypes.Structure):
    """The arguments of ``convolve``; must match ``convolution`` in events.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "batch", "height", "width", "channels", "pool")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "stride_y", "stride_x", "pad_y", "pad_x")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "filters", "wide", "bands", "threads")),
        *((name, ctypes.c_void_p) for name in ("input", "weight", "bias", "v", "spikes", "drive")),
    )


class _Neurons(ctypes.Structure):
    """The arguments of ``fire``; must match ``neurons`` in events.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "neurons", "stride", "channels", "threads")),
        *((name, ctypes.c_void_p) for name in ("drive", "current", "v", "spikes")),
    )


class _Averages(ctypes.Structure):
    """The arguments of ``average``; must match ``averages`` in events.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("pictures", "height", "width", "channels", "pool", "threads")),
        *((name, ctypes.c_void_p) for name in ("spikes", "values")),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where nothing compiles."""
    kernel = native.compiled("engram.snn.simulation", "events.c")
    if kernel is not None:
        for function, structure in ((kernel.convolve, _Convolution), (kernel.fire, _Neurons)):
            function.argtypes, function.restype = [ctypes.POINTER(structure)], ctypes.c_int64
        kernel.average.argtypes, kernel.average.restype = [ctypes.POINTER(_Averages)], None
        kernel.lanes.argtypes, kernel.lanes.restype = [], ctypes.c_int64
    return kernel


def lanes() -> int:
    """Filters in a vector of the processor that the functions were compiled for."""
    kernel = library()
    assert kernel is not None
    return kernel.lanes()


def lasts() -> bool:
    """Whether what is compiled is still there for the next process."""
    return native.cache_folder().is_relative_to(user_cache("kernels"))


def usable(graph: nn.Module) -> bool:
    """Whether a network is on a CPU and something compiles."""
    tensors = chain(graph.parameters(), graph.buffers())
    return all(tensor.device.type == "cpu" for tensor in tensors) and library() is not None


def is_watched(module: nn.Module) -> bool:
    """Whether somebody hooked a module: it must then be called with tensors."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


@dataclass(frozen=True)
class Spikes:
    """The spikes of a layer, average pooling behind it included.

    Attributes:
        data: [T, B, H, W, C], [T, B, C] or, of what was flattened, [T, B, L, C] uint8 in {0, 1}, contiguous.
        count: how many there are.
        pool: side of the windows that are averaged; 1 for none.
    """

    data: Tensor
    count: int
    pool: int = 1

    @property
    def density(self) -> float:
        """The share of values that would not be zero, were spikes independent of each other."""
        return 1 - (1 - self.count / self.data.numel()) ** (self.pool * self.pool)

    def channels_first(self) -> Tensor:
        """[T, B, C, ...] uint8, without pooling; a view."""
        return self.data.movedim(-1, 2)

    def dense(self) -> Tensor:
        """[T * B, C, ...], channels last in memory; fp32."""
        steps, batch, *size, channels = self.data.shape
        height, width = size if self.pool > 1 else (math.prod(size), 1)
        pictures, sides = steps * batch, [side // self.pool for side in size]
        values = torch.empty(pictures, *sides, channels)
        kernel = library()
        assert kernel is not None
        threads = torch.get_num_threads()
        call = _Averages(pictures, height, width, channels, self.pool, threads, self.data.data_ptr(), values.data_ptr())
        kernel.average(call)
        return values.movedim(-1, 1)


@dataclass(frozen=True)
class Driven:
    """A layer that waits for the neurons behind it, which run along."""

    spikes: Spikes
    layer: nn.Conv2d | nn.Linear

    def like(self) -> Tensor:
        """Memory for the drive of one step, [B, C, H, W] or [B, C]."""
        shape = _result_shape(self.spikes, self.layer)
        return torch.empty(self.spikes.data.shape[1], *shape).movedim(-1, 1)

    def dense(self) -> Tensor:
        """The drive, [T * B, C, H, W] or [T * B, C]."""
        return convolved(self.spikes, self.layer)


def pooled(spikes: Spikes, layer: nn.AvgPool2d | nn.AdaptiveAvgPool2d) -> Spikes | None:
    """The spikes as they leave an average pooling; None unless its windows are square, do not overlap and fit."""
    if spikes.data.ndim != 5:
        return None
    height, width = (side // spikes.pool for side in spikes.data.shape[2:4])
    if isinstance(layer, nn.AvgPool2d):
        size = window(layer)
    else:
        size = height if height == width and layer.output_size in (1, (1, 1)) else 0
    return replace(spikes, pool=spikes.pool * size) if 0 < size <= min(height, width) else None


def fits(spikes: Spikes, layer: nn.Module) -> bool:
    """Whether a layer can follow these spikes."""
    if isinstance(layer, nn.Linear):
        fine = spikes.data.ndim == 3 and spikes.data.shape[-1] < _MOST_NUMBERS
    else:
        fine = isinstance(layer, nn.Conv2d) and spikes.data.ndim == 5 and _fits(spikes, layer)
    return fine and layer.weight.dtype == torch.float32


def _fits(spikes: Spikes, layer: nn.Conv2d) -> bool:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    if not plain or isinstance(layer.padding, str):
        return False
    width, channels = spikes.data.shape[3:]
    rows, columns = layer.kernel_size
    longest = max(width // spikes.pool + 2 * int(layer.padding[1]), rows * columns) * channels
    return longest < _MOST_NUMBERS and spikes.pool <= _LARGEST_POOL and min(_out_size(spikes, layer)) > 0


def _out_size(spikes: Spikes, layer: nn.Conv2d | nn.Linear) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return 1, 1
    sizes = zip(spikes.data.shape[2:4], layer.padding, layer.kernel_size, layer.stride, strict=True)
    height, width = ((size // spikes.pool + 2 * int(pad) - side) // stride + 1 for size, pad, side, stride in sizes)
    return height, width


def convolved(spikes: Spikes, layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The output of a layer that `fits`: [T * B, C, H, W], channels last in memory, or [T * B, C]."""
    steps, batch = spikes.data.shape[:2]
    drive = torch.empty(steps * batch, *_result_shape(spikes, layer))
    _convolve(spikes, layer, _bias(layer), drive=drive)
    return drive.movedim(-1, 1)


def convolved_and_fired(driven: Driven, v: Tensor, current: Tensor | None) -> tuple[Spikes, Tensor]:
    """The spikes of integrate-and-fire neurons behind a layer that `fits`; both run in one pass over memory.

    Args:
        v: [B, C, H, W] or [B, C] potential before the first step; given up.
        current: [C] or [1], added to the drive of every step.

    Returns: (spikes, [B, C, ...] the potential after the last step).
    """
    spikes, layer = driven.spikes, driven.layer
    filters = len(layer.weight)
    bias = _bias(layer) if current is None else _bias(layer) + current
    left = F.pad(v.movedim(1, -1), (0, -filters % lanes())).contiguous()
    data = torch.empty(spikes.data.shape[0], *left.shape[:-1], filters, dtype=torch.uint8)
    count = _convolve(spikes, layer, bias, v=left, fired=data)
    return Spikes(data, count), left[..., :filters].movedim(-1, 1)


def fired(drive: Tensor, v: Tensor, current: Tensor | None) -> tuple[Spikes, Tensor]:
    """The spikes of integrate-and-fire neurons with threshold 1, as bytes.

    Args:
        drive: [T, B, C, ...] fp32; may be a constant expanded over T.
        v: [B, C, ...] potential before the first step; given up.
        current: [C] or [1], added to the drive of every step.

    Returns: (spikes, [B, C, ...] the potential after the last step).
    """
    rows = drive.movedim(2, -1)
    rows = rows if rows[0].is_contiguous() else rows.contiguous()
    left = v.movedim(1, -1).contiguous()
    data = torch.empty(rows.shape, dtype=torch.uint8)
    every = None if current is None else current.expand(drive.shape[2]).contiguous()
    call = _Neurons(
        steps=len(rows),
        neurons=left.numel(),
        stride=rows.stride(0),
        channels=drive.shape[2],
        threads=torch.get_num_threads(),
        drive=rows.data_ptr(),
        current=None if every is None else every.data_ptr(),
        v=left.data_ptr(),
        spikes=data.data_ptr(),
    )
    kernel = library()
    assert kernel is not None
    return Spikes(data, kernel.fire(call)), left.movedim(-1, 1)


def _result_shape(spikes: Spikes, layer: nn.Conv2d | nn.Linear) -> tuple[int, ...]:
    filters = len(layer.weight)
    return (filters,) if isinstance(layer, nn.Linear) else (*_out_size(spikes, layer), filters)


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


def _convolve(
    spikes: Spikes,
    layer: nn.Conv2d | nn.Linear,
    bias: Tensor,
    v: Tensor | None = None,
    fired: Tensor | None = None,
    drive: Tensor | None = None,
) -> int:
    """Fill ``v`` and ``fired``, or ``drive``. Returns how many spikes were sent."""
    data, threads = spikes.data, torch.get_num_threads()
    steps, batch = data.shape[:2]
    out_height, out_width = _out_size(spikes, layer)
    conv = isinstance(layer, nn.Conv2d)
    weight, padded = _arranged(layer.weight.detach()), F.pad(bias, (0, -len(bias) % lanes())).contiguous()
    call = _Convolution(
        steps=steps,
        batch=batch,
        channels=data.shape[-1],
        pool=spikes.pool,
        out_height=out_height,
        out_width=out_width,
        filters=len(bias),
        wide=len(padded),
        bands=min(-(-threads // batch), out_height),  # parts of an image, where there are fewer images than threads
        threads=threads,
    )
    call.height, call.width = data.shape[2:4] if conv else (1, 1)
    call.rows, call.columns = layer.kernel_size if conv else (1, 1)
    call.stride_y, call.stride_x = layer.stride if conv else (1, 1)  # type: ignore[assignment]
    call.pad_y, call.pad_x = layer.padding if conv else (0, 0)  # type: ignore[assignment]
    tensors = {"input": data, "weight": weight, "bias": padded, "v": v, "spikes": fired, "drive": drive}
    for name, tensor in tensors.items():
        setattr(call, name, None if tensor is None else tensor.data_ptr())
    kernel = library()
    assert kernel is not None
    return kernel.convolve(call)


def _arranged(weight: Tensor) -> Tensor:
    """weight: [F, C, ...] -> flat, for events.c: [blocks of filters][rows * columns * C + 1][filters of the block]."""
    rows = weight.movedim(1, -1).reshape(len(weight), -1).T
    rows = F.pad(rows, (0, -len(weight) % lanes(), 0, 1))
    sizes, left = [], rows.shape[1]
    while left:
        sizes.append(min(_VECTORS * lanes(), lanes() << (left // lanes()).bit_length() - 1))
        left -= sizes[-1]
    return torch.cat([part.reshape(-1) for part in rows.split(sizes, 1)])
