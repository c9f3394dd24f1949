"""What a stage says that the one before it gives, and how wrong that is for a change of the stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Channels, height and width."""


class Prediction(nn.Module):
    """A map, brought to another size, and a transposed convolution: linear but for its bias.

    ``forward`` is the prediction ``g(e) = W^T R e + b``, with R bilinear resizing where the sizes differ and W a
    convolution of stride 1 with borders of zeros; `adjoint` applies ``J^T = R^T W``, J being what g does to a change of
    e. Both are written out, so that neither needs a graph: they work in inference mode, and gradients go through them.

    Args:
        source: the shape of what predicts.
        target: that of what is predicted.
        kernel: odd side of the kernel.

    Attributes:
        scale: ``2 / sqrt(C)`` with C the number of cells of the target that one cell of the source touches, on average:
            times J^T of the error it is predify's scaled gradient of the mean squared error, which no batch size and no
            size of the target changes.

    Shapes: [B, *source] -> [B, *target].

    Source: Choksi et al. 2021 (arXiv 2106.02749), section 3 and the code's PCoderN for the scale.
    """

    def __init__(self, source: Shape, target: Shape, kernel: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(source[0], target[0], kernel, padding=kernel // 2)
        self.source, self.target = (source[1], source[2]), (target[1], target[2])
        rows, columns = (touched(*sides, kernel) for sides in zip(self.source, self.target, strict=True))
        self.scale = 2.0 / (target[0] * rows * columns) ** 0.5

    def forward(self, value: Tensor) -> Tensor:
        if self.source != self.target:
            value = F.interpolate(value, self.target, mode="bilinear")
        return self.conv(value)

    def adjoint(self, error: Tensor) -> Tensor:
        """error: [B, *target] -> J^T error, [B, *source]."""
        found = F.conv2d(error, self.conv.weight, padding=self.conv.padding)  # type: ignore[arg-type]
        if self.source == self.target:
            return found
        shape = [*found.shape[:2], *self.source]
        return torch.ops.aten.upsample_bilinear2d_backward(found, self.target, shape, False, None, None)


def touched(source: int, target: int, kernel: int) -> float:
    """How many cells in a row of ``target`` one of ``source`` changes when it is resized and convolved, on average.

    >>> touched(4, 4, 1), touched(4, 4, 3), touched(8, 16, 1)
    (1.0, 2.5, 3.75)
    """
    each = torch.eye(source)[:, None]
    reached = F.interpolate(each, target, mode="linear") if source != target else each
    wide = F.conv1d((reached != 0).float(), torch.ones(1, 1, kernel), padding=kernel // 2)
    return (wide > 0).sum(-1).float().mean().item()
