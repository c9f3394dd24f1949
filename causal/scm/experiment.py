"""Experiment ``causal.scm``: train a network on pictures whose causes are known, and compare it with the truth."""

from __future__ import annotations

from engram.backbone.contract import Conditional, Result, Row, Services
from engram.backbone.data.load import Data
from engram.backbone.experiments.train import Train
from engram.backbone.nets.classifier import Classifier
from engram.backbone.objectives.asking import asked
from engram.backbone.options import options_of
from engram.backbone.registry import Registry
from engram.causal.scm.comparing import Comparison, answers
from engram.causal.scm.configs import ScmConfig
from engram.causal.scm.graphs import model_of


class Scm(Train):
    """`engram.backbone.experiments.train.Train`, whose answers are held against P(y | do(x)) and P(y | x)."""

    def __init__(self, config: ScmConfig, services: Services) -> None:
        super().__init__(config, services)
        self.config: ScmConfig = config

    def measure(self, model: Classifier, data: Data) -> Result:
        """The test scores of any training, and the distances of the answers."""
        usual, c = super().measure(model, data), self.config
        options = options_of(Registry.discover(), "datasets", c.dataset, c.dataset_options)
        found = Comparison(answers(model, data.test, self.services.device), data.test, model_of(options))
        asks, _ = asked(c.objective, c.objective_options)
        told = confounded(model) if "given" not in asks.wants else []
        return Result(
            metrics={**found.metrics(), **usual.metrics},
            tables={**found.tables(), **usual.tables, **({"cautions": told} if told else {})},
            figures={**found.figures(), **usual.figures},
        )


def confounded(model: Classifier) -> list[Row]:
    """What to know of a head that adjusts and was not trained by likelihoods given what it adjusts for."""
    if not isinstance(model.head, Conditional):
        return []
    told = (
        f"The head averages over the column {model.head.column}, and was trained by its average: what makes that most "
        "likely is P(y | x). Its answers are no P(y | do(x)), whatever it is called."
    )
    return [{"caution": told}]
