"""What a deployment writes for other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from engram.snn.deploy.configs import DeployConfig, Target
from engram.snn.interchange.netx.reading import read as read_netx
from engram.snn.interchange.netx.writing import write as write_netx
from engram.snn.interchange.nir.export import export
from engram.snn.interchange.nir.network import NirNetwork
from engram.snn.interchange.nir.options import NirOptions
from engram.snn.interchange.nir.reading import read as read_nir
from engram.snn.interchange.nir.writing import write as write_nir
from engram.snn.loihi.network import ChipNetwork
from engram.snn.loihi.simulator import Simulator
from engram.snn.lowering.network import Lowered

NETX, NIR = "network.net", "network.nir"


@dataclass(frozen=True)
class Written:
    """Files, by the name of the artifact, relative to the folder; and what their formats could only say nearly."""

    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write(config: DeployConfig, network: ChipNetwork, lowered: Lowered, folder: Path) -> Written:
    """Write the file of ``config.target``, if it has one.

    Raises:
        UserError: the format cannot say the network; all that it cannot, with reasons.
    """
    if config.target == "netx":
        return Written({"netx": NETX}, write_netx(network, folder / NETX, config.allow_approximate))
    if config.target == "nir":
        exported = export(lowered, allow_approximate=config.allow_approximate)
        write_nir(exported.graph, folder / NIR)
        lost = [f"{row['node']}: {row['what']}. {row['consequence']}" for row in exported.approximations]
        return Written({"nir": NIR}, (*lost, *exported.notes))
    return Written()


@torch.inference_mode()
def answers(target: Target, folder: Path, images: Tensor) -> Tensor:
    """What a file answers when it is read again and run.

    Args:
        target: ``nir`` or ``netx``.
        folder: where `write` wrote it.
        images: [B, C, H, W] or [B, T, C, H, W] uint8.

    Returns: [B] int64, the numbers of outputs.
    """
    if target == "netx":
        return Simulator(read_netx(folder / NETX)).run(images).logits[-1].argmax(1)
    channels, height, width = images.shape[-3:]
    net = NirNetwork(read_nir(folder / NIR), (channels, height, width), NirOptions()).eval()
    return net(images.float() if images.ndim == 5 else images.float() / 255).argmax(1)
