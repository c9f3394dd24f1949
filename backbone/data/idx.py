"""The IDX files of MNIST and its kin."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.files import read
from engram.backbone.errors import must

_UBYTE = 8


def read_idx(path: Path, dims: int) -> Tensor:
    """The unsigned bytes of an IDX file of ``dims`` dimensions.

    Raises:
        UserError: the file is missing, truncated, or something else.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "File formats".
    """
    again = "Delete it and run again with --download, or restore it."
    data = read(path, "an IDX file")
    header = 4 + 4 * dims
    if len(data) < header or data[:4] != bytes([0, 0, _UBYTE, dims]):
        got = f"{path} ({len(data)} bytes beginning with {data[:4].hex() or 'nothing'})"
        raise must("an IDX file", f"one of unsigned bytes in {dims} dimensions", got, again)
    shape = struct.unpack(f">{dims}I", data[4:header])
    if len(data) != header + math.prod(shape):
        rule = f"{header + math.prod(shape)} bytes long, as its header says"
        raise must("an IDX file", rule, f"{len(data)} bytes in {path}", again)
    if not math.prod(shape):
        raise must("an IDX file", "filled", f"none of {'x'.join(map(str, shape))} in {path}", again)
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8, offset=header).reshape(shape))


def read_labelled(folder: Path, prefix: str, classes: int) -> tuple[Tensor, Tensor]:
    """Images ``[N, 1, H, W] uint8`` and labels ``[N] int64`` of ``train`` or ``t10k``."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte", 3).unsqueeze(1)
    where = folder / f"{prefix}-labels-idx1-ubyte"
    labels = read_idx(where, 1).long()
    if len(images) != len(labels):
        raise must(f"{where}", f"{len(images)} labels long, as there are images", len(labels), "Restore both files.")
    if int(labels.max()) >= classes:
        row = int((labels >= classes).nonzero()[0])
        raise must(
            "a label", f"from 0 to {classes - 1}", f"{int(labels[row])} in {where} item {row}", "Restore the file."
        )
    return images, labels
