"""What an adapter needs of a network, and the refusal of one that lacks it."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from engram.backbone.contract import ABILITIES
from engram.backbone.errors import must

P = TypeVar("P")


def need(net: nn.Module, protocol: type[P], who: str) -> P:
    """The network as what it must be.

    Args:
        net: any network.
        protocol: of `engram.backbone.contract`, one that networks may have.
        who: needs it, such as the name of an adapter.

    Raises:
        UserError: the network is not that.
    """
    if not isinstance(net, protocol):
        has = [name for name, each in ABILITIES.items() if isinstance(net, each)]
        got = f"{type(net).__name__}, which is {', '.join(has) or 'none of these'}"
        what = (protocol.__doc__ or "").partition("\n")[0]
        remedy = f"{protocol.__name__}: {what} Use another --backbone, or write it (engram.backbone.contract.networks)."
        raise must(f"a network for {who}", protocol.__name__, got, remedy)
    return net
