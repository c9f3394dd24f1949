"""The tree-structured Parzen estimator of Optuna: where proposals were good, more are made.

No state is kept: a study is made of what is known whenever a proposal is asked for, and its generator is seeded by the
proposal's number, so that what comes next is a function of the search's record alone.

Source: Bergstra et al. 2011 (NeurIPS, Algorithms for Hyper-Parameter Optimization); in several options at once as in
Falkner, Klein and Hutter 2018 (arXiv 1807.01774); several objectives as in Ozaki et al. 2022 (JAIR 73).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engram.backbone.contract import Direction
from engram.backbone.errors import must
from engram.backbone.shares import share
from engram.benchmarks.planning.space import Axis, Choice, Space, draw

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

STARTUP = 10
"""So many proposals must be scored first; before that they are those of a random search with the same seed."""
Known = tuple[Mapping[str, Any], Sequence[float] | None]
"""The options of a proposal with its scores; None: it is not done yet."""


def require_optuna() -> None:
    """See that Optuna is there.

    Raises:
        UserError: it is not.
    """
    try:
        import optuna  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise must("search.method", "one that can run here", "tpe", "Install engram[optuna], or use random.") from None


def suggest(
    space: Space, seed: int, number: int, known: Sequence[Known], directions: Sequence[Direction]
) -> dict[str, Any]:
    """The options of proposal ``number``, by what is known of those before it."""
    if sum(scores is not None for _, scores in known) < STARTUP:
        return draw(space, seed, number)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lot = int(share(f"{seed}/search/tpe/{number}") * 2**32)
    sampler = optuna.samplers.TPESampler(seed=lot, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)
    better = optuna.study.StudyDirection
    ways = [better.MAXIMIZE if each == "max" else better.MINIMIZE for each in directions]
    study = optuna.create_study(directions=ways, sampler=sampler)
    by_name = {axis.name: axis for axis in space}
    for options, scores in known:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: _inside(by_name[name], value) for name, value in options.items()},
                distributions={name: _distribution(by_name[name]) for name in options},
                values=None if scores is None else list(scores),
                state=optuna.trial.TrialState.RUNNING if scores is None else optuna.trial.TrialState.COMPLETE,
            )
        )
    asked, found = study.ask(), dict[str, Any]()
    for axis in space:
        if axis.counts(found):
            found[axis.name] = _suggested(asked, axis)
    return found


def _suggested(asked: Trial, axis: Axis) -> Any:
    held = axis.values
    if isinstance(held, Choice):
        return held.values[asked.suggest_categorical(axis.name, range(len(held.values)))]
    if held.whole:
        return asked.suggest_int(axis.name, int(held.low), int(held.high), log=held.log)
    return held.nearest(asked.suggest_float(axis.name, held.low, held.high, log=held.log))


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    held = axis.values
    if isinstance(held, Choice):
        return CategoricalDistribution(range(len(held.values)))
    if held.whole:
        return IntDistribution(int(held.low), int(held.high), log=held.log)
    return FloatDistribution(held.low, held.high, log=held.log)


def _inside(axis: Axis, value: Any) -> Any:
    """A value as Optuna has it: choices by their place, for it knows no lists, and takes True for 1."""
    return [*map(repr, axis.values.values)].index(repr(value)) if isinstance(axis.values, Choice) else value
