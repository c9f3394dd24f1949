"""Several objectives side by side: which groups no other one beats in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram.backbone.contract import Direction, Metric, Scatter
from engram.backbone.errors import must
from engram.benchmarks.compare.groups import Group, make_groups
from engram.benchmarks.compare.pareto import on_front
from engram.benchmarks.records.meaning import declared
from engram.benchmarks.records.outcomes import Outcomes, choose_metric

ON, DOMINATED = "on the Pareto front", "dominated"


@dataclass(frozen=True)
class Front:
    """Groups with a mean of every objective, those on the front first; ``labels`` are those of axes."""

    objectives: tuple[str, ...]
    labels: tuple[str, ...]
    groups: list[tuple[str, tuple[Group, ...], bool]]
    """A group's name, the group by each objective, and whether it is on the front."""

    def figures(self) -> list[Scatter]:
        """The first objective against each other one, with intervals over seeds."""
        return [self._figure(place) for place in range(1, len(self.objectives))]

    def _figure(self, place: int) -> Scatter:
        kinds = {
            ON: [held for _, held, on in self.groups if on],
            DOMINATED: [held for _, held, on in self.groups if not on],
        }
        points, xs, ys = {}, {}, {}
        for kind, those in kinds.items():
            pairs = [(held[place].interval, held[0].interval) for held in those]
            points[kind] = [(x.mean, y.mean) for x, y in pairs]
            xs[kind] = [(x.mean if x.low is None else x.low, x.mean if x.high is None else x.high) for x, _ in pairs]
            ys[kind] = [(y.mean if y.low is None else y.low, y.mean if y.high is None else y.high) for _, y in pairs]
        title = f"{self.objectives[0]} against {self.objectives[place]}"
        return Scatter(
            title=title, x_label=self.labels[place], y_label=self.labels[0], series=points, x_ranges=xs, y_ranges=ys
        )


def front(outcomes: Outcomes, names: Sequence[str]) -> Front | None:
    """The groups of a sweep by several metrics; None where no group has all of them.

    Raises:
        UserError: a metric is unknown, does not say what is better, or there is but one.
    """
    metrics = list(dict.fromkeys(choose_metric(outcomes, name) for name in names))
    promised = declared(outcomes.experiment)
    if strange := [name for name in metrics if name not in promised]:
        raise must("--objectives", "metrics that say what is better", ", ".join(strange), "Name others.")
    if len(metrics) < 2:
        raise must("--objectives", "two metrics at least", ", ".join(metrics), "Name another one.")
    by_metric = [{group.label: group for group in make_groups(outcomes, outcomes.axes, name)} for name in metrics]
    labels = [label for label in by_metric[0] if all(label in each for each in by_metric)]
    held = [tuple(each[label] for each in by_metric) for label in labels]
    directions: list[Direction] = [promised[name].direction for name in metrics]
    marks = on_front([[group.interval.mean for group in each] for each in held], directions)
    if not labels:
        return None
    found = sorted(zip(labels, held, marks, strict=True), key=lambda each: not each[2])
    return Front(tuple(metrics), tuple(_label(promised[name]) for name in metrics), found)


def _label(metric: Metric) -> str:
    better = "more" if metric.direction == "max" else "less"
    return f"{metric.label}, {better} is better"
