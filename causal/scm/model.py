"""Structural causal models of a few discrete variables: everything that can be asked of them is a finite sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engram.backbone.data.lots import lots

Assignment = Mapping[str, int]
"""Variables and the numbers of their values."""


@dataclass(frozen=True)
class Variable:
    """One variable: whose children it is, and how likely each of its values is, given theirs.

    Attributes:
        name: what it is called.
        values: what its values are called.
        table: ``[*values of each parent, values]``, whose last dimension sums to 1.
        parents: the names of its causes, in the order of the table's dimensions.
    """

    name: str
    values: tuple[str, ...]
    table: np.ndarray
    parents: tuple[str, ...] = ()


class Model:
    """A structural causal model: variables, each after its causes.

    Distributions are exact: sums over every combination of values. A variable that is set by ``do`` keeps its value
    whatever its causes are, and all others their tables (truncated factorisation).

    Args:
        variables: in an order in which causes come before effects.

    Raises:
        ValueError: a table has another shape, or does not hold probabilities.

    Source: Pearl 2009, "Causality", definition 1.3.1 and equation 3.10.

    >>> rain = Variable("rain", ("no", "yes"), np.array([0.5, 0.5]))
    >>> wet = Variable("wet", ("no", "yes"), np.array([[0.9, 0.1], [0.2, 0.8]]), ("rain",))
    >>> model = Model((rain, wet))
    >>> model.observational("rain", {"wet": 1}).round(3).tolist()
    [0.111, 0.889]
    >>> model.interventional("rain", {"wet": 1}).tolist()
    [0.5, 0.5]
    """

    def __init__(self, variables: Sequence[Variable]) -> None:
        self.variables = {each.name: each for each in variables}
        self.names = tuple(self.variables)
        for number, each in enumerate(variables):
            if not set(each.parents) <= set(self.names[:number]):
                raise ValueError(f"the causes of {each.name} come before it; got {', '.join(each.parents)}")
            shape = tuple(len(self.variables[parent].values) for parent in each.parents)
            if each.table.shape != (*shape, len(each.values)):
                raise ValueError(f"the table of {each.name} is of shape {(*shape, len(each.values))}")
            if (each.table < 0).any() or not np.allclose(each.table.sum(-1), 1):
                raise ValueError(f"the table of {each.name} holds probabilities, which sum to 1")

    def joint(self, do: Assignment | None = None) -> np.ndarray:
        """How likely each combination of values is, ``[values of the first variable, ..., of the last]``.

        Args:
            do: variables that are set, whatever their causes are.
        """
        set_to = do or {}
        found = np.ones((1,) * len(self.names))
        for axis, (name, each) in enumerate(self.variables.items()):
            size = len(each.values)
            if name in set_to:
                shape = [1] * len(self.names)
                shape[axis] = size
                found = found * np.eye(size)[set_to[name]].reshape(shape)
            else:
                found = found * self._spread(each.table, (*each.parents, name))
        return found

    def observational(self, of: str, given: Assignment | None = None) -> np.ndarray:
        """P(of | given), as it is found where nobody interferes, ``[values]``."""
        return self._conditional(self.joint(), of, given or {})

    def interventional(self, of: str, do: Assignment, given: Assignment | None = None) -> np.ndarray:
        """P(of | do(...), given), by truncated factorisation, ``[values]``."""
        return self._conditional(self.joint(do), of, given or {})

    def backdoor(self, of: str, cause: Assignment, adjusted: str) -> np.ndarray:
        """``sum_z P(of | cause, z) P(z)``, from observational probabilities alone, ``[values]``.

        It is P(of | do(cause)) where the variable ``adjusted`` is no effect of the cause and blocks every path into it.

        Source: Pearl 2009, theorem 3.3.2.
        """
        prior = self.observational(adjusted)
        each = [self.observational(of, {**cause, adjusted: value}) for value in range(len(prior))]
        return prior @ np.stack(each)

    def frontdoor(self, of: str, cause: Assignment, mediator: str) -> np.ndarray:
        """``sum_r P(r | cause) sum_x P(of | r, x) P(x)``, from observational probabilities alone, ``[values]``.

        It is P(of | do(cause)) where the mediator carries the whole effect, and nothing unseen is behind both it and
        one of the two.

        Source: Pearl 2009, theorem 3.3.4.
        """
        (name,) = cause
        prior, carried = self.observational(name), self.observational(mediator, cause)
        each = [
            [self.observational(of, {mediator: r, name: x}) for x in range(len(prior))] for r in range(len(carried))
        ]
        return np.einsum("r,x,rxy->y", carried, prior, np.array(each))

    def sample(self, keys: np.ndarray, do: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Values of every variable, ``[N] int64`` each, one for each of ``keys: [N] uint64`` and a pure function of it.

        Args:
            keys: see `engram.backbone.data.lots`.
            do: variables that are set, to ``[N]`` values.
        """
        drawn = (lots(keys, len(self.names)) >> np.uint64(11)).astype(np.float64) / 2**53
        found: dict[str, np.ndarray] = {}
        for number, (name, each) in enumerate(self.variables.items()):
            if do is not None and name in do:
                found[name] = do[name]
            else:
                chances = each.table[tuple(found[parent] for parent in each.parents)]
                reached = np.broadcast_to(chances, (len(keys), len(each.values))).cumsum(-1)[:, :-1]
                found[name] = (drawn[:, number, None] >= reached).sum(-1)
        return found

    def _conditional(self, joint: np.ndarray, of: str, given: Assignment) -> np.ndarray:
        index = tuple(
            slice(given[name], given[name] + 1) if name in given else slice(None) for name in self.names
        )  # dimensions stay, each where its variable is
        others = tuple(axis for axis, name in enumerate(self.names) if name != of)
        found = joint[index].sum(others)
        return found / found.sum()

    def _spread(self, table: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The table ``[values of each of names]`` with a dimension for every variable of the model, in its order."""
        axes = [self.names.index(name) for name in names]
        order = np.argsort(axes)
        shape = [1] * len(self.names)
        for axis, size in zip(np.array(axes)[order], np.array(table.shape)[order], strict=True):
            shape[axis] = size
        return table.transpose(order).reshape(shape)


def total_variation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Half the sum of the differences of two distributions ``[..., values]``, from 0 (the same) to 1; ``[...]``."""
    return np.abs(first - second).sum(-1) / 2
