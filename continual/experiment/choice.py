"""How strong a penalty should be: tried out on the first tasks of a stream, before all of it is learned."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from engram.backbone.contract import Row, Services
from engram.backbone.data.sets import Data, Split
from engram.backbone.data.splits import stratified
from engram.backbone.errors import TrialError, must
from engram.backbone.hardware import Precision
from engram.backbone.nets.classifier import Classifier
from engram.continual.experiment.candidates import Tried, best, upcoming
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.learning import Learning, StreamState, Within
from engram.continual.experiment.stream import Stream
from engram.continual.regularisation.penalty import PULL
from engram.continual.traits import in_turn, said, traits

HELD_OUT = 0.2
"""Share of the training images that strengths are chosen by, where the run holds none out itself."""
_SALT = 3  # of which images are held out; the splits of the data have 1 and 2


class Choice:
    """The strengths of a run that are auto, one after the other in the order of the strategies.

    Every candidate learns the first K tasks (``--cross-validation-tasks``) as the run itself will, from the same
    initial weights, and is judged by its mean accuracy on their validation images after the K-th; tests are not
    looked at. All share the first task, in which nothing is held on to yet. While one strength is chosen, those
    that are to follow are zero. Of the candidates the weakest is taken that cannot be told from the best (`best`).
    ``step`` is a unit of work, and what is known after it the ``state_dict``.

    Source: Chaudhry et al. 2019 (arXiv 1812.00420), section 2: hyperparameters are chosen on the first K tasks. There
    the stream goes on with the others alone; here it begins anew with all of them.

    Args:
        config: of the stream.
        data: of the run; a part of its training images is held out where it has no validation images.
        model: with the weights to begin with.

    Raises:
        UserError: there are too few images to hold some of every class out.
    """

    def __init__(
        self, config: StreamConfig, services: Services, precision: Precision, data: Data, model: Classifier
    ) -> None:
        self.config, self.services, self.model = config, services, model
        self.precision: Precision = precision
        self.names = config.to_choose()
        self.count = min(config.cross_validation_tasks, config.tasks)
        self.tried: dict[str, list[Tried]] = {name: [] for name in self.names}
        self.strengths: dict[str, float] = {} if self.count > 1 else dict.fromkeys(self.names, 0.0)
        """What has been chosen; with a single task there is nothing to hold on to."""
        self.seconds = 0.0
        self.learned = 0
        """Tasks that were learned on the way."""
        self.first: dict[str, Any] | None = None
        """What is known when the first task has been learned."""
        self.learning: Learning | None = None
        self.state: StreamState | None = None
        self.stream = None if self.done else Stream(config, self._held_out(data), services.device)
        self.images = 0 if self.stream is None else sum(len(self._images(task)) for task in range(self.count))

    @property
    def done(self) -> bool:
        return len(self.strengths) == len(self.names)

    @property
    def name(self) -> str:
        """The strategy whose strength is being chosen."""
        return self.names[len(self.strengths)]

    @property
    def strength(self) -> float:
        """The one to try now."""
        found = upcoming(self.tried[self.name], traits(self.name).strengths)
        assert found is not None
        return found

    @property
    def planned(self) -> int:
        """Tasks that will have been learned on the way, as far as one knows."""
        if self.done:
            return self.learned
        left = [max(1 + len(traits(name).strengths) - len(self.tried[name]), 1) for name in self.names]
        return self.learned + sum(left[len(self.strengths) :]) * (self.count - 1) + (self.first is None)

    def _held_out(self, data: Data) -> Data:
        if data.validation is not None:
            return data
        kept, held = stratified(data.train.labels, HELD_OUT, _SALT)
        there = data.train.labels[held].unique()
        if len(there) < len(data.classes):
            missing = next(name for label, name in enumerate(data.classes) if label not in there)
            what = f"the strength of {said(self.names[0])}"
            rule = f"a number where a class has no image to choose it by, as {missing!r}"
            remedy = f"Give --strategies.{said(self.names[0])}.{traits(self.names[0]).strength} one, or add images."
            raise must(what, rule, "auto", remedy)
        return replace(data, train=data.train.select(kept), validation=data.train.select(held))

    def _images(self, task: int) -> Split:
        split = None if self.stream is None else self.stream.part(task, "validation")
        assert split is not None
        return split

    def step(self, seconds: float) -> None:
        """Train for so long, or take stock of a candidate that has been trained."""
        began = time.perf_counter()
        if self.learning is None or self.state is None:
            self.learning, self.state = self._begin()
            if self.first is not None:
                self.learning.load_state_dict(self.state, copy.deepcopy(self.first))  # optimizers take tensors over
        state, task = self.state, self.state.learner.task
        try:
            more = self.learning.step(state, seconds)
        except TrialError:
            self._note(math.nan, None)
        else:
            ended = state.learner.done
            self.learned += ended
            if ended and self.first is None and task == 0:
                self.first = copy.deepcopy(self.learning.state_dict(state))
            if not more:
                reached = state.matrices.accuracy[-1]
                self._note(math.fsum(reached) / len(reached), self._effect(state))
        self.seconds += time.perf_counter() - began

    def _begin(self) -> tuple[Learning, StreamState]:
        """A candidate before its first step."""
        assert self.stream is not None
        chosen = {**dict.fromkeys(self.names, 0.0), **self.strengths, self.name: self.strength}
        config = replace(self.config.with_strengths(chosen), connectivity=0)
        about = f"choosing the strength of {said(self.name)}, {self.strength:g}: "
        before = self.learned - (self.first is not None)
        audience = Within(self.services, before, self.planned + self.config.tasks, about, logs=False)
        learning = Learning(config, audience, self.precision, tasks=self.count, part="validation")
        state = learning.start(self.stream, copy.deepcopy(self.model), method=None)
        learning.begin(state)
        return learning, state

    def _effect(self, state: StreamState) -> float | None:
        return state.strategies[in_turn(self.config.strategies).index(self.name)].effect()

    def _note(self, accuracy: float, effect: float | None) -> None:
        """A candidate is done; so may be the choice among them."""
        name, tried = self.name, self.tried[self.name]
        found = Tried(self.strength, accuracy, effect)
        if not math.isnan(accuracy):
            number = sum(map(len, self.tried.values()))
            key = f"choice/{said(name)}.{traits(name).strength}"
            self.services.log(number, {key: found.strength, f"{key}/validation/average_accuracy": accuracy})
        tried.append(found)
        self.learning = self.state = None
        if upcoming(tried, traits(name).strengths) is not None:
            return
        if math.isnan(best(tried, self.images).accuracy):
            raise TrialError(
                f"a strength of {said(name)} must be one to train with; got a loss that is not finite for any. "
                f"Try --lr {self.config.lr / 3:.2g} or --clip 1."
            )
        self.strengths[name] = best(tried, self.images).strength
        if self.done:
            self.stream = self.first = None

    def table(self) -> list[Row]:
        """Every candidate, with what it came to."""
        return [
            {
                "option": f"{said(name)}.{traits(name).strength}",
                "strength": each.strength,
                "validation accuracy": None if math.isnan(each.accuracy) else each.accuracy,
                PULL: each.effect,
                "chosen": self.strengths.get(name) == each.strength,
            }
            for name, tried in self.tried.items()
            for each in sorted(tried, key=lambda each: each.strength)
        ]

    def cautions(self) -> list[str]:
        """What the result has to say of how it came about."""
        found = []
        for name, tried in self.tried.items():
            if not tried:
                continue
            chosen, none = best(tried, self.images), next(each for each in tried if not each.strength)
            option = f"{said(name)}.{traits(name).strength}"
            found.append(
                f"{option} = {chosen.strength:g} was chosen on validation images of the first {self.count} tasks, "
                "which were then learned afresh: their share of the figures is of tasks that were seen before."
            )
            if chosen.rank[0] <= none.rank[0]:
                found.append(
                    f"no strength of {said(name)} that was tried did better than none on the first {self.count} tasks: "
                    f"{chosen.accuracy:.4f} at best, {none.accuracy:.4f} without."
                )
        return found

    def state_dict(self) -> dict[str, Any]:
        state = None
        if self.learning is not None and self.state is not None:
            state = self.learning.state_dict(self.state)
        return {
            "tried": {name: [asdict(each) for each in tried] for name, tried in self.tried.items()},
            "strengths": self.strengths,
            "seconds": self.seconds,
            "learned": self.learned,
            "first": self.first,
            "state": state,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state; the model has the weights to begin with."""
        self.tried = {name: [Tried(**each) for each in tried] for name, tried in saved["tried"].items()}
        self.strengths = dict(saved["strengths"])
        self.seconds, self.learned, self.first = saved["seconds"], saved["learned"], saved["first"]
        if saved["state"] is not None:
            self.learning, self.state = self._begin()
            self.learning.load_state_dict(self.state, saved["state"])
