"""What a deployment writes for other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engram.snn.deploy.configs import DeployConfig
from engram.snn.interchange.netx.writing import write as write_netx
from engram.snn.interchange.nir.export import export
from engram.snn.interchange.nir.writing import write as write_nir
from engram.snn.loihi.network import ChipNetwork
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
