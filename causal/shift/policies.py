"""By what a network is chosen: three policies, and what each of them would have chosen.

They are those of Gulrajani and Lopez-Paz 2021 (arXiv 2007.01434), appendix D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from engram.backbone.contract import Row

Selection = Literal["train", "loo", "oracle"]
POLICIES: Mapping[Selection, str] = {
    "train": "training-domain validation",
    "loo": "leave-one-environment-out",
    "oracle": "oracle selection (test environment)",
}
"""What they are called in tables."""
SCORE, ORACLE, TEST = "validation/score", "oracle/accuracy", "test/accuracy"
"""Columns of the table of evaluations: what training-domain validation goes by; accuracy on the images that oracle
selection looks at, and on those that are scored."""
Scored = Literal["accuracy", "worst_group"]


def of_environment(name: str) -> str:
    """The column of the table of evaluations that has the accuracy on the test images of an environment."""
    return f"test/{name}/accuracy"


def left_out(trials: Mapping[str, Sequence[Row]]) -> list[float]:
    """What leave-one-environment-out goes by at each evaluation.

    That is the mean over environments of the accuracy on each, by a network that is trained without it.

    Args:
        trials: by environment the evaluations of that network, as many for each.
    """
    each = [[float(row[of_environment(name)] or 0) for row in rows] for name, rows in trials.items()]
    return [sum(scores) / len(scores) for scores in zip(*each, strict=True)]


def first_best(scores: Sequence[float | None]) -> int | None:
    """The place of the highest score, the first of several; None where there is none.

    >>> first_best([0.5, 0.75, None, 0.75]), first_best([None])
    (1, None)
    """
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    return -max(known)[1] if known else None


def chosen(rows: Sequence[Row], without: Sequence[float] | None) -> dict[Selection, int | None]:
    """The evaluation that each policy chooses, by its place among ``rows``; None where there is nothing to choose by.

    Training-domain validation and leave-one-environment-out take the first best evaluation. Oracle selection never
    looks for the best moment: it takes the last one, and is used to choose between trainings alone.

    Args:
        rows: the evaluations.
        without: what `left_out` makes of the same evaluations; None where no environment was left out.
    """
    if without is not None and len(without) != len(rows):
        raise ValueError(f"{len(without)} evaluations without an environment for {len(rows)} with all")
    return {
        "train": first_best([_number(row.get(SCORE)) for row in rows]),
        "loo": None if without is None else first_best(list(without)),
        "oracle": len(rows) - 1,
    }


def table(rows: Sequence[Row], without: Sequence[float] | None) -> list[Row]:
    """A row for each policy: which evaluation it chooses, by what, and what that scores on test images."""
    found, places = list[Row](), chosen(rows, without)
    for policy in get_args(Selection):
        place = places[policy]
        told = {"policy": policy, "name": POLICIES[policy]}
        if place is None:
            found.append({**told, "epoch": None, "selection_score": None, TEST: None})
            continue
        row = rows[place]
        by = {"train": row.get(SCORE), "loo": None if without is None else without[place], "oracle": row.get(ORACLE)}
        scores = {name: value for name, value in row.items() if name.startswith("test/")}
        found.append({**told, "epoch": row["epoch"], "selection_score": by[policy], **scores})
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
