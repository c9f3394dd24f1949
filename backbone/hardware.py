"""What the processor can do: devices and precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engram.backbone.errors import must

Precision = Literal["fp32", "bf16"]
SMALL_BATCH = 2**15  # values: a third of an MNIST batch of 128


@dataclass(frozen=True)
class Machine:
    """Where a network computes, and how exactly: "bf16" is autocast around the forward pass."""

    device: str
    precision: Precision = "fp32"


def choose_device(wanted: str) -> str:
    """CUDA for "auto" where there is one.

    Raises:
        UserError: cuda was asked for and is not there.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise must("--device", "one this machine has", "cuda", "Use --device cpu, or see: engram doctor")
    return wanted


def has_bf16(device: str) -> bool:
    """Whether bf16 arithmetic is in hardware; emulated it is slower than fp32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported() if torch.backends.mkldnn.is_available() else False
    return bool(supported) and torch.cpu._is_avx512_bf16_supported()


def suit_threads(values: int) -> None:
    """Use one thread for batches of few values, where waiting for the other threads costs more than they save.

    The rule looks at sizes, never at a clock, so that a seed gives the same numbers on a busy machine.
    """
    if values < SMALL_BATCH:
        torch.set_num_threads(1)


def wait(device: str) -> None:
    """Until the device has done what it was told, so that a clock shows it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def choose_precision(wanted: Literal["auto", "bf16", "fp32"], device: str) -> Precision:
    """For "auto" bf16 where the hardware has it, fp32 elsewhere."""
    if wanted == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return wanted


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    if precision != "bf16":
        return nullcontext()  # a switched off torch.autocast takes longer
    return torch.autocast(device.partition(":")[0], dtype=torch.bfloat16)


def exactly(values: Tensor) -> AbstractContextManager[object]:
    """In float32 where these values lie, within autocast too: for differences of large numbers, such as distances."""
    kind = values.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
