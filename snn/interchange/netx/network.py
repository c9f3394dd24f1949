"""A network of a ``.net`` file as a backbone: ``--backbone netx:FILE``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from engram.backbone.errors import must
from engram.snn.interchange.netx.fields import REMEDY
from engram.snn.interchange.netx.layers import layers_of
from engram.snn.interchange.netx.options import NetxOptions
from engram.snn.interchange.netx.reading import network_of
from engram.snn.interchange.netx.structure import from_text
from engram.snn.interchange.screening import screened
from engram.snn.loihi.network import ChipNetwork
from engram.snn.loihi.trainable import TrainableChip


def make(in_shape: tuple[int, int, int], options: NetxOptions, content: str, path: Path | None) -> NetxNetwork:
    """The network in a file, or one of its structure whose weights come afterwards.

    Raises:
        UserError: the file is none, or it takes other images.
    """
    file = from_text(content) if path is None else layers_of(screened(path, REMEDY), str(path))
    network = with_options(network_of(file, "a saved network" if path is None else str(path)), options)
    if tuple(network.input.shape) != tuple(in_shape):
        rule = f"of images of {'x'.join(map(str, network.input.shape))}, as the file's input"
        raise must("the data of a .net network", rule, f"{'x'.join(map(str, in_shape))}", "Use other data.")
    return NetxNetwork(network)


def with_options(network: ChipNetwork, options: NetxOptions) -> ChipNetwork:
    """The same network for pixels in [0, 1], with its steps."""
    given = network.input
    if options.pixels == "signed":  # x becomes 2 x - 1
        given = replace(given, gain=2 * given.gain, offset=given.offset - given.gain)
    return replace(network, input=given, steps=options.steps or network.steps)


class NetxNetwork(TrainableChip):
    """The network of a ``.net`` file; what is read of it are its features, and its logits until a head is trained.

    In evaluation it is simulated in whole numbers, as Lava does; training keeps them whole.

    Args:
        network: of `engram.snn.interchange.netx.reading`.
    """

    raw = True

    def initialise(self, module: nn.Module) -> None:
        """A head of as many outputs begins as the identity: the network's own outputs are the logits."""
        if isinstance(module, nn.Linear) and module.weight.shape == (self.feature_dim, self.feature_dim):
            nn.init.eye_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
