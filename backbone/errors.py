"""The two ways an engram command ends early on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The input is wrong and its owner can mend it: one line, exit code 2.

    The message reads "<what> must be <rule>; got <value>. <next step>".
    """


class MissingData(UserError):
    """The files of a data set are not there."""


class TrialError(Exception):
    """The work itself failed (a diverged loss, say): one line, exit code 1."""


def must(what: str, rule: str, got: object, next_step: str) -> UserError:
    """The house's one sentence for bad input.

    >>> str(must("--epochs", "at least 1", 0, "Leave it out for the recipe's value."))
    "--epochs must be at least 1; got 0. Leave it out for the recipe's value."
    """
    return UserError(f"{what} must be {rule}; got {got}. {next_step}")


APART = 0.2
"""A name this much less alike than the closest one was not meant."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that offers the closest known names, or all of them when none is close.

    >>> nearest("lenet", ["lenet5", "mlp", "resnet18"])
    'Did you mean lenet5?'
    >>> nearest("resnet", ["resnet18", "resnet-tiny"])
    'Did you mean resnet18 or resnet-tiny?'
    >>> nearest("zzz", ["lenet5", "mlp"])
    'Known: lenet5, mlp.'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        closeness = {each: difflib.SequenceMatcher(None, each, name).ratio() for each in close}
        close = [each for each in close if closeness[each] > closeness[close[0]] - APART]
        return f"Did you mean {' or '.join(close)}?"
    return f"Known: {', '.join(names)}." if names else "There is none."
