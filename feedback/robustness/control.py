"""``feedback.control``: what the parameters, or the operations, of a network with feedback are worth without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engram.backbone.contract import Named, Result, Services
from engram.backbone.data.load import Data
from engram.backbone.experiments.beginning import Beginning, begin
from engram.backbone.experiments.train import Train
from engram.backbone.nets.classifier import Classifier
from engram.backbone.options import in_full
from engram.backbone.options.named import options_within
from engram.backbone.registry import Registry
from engram.feedback.flags import options_for, with_feedback, without_feedback
from engram.feedback.robustness.control_configs import ControlConfig
from engram.feedback.robustness.matching import Found, at_width, find_width, measured, shown, size_of


class Control(Train):
    """`engram.backbone.experiments.train.Train` of the network without feedback, at the width that matches.

    The width follows from the configuration and the shape of the data alone. A network whose adapters add no feedback
    is its own control.

    Attributes:
        found: the width; None where nothing is to be matched.
    """

    found: Found | None = None

    def __init__(self, config: ControlConfig, services: Services) -> None:
        super().__init__(config, services)
        self.config: ControlConfig = config

    def begin(self, data: Data) -> Beginning:
        c = self.config
        if not with_feedback(c.adapter):
            return super().begin(data)
        self.found = found = self._match(data)
        self.services.table("Matching the network with feedback", found.rows())
        plain = () if "trained" in self.services.inputs else without_feedback(c.adapter)  # there they are already
        control = replace(
            c,
            backbone_options=at_width(c.backbone_options, found.width),
            adapter=plain,
            adapter_options=options_for(c.adapter_options, plain),
        )
        return begin(control, data, self.services.inputs, self._head())

    def _head(self) -> Named | None:
        c = self.config
        return None if c.head is None else in_full(Registry.discover(), "heads", c.head, c.head_options)

    def _match(self, data: Data) -> Found:
        c, registry, head = self.config, Registry.discover(), self._head()
        adapters = [in_full(registry, "adapters", name, options_within(c.adapter_options, name)) for name in c.adapter]
        plain = [each for each in adapters if each.name in without_feedback(c.adapter)]
        wanted = size_of(c.backbone, c.backbone_options, adapters, data, head)
        return find_width(
            c.match,
            wanted,
            lambda width: size_of(c.backbone, at_width(c.backbone_options, width), plain, data, head),
        )

    def measure(self, model: Classifier, data: Data) -> Result:
        result = super().measure(model, data)
        size = measured(model, shown(data, self.services.device))
        metrics = {**result.metrics, "flops_per_image": size.flops}
        tables: dict[str, Any] = dict(result.tables)
        if self.found is not None:
            metrics |= {"width": self.found.width, "mismatch": abs(self.found.mismatch(size))}
            tables["matching"] = self.found.rows()
        return Result(metrics=metrics, tables=tables, figures=result.figures)
