"""Experiment ``causal.scm``: train a network on pictures whose causes are known, and compare it with the truth."""

from __future__ import annotations

from engram.backbone.contract import Result, Services
from engram.backbone.data.load import Data
from engram.backbone.experiments.train import Train
from engram.backbone.nets.classifier import Classifier
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
        return Result(
            metrics={**found.metrics(), **usual.metrics},
            tables={**found.tables(), **usual.tables},
            figures={**found.figures(), **usual.figures},
        )
