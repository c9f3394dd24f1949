"""Fully connected baseline."""

from __future__ import annotations

from torch import nn

from backbone.nets.blocks import StaticBackbone, activation, scaled
from backbone.nets.options import MLPOptions


def mlp(in_shape: tuple[int, int, int], options: MLPOptions) -> StaticBackbone:
    """Flatten, then ``depth`` layers of 256 units times ``width``, or of ``units``; its only stage is the picture."""
    units = options.units or scaled(256, options.width)
    size = in_shape[0] * in_shape[1] * in_shape[2]
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(options.depth):
        layers.append(_linear(size, units, options))
        if options.normalisation == "batch":
            layers.append(nn.BatchNorm1d(units))
        elif options.normalisation == "group":
            layers.append(nn.LayerNorm(units))
        layers.append(activation(options.activation))
        if options.dropout:
            layers.append(nn.Dropout(options.dropout))
        size = units
    full = options.activation == "relu" and options.normalisation != "group"
    return StaticBackbone(in_shape, [nn.Identity()], nn.Sequential(*layers), "full" if full else "no")


def _linear(size: int, units: int, options: MLPOptions) -> nn.Linear:
    layer = nn.Linear(size, units)
    if options.initialisation == "glorot":
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
