"""Connections as data: ``layer3>layer1,logits>layer2``; no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engram.backbone.errors import UserError, must

FEATURES, LOGITS = "features", "logits"
_STAGE = "layer"
_EXAMPLE = "Write them as in layer3>layer1,logits>layer2."


class Connection(NamedTuple):
    """What a stage gets from the step before.

    Attributes:
        source: ``layerK``, the output of stage number K, from 1; ``features``; or ``logits``.
        target: the stage whose output it changes, by its number from 0.
    """

    source: str
    target: int

    @property
    def stage(self) -> int | None:
        """The number of its source from 0, where that is a stage."""
        return stage_of(self.source)

    def __str__(self) -> str:
        return f"{self.source}>{name_of(self.target)}"


def name_of(stage: int) -> str:
    """What connections call a stage.

    >>> name_of(0)
    'layer1'
    """
    return f"{_STAGE}{stage + 1}"


def stage_of(name: str) -> int | None:
    """The stage that connections call so, by its number from 0; None where it is no stage.

    >>> stage_of("layer3"), stage_of("logits")
    (2, None)
    """
    number = name.removeprefix(_STAGE)
    plain = name.startswith(_STAGE) and number.isascii() and number.isdecimal() and number[0] != "0"
    return int(number) - 1 if plain else None


def parse(text: str, option: str = "connections") -> tuple[Connection, ...]:
    """Connections from their text.

    Raises:
        UserError: one line for everything that is none, stands twice or leads forward.

    >>> [str(each) for each in parse("layer3>layer1, logits>layer2")]
    ['layer3>layer1', 'logits>layer2']
    >>> parse("layer1>layer3")
    Traceback (most recent call last):
    engram.backbone.errors.UserError: layer1>layer3 in connections must be one that leads back, or from a stage to \
itself; got one that leads forward. Turn it round: layer3>layer1.
    """
    found: list[Connection] = []
    problems: list[UserError] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        source, _, target = (side.strip() for side in part.partition(">"))
        stage, to = stage_of(source), stage_of(target)
        if to is None or (stage is None and source not in (FEATURES, LOGITS)):
            rule = "SOURCE>TARGET, with layerK, features or logits as source and layerK as target, K from 1"
            problems.append(must(f"a connection in {option}", rule, part, _EXAMPLE))
        elif stage is not None and stage < to:
            rule = "one that leads back, or from a stage to itself"
            turned = f"Turn it round: {target}>{source}."
            problems.append(must(f"{part} in {option}", rule, "one that leads forward", turned))
        elif (connection := Connection(source, to)) in found:
            problems.append(must(f"{part} in {option}", "named once", "it twice", "Leave one out."))
        else:
            found.append(connection)
    if not found and not problems:
        problems.append(must(option, "at least one connection", repr(text), _EXAMPLE))
    if problems:
        raise UserError("\n".join(map(str, problems)))
    return tuple(found)


class Written:
    """Marks an option that holds connections as text, which is brought to one form.

    Args:
        within: they lead from stages to themselves.
    """

    def __init__(self, within: bool = False) -> None:
        self.within = within

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._in_one_form, handler(source))

    def _in_one_form(self, text: str) -> str:
        found = parse(text)
        return ",".join(map(str, within(found) if self.within else found))


def within(connections: Sequence[Connection], option: str = "connections") -> tuple[Connection, ...]:
    """The connections, which lead from stages to themselves.

    Raises:
        UserError: one line for every other one.
    """
    rule, remedy = "from a stage to itself", "Use feedback.blt for others beside them."
    across = [must(f"{each} in {option}", rule, each, remedy) for each in connections if each.stage != each.target]
    if across:
        raise UserError("\n".join(map(str, across)))
    return tuple(connections)


def between(connections: Sequence[Connection], stages: int, option: str = "connections") -> tuple[Connection, ...]:
    """The connections, of a network with so many stages.

    Raises:
        UserError: one line for every stage that is not there.
    """
    there = f"a stage of the network, layer1 to {name_of(stages - 1)}"
    named = {name for each in connections for name in (each.source, name_of(each.target))}
    missing = sorted(name for name in named if (stage_of(name) or 0) >= stages)
    if missing:
        raise UserError("\n".join(str(must(f"{name} in {option}", there, name, _EXAMPLE)) for name in missing))
    return tuple(connections)


def usual(stages: int) -> tuple[Connection, ...]:
    """From the last stage to every earlier one; of a network of one stage, from its features to that.

    >>> [str(each) for each in usual(3)]
    ['layer3>layer1', 'layer3>layer2']
    """
    if stages == 1:
        return (Connection(FEATURES, 0),)
    return tuple(Connection(name_of(stages - 1), stage) for stage in range(stages - 1))
