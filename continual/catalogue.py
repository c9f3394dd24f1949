"""What there is to know of every strategy before any is imported; no torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a strategy needs and where it is known to fail.

    Attributes:
        replays: it trains on rows of other tasks.
        buffer: it keeps images, as many as ``--buffer`` says.
        one_head: it cannot work where tasks have outputs of their own; use this one of ours there.
        needs_task: it must be told an image's task in tests as well.
        bounds: it must be told where one task ends and the next begins.
        alone: it cannot be combined with other strategies.
        turn: among several strategies those of a lower one come first in every hook (last in ``after_step``), whatever
            order they are named in; those of the same turn come by name. What measures steps (0) must see gradients
            before anything is added to them, and weights after all has been done to them; what weighs the loss of the
            task (1) comes before what adds to it (2); what keeps weights from moving, or from moving somewhere (3),
            comes behind what pulls at them.
        strength: its option that says how strong a penalty is, which may be auto.
        strengths: powers of ten to begin with where it is, in ascending order.
        fails_without_task: why it is known to fail where an image's task is not known and classes are new.
    """

    replays: bool = False
    buffer: bool = False
    one_head: str = ""
    needs_task: bool = False
    bounds: bool = True
    alone: bool = False
    turn: int = 2
    strength: str = ""
    strengths: tuple[float, ...] = ()
    fails_without_task: str = ""


_NEW_IMAGES = "its targets for old classes come from images of new ones"
_STAYS = "it keeps weights, but nothing compares old classes with new ones"

FACTS: Mapping[str, Facts] = {
    "continual.finetune": Facts(bounds=False, alone=True),
    "continual.joint": Facts(alone=True, replays=True),
    "continual.si": Facts(turn=0, strength="c", strengths=(0.1, 1.0, 10.0, 100.0, 1000.0), fails_without_task=_STAYS),
    "continual.ewc": Facts(
        strength="strength", strengths=(1.0, 10.0, 100.0, 1000.0, 10_000.0), fails_without_task=_STAYS
    ),
    "continual.mas": Facts(strength="strength", strengths=(0.001, 0.01, 0.1, 1.0, 10.0), fails_without_task=_STAYS),
    "continual.lwf": Facts(turn=1, fails_without_task=_NEW_IMAGES),
    "continual.er": Facts(replays=True, buffer=True, bounds=False),
    "continual.der": Facts(replays=True, buffer=True, bounds=False),
    "continual.derpp": Facts(replays=True, buffer=True, bounds=False),
    "continual.er-ace": Facts(replays=True, buffer=True, bounds=False),
    "continual.agem": Facts(replays=True, buffer=True, turn=3),
    "continual.icarl": Facts(replays=True, buffer=True, alone=True),
    "continual.dgr": Facts(replays=True),
    "continual.bi-r": Facts(replays=True, alone=True),
    "continual.packnet": Facts(needs_task=True, turn=3),
    "continual.hat": Facts(needs_task=True, turn=3),
    "continual.xdg": Facts(needs_task=True, turn=3),
    "avalanche": Facts(alone=True, buffer=True),
    "avalanche:DER": Facts(alone=True, buffer=True, one_head="continual.der"),
    "avalanche:ICaRL": Facts(alone=True, buffer=True, one_head="continual.icarl"),
    "avalanche:GSS_greedy": Facts(alone=True, buffer=True, one_head="continual.er"),
    "avalanche:EWC": Facts(alone=True, fails_without_task=_STAYS),
    "avalanche:MAS": Facts(alone=True, fails_without_task=_STAYS),
    "avalanche:PackNet": Facts(alone=True, needs_task=True),
    "avalanche:LwF": Facts(alone=True, fails_without_task=_NEW_IMAGES),
}


def facts(name: str) -> Facts:
    """Facts of a registered strategy; those of a third party's are not known: it may keep images, and is else plain."""
    return FACTS.get(name, FACTS.get(name.partition(":")[0], Facts(buffer=True)))


def in_turn(names: Sequence[str]) -> list[str]:
    """Names of strategies in the order in which their hooks are called.

    >>> in_turn(["continual.ewc", "continual.agem", "continual.si"])
    ['continual.si', 'continual.ewc', 'continual.agem']
    """
    return sorted(names, key=lambda name: (facts(name).turn, name))


def said(name: str) -> str:
    """What a strategy is called in messages: ours without our plugin's name.

    >>> said("continual.si"), said("avalanche:Replay")
    ('si', 'avalanche:Replay')
    """
    return name.removeprefix("continual.")


def short(name: str) -> str:
    """What a strategy is called among the options: the name without its plugin.

    >>> short("continual.si"), short("avalanche:Replay")
    ('si', 'avalanche')
    """
    return name.partition(":")[0].rpartition(".")[2]
