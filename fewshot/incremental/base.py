"""The base session: the one training loop, on the images of the base classes."""

from __future__ import annotations

from dataclasses import replace

from engram.backbone.contract import Services
from engram.backbone.data.load import Data
from engram.backbone.experiments.beginning import Beginning, begin
from engram.backbone.experiments.train import Train, TrainState
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model
from engram.fewshot.incremental.configs import IncrementalConfig, SessionOptions
from engram.fewshot.incremental.sessions import VIEW, Sessions


class BaseSession(Train):
    """`engram.backbone.experiments.train.Train` on the base classes alone.

    Attributes:
        whole: the data set with all its classes, once it is loaded.
        sessions: of those.
    """

    whole: Data
    sessions: Sessions

    def __init__(self, config: IncrementalConfig, services: Services) -> None:
        super().__init__(config, services)
        self.config: IncrementalConfig = config

    def load(self) -> Data:
        self.whole = super().load()
        self.sessions = Sessions(self.config.sessions(), self.whole)
        return self.sessions.base()

    def begin(self, data: Data) -> Beginning:
        c = self.config
        if c.from_trial is None and "trained" in self.services.inputs:
            c = replace(c, adapter=())  # they are there already
        head = None if c.head is None else in_full(Registry.discover(), "heads", c.head, c.head_options)
        return begin(c, data, self.services.inputs, head, relabel=False, renormalise=self.config.trains)

    def validate(self, state: TrainState) -> dict[str, float]:
        """Under names of their own: those of all classes are another network's."""
        return {f"base/{name}": value for name, value in super().validate(state).items()}

    def cautions(self) -> list[str]:
        """What to know of a network that knows classes which are to be new."""
        if "trained" not in self.services.inputs:
            return []
        _, made = load_model(self.services.inputs["trained"] / "model")
        base = {self.whole.classes[label] for label in self.sessions.groups[0]}
        learned = [name for name in self.whole.classes if name in self._learned(made) and name not in base]
        if not learned:
            return []
        names = ", ".join(learned[:5]) + (", ..." if len(learned) > 5 else "")
        return [
            f"The network of --from was trained on {len(learned)} of the classes that are new here, or others of their "
            f"names ({names}): what it makes of them is no few-shot accuracy. Start from a trial of "
            "fewshot.incremental with the same base classes (--class-order, --seed)."
        ]

    def _learned(self, made: Made) -> set[str]:
        """Names of the classes that a network was trained on all images of."""
        ref = made.data
        if ref is None or ref.view is None or ref.view.name != VIEW or ref.fingerprint != self.whole.fingerprint:
            return {*made.classes, *(name for names in made.meanings for name in names)}
        before = Sessions(SessionOptions(**ref.view.options), self.whole)
        return {self.whole.classes[label] for label in before.groups[0]}
