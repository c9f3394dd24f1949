"""What is known of the data sets made here before a picture of them is made; no torch here."""

from __future__ import annotations

from pathlib import Path

from engram.backbone.contract import KnownData
from engram.backbone.data.corruptions.options import of_inner
from engram.backbone.data.known import ENVIRONMENT, FOREGROUND, GROUP, PRESENT, of_another
from engram.causal.data.checking import require_protocol
from engram.causal.data.options import BackgroundsOptions, BiasedOptions, ColouredOptions

IRM_TRAIN = {"e=0.2": 0.2, "e=0.1": 0.1}
IRM_TEST = {"e=0.9": 0.9}
DOMAINBED = {"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}
"""Environments of coloured digits by name: the share of the images whose colour is not the label's."""


def known_coloured(path: str | None, options: ColouredOptions | None, *, root: Path) -> KnownData:
    """Of ``coloured-mnist:PROTOCOL`` and ``coloured-digits:PROTOCOL``.

    Raises:
        UserError: there is no such protocol.
    """
    require_protocol("mnist", path)
    train, test = (IRM_TRAIN, IRM_TEST) if path == "irm" else (DOMAINBED, {})
    columns: dict[str, tuple[str, ...] | None] = dict.fromkeys((ENVIRONMENT, "colour", GROUP, "digit"))
    columns[ENVIRONMENT] = tuple(sorted(train))
    return KnownData(columns=columns, others={ENVIRONMENT: tuple(sorted(test))})


def known_biased(path: str | None, options: BiasedOptions | None, *, root: Path) -> KnownData | None:
    """Of ``biased:NAME``: shortcuts, and what the other set tells beside its classes.

    Raises:
        UserError: as for the other set.
    """
    o, base = options or BiasedOptions(), of_another(path, of_inner(path or "", options), root=root)
    if base is None:
        return None
    told = {name: values for name, values in base.columns.items() if name != PRESENT}
    found = {**told, **dict.fromkeys((*o.shortcuts, GROUP, FOREGROUND))}
    others = {name: values for name, values in base.others.items() if found.get(name) is not None}
    return KnownData(columns=found, others=others)


def known_backgrounds(path: str | None, options: BackgroundsOptions | None, *, root: Path) -> KnownData | None:
    """Of ``backgrounds:NAME``.

    Raises:
        UserError: as for the other set.
    """
    base = of_another(path, of_inner(path or "", options), root=root)
    if base is None:
        return None
    found = {**base.columns, **dict.fromkeys(("background", GROUP))}
    others = {name: values for name, values in base.others.items() if found.get(name) is not None}
    return KnownData(columns=found, others=others)
