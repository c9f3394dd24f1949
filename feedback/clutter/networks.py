"""The six networks of Spoerer, McClure and Kriegeskorte 2017, as options; no torch here."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Network = Literal["B", "BF", "BK", "BT", "BL", "BLT"]
BACKBONE, ADAPTER = "feedback.spoerer", "feedback.blt"
_LATERAL, _TOP_DOWN = "layer1>layer1,layer2>layer2", "layer2>layer1"


class _Parts(NamedTuple):
    times: int = 1  # as many maps
    kernel: int = 3
    connections: str = ""


_NETWORKS: dict[Network, _Parts] = {
    "B": _Parts(),
    "BF": _Parts(times=2),
    "BK": _Parts(kernel=5),
    "BT": _Parts(connections=_TOP_DOWN),
    "BL": _Parts(connections=_LATERAL),
    "BLT": _Parts(connections=f"{_LATERAL},{_TOP_DOWN}"),
}


def options_of(network: Network, maps: int, lrn: bool = True) -> dict[str, Any]:
    """What a network is made of, as the options of an experiment say it.

    >>> options_of("BF", 32)["backbone_options"]
    {'maps': 64, 'kernel': 3, 'lrn': True}
    >>> options_of("BT", 32)["adapter_options"]
    {'blt.connections': 'layer2>layer1', 'blt.lrn': True}
    """
    parts = _NETWORKS[network]
    adapter = {"blt.connections": parts.connections, "blt.lrn": lrn} if parts.connections else {}
    return {
        "backbone": BACKBONE,
        "backbone_options": {"maps": parts.times * maps, "kernel": parts.kernel, "lrn": lrn},
        "adapter": (ADAPTER,) if adapter else (),
        "adapter_options": adapter,
    }
