"""Fully connected baseline."""

from __future__ import annotations

from torch import nn

from engram.backbone.nets.blocks import StaticBackbone, activation, scaled
from engram.backbone.nets.options import MLPOptions


class MLP(StaticBackbone):
    """A fully connected network; ``raw`` as in `engram.backbone.contract.Unnormalised`."""

    raw = False


class GlorotMLP(MLP):
    """One whose layers, the head's too, begin uniform after Glorot and Bengio 2010, with biases of 0."""

    def initialise(self, module: nn.Module) -> None:
        """Initialise a linear layer."""
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


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
    made = MLP if options.initialisation == "torch" else GlorotMLP
    net = made(in_shape, [nn.Identity()], nn.Sequential(*layers))
    net.raw = options.raw
    if isinstance(net, GlorotMLP):
        net.apply(net.initialise)
    return net
