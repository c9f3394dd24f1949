"""Fully connected baseline."""

from __future__ import annotations

from torch import nn

from engram.backbone.nets.blocks import StaticBackbone, activation, scaled
from engram.backbone.nets.options import MLPOptions


def mlp(in_shape: tuple[int, int, int], options: MLPOptions) -> StaticBackbone:
    """Flatten, then ``depth`` layers of 256 units times ``width``, or of ``units``; its only stage is the picture."""
    units = options.units or scaled(256, options.width)
    size = in_shape[0] * in_shape[1] * in_shape[2]
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(options.depth):
        layers.append(nn.Linear(size, units))
        if options.normalisation == "batch":
            layers.append(nn.BatchNorm1d(units))
        elif options.normalisation == "group":
            layers.append(nn.LayerNorm(units))
        layers.append(activation(options.activation))
        if options.dropout:
            layers.append(nn.Dropout(options.dropout))
        size = units
    full = options.activation == "relu" and options.normalisation != "group"
    net = StaticBackbone(in_shape, [nn.Identity()], nn.Sequential(*layers), "full" if full else "no")
    if options.initialisation == "glorot":
        net.initialise = _glorot
        net.apply(_glorot)
    return net


def _glorot(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
