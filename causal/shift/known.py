"""Which environments of the data can be held out and left out, by their names; no torch here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engram.backbone.data.known import ENVIRONMENT, GROUP
from engram.backbone.errors import UserError, must, nearest


def without_column(columns: Collection[str], held_out: bool) -> UserError:
    """The error where neither groups nor environments are known, or these are not and some are to be held out."""
    known = ", ".join(columns) or "none"
    if held_out:
        remedy = "Say what they are with --dataset.environment, or leave --held-out out."
        return must("--dataset beside --held-out", f"one with a column {ENVIRONMENT!r}", f"columns: {known}", remedy)
    remedy = "Say what they are with --dataset.environment or --dataset.group, or take coloured-mnist:irm."
    return must("--dataset", f"one with a column {ENVIRONMENT!r} or {GROUP!r}", f"columns: {known}", remedy)


def held_out_problems(held_out: Sequence[str], trained: Sequence[str], everywhere: Sequence[str]) -> list[UserError]:
    """What is wrong with environments that are not to be trained on.

    Args:
        held_out: their names.
        trained: the environments of the training images.
        everywhere: those of all images.
    """
    rule = f"environments of the data ({', '.join(everywhere)})"
    found = [must("--held-out", rule, name, nearest(name, everywhere)) for name in held_out if name not in everywhere]
    if not found and held_out and not set(trained) - set(held_out):
        got, rule = f"{', '.join(held_out)} of {', '.join(everywhere)}", "some of the environments"
        found.append(must("--held-out", f"{rule}, so that one is left to train on", got, "Name fewer."))
    return found


def left_out_problems(left_out: Sequence[str], trained: Sequence[str]) -> list[UserError]:
    """What is wrong with environments that are left out in turn, of those that are trained on."""
    known = ", ".join(trained) or "none"
    if not left_out:
        return []
    if strange := sorted(set(left_out) - set(trained)):
        return [must("--leave-out", f"environments that are trained on ({known})", ", ".join(strange), "Correct it.")]
    if lacking := sorted(set(trained) - set(left_out)):
        got = f"{', '.join(left_out)}, without {', '.join(lacking)}"
        return [must("--leave-out", f"all environments that are trained on ({known})", got, "Name these, too.")]
    return []
