"""Experiment ``causal.concepts``: a concept bottleneck, corrected by hand, and what leaks through its concepts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.backbone.contract import Bars, Figure, Result, Row, Services
from engram.backbone.data.columns import CONCEPTS
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.experiments.train import Train
from engram.backbone.measures.scoring import shown
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.heads import conceptual
from engram.backbone.objectives.columns import columns_of
from engram.causal.concepts import leakage
from engram.causal.concepts.columns import with_concepts
from engram.causal.concepts.configs import HEAD, ConceptsConfig
from engram.causal.concepts.correcting import by_chance, by_uncertainty, curve, ends


@dataclass
class Told:
    """What a network makes of the images of a split: logits of concepts [N, C], and the truth, all on the CPU."""

    logits: Tensor
    present: Tensor
    labels: Tensor


class ConceptTraining(Train):
    """`engram.backbone.experiments.train.Train`, whose network's concepts are measured and corrected afterwards."""

    def __init__(self, config: ConceptsConfig, services: Services) -> None:
        super().__init__(config, services)
        self.config: ConceptsConfig = config

    def load(self) -> Data:
        data = super().load()
        if self.config.named:
            data = with_concepts(data, self.config.named)
        columns_of(data.train, (CONCEPTS,), "cpu")
        return data

    def begin(self, data: Data) -> Beginning:
        c = self.config
        if c.head == HEAD and "width" not in c.head_options:
            width = columns_of(data.train, (CONCEPTS,), "cpu")[CONCEPTS].shape[1]
            self.config = replace(c, head_options={**c.head_options, "width": width})
        return super().begin(data)

    def measure(self, model: Classifier, data: Data) -> Result:
        """What `Train` measures; concepts, the curves of corrections, and three measures of leakage."""
        whole = super().measure(model, data)
        train, test = (told(model, split, self.services.device) for split in (data.train, data.test))
        named = self.config.named or tuple(str(number) for number in range(1, test.logits.shape[1] + 1))
        head, between = conceptual(model.head.cpu()), ends(train.logits)
        orders = {
            "random": by_chance(len(named), self.config.seed),
            "uncertainty": [by_uncertainty(test.logits)],
        }
        curves = {
            name: curve(head, test.logits, test.present, test.labels, between, order) for name, order in orders.items()
        }
        model.to(self.services.device)
        rows = concept_rows(named, test)
        leaked, known = what_leaks(train, test)
        with_others = len(named) > 1
        metrics = {
            "test/concept_accuracy": _mean(rows, "accuracy"),
            "test/corrected_accuracy": curves["random"][-1],
            "test/leakage": leaked,
            "test/task_leakage": _mean(rows, "task_leakage"),
            **({"test/concept_leakage": _mean(rows, "concept_leakage")} if with_others else {}),
        }
        corrections: list[Row] = [
            {"corrected": count, **{name: values[count] for name, values in curves.items()}}
            for count in range(len(named) + 1)
        ]
        return Result(
            metrics={**whole.metrics, **metrics},
            tables={**whole.tables, "corrections": corrections, "concepts": rows, "leakage": known},
            figures={
                **whole.figures,
                "corrections": Figure(
                    title="Concepts corrected on test images",
                    x_label="concepts corrected",
                    y_label="accuracy",
                    series={name: list(enumerate(values)) for name, values in curves.items()},
                ),
                "concepts": Bars(
                    title="Concepts",
                    x_label="concept",
                    y_label="accuracy",
                    names=list(named),
                    series={"accuracy": [float(row["accuracy"] or 0) for row in rows]},
                ),
            },
        )


@torch.inference_mode()
def told(model: Classifier, split: Split, device: str) -> Told:
    """The concepts of all images of a split, in fp32; the network is in evaluation mode."""
    head, found = conceptual(model.head), list[Tensor]()
    for images, _, _ in shown(model, split, device):
        features = model.backbone(model.normalise(images))
        found.append(head.concepts(features).float().cpu())
    return Told(torch.cat(found), columns_of(split, (CONCEPTS,), "cpu")[CONCEPTS].bool(), split.labels)


def concept_rows(named: tuple[str, ...], test: Told) -> list[Row]:
    """A row for each concept: how often it is told rightly, how common it is, and what leaks through it."""
    right = ((test.logits > 0) == test.present).double().mean(0).tolist()
    of_class = leakage.of_the_class(test.logits, test.present, test.labels)
    of_others = leakage.of_other_concepts(test.logits, test.present)
    return [
        {
            "concept": name,
            "accuracy": right[k],
            "share": float(test.present[:, k].double().mean()),
            "task_leakage": of_class[k],
            "concept_leakage": of_others[k],
        }
        for k, name in enumerate(named)
    ]


def what_leaks(train: Told, test: Told) -> tuple[float, list[Row]]:
    """In points, how much oftener the class follows from concepts' numbers than true concepts allow; and a table.

    What is fitted is fitted to training images: the commonest class of every pattern of concepts, and a logistic
    regression of their logits.
    """
    guesses = {
        "true concepts": leakage.by_pattern(train.present, train.labels, test.present),
        "concepts as told, yes or no": leakage.by_pattern(train.logits > 0, train.labels, test.logits > 0),
        "concepts as told, their numbers": leakage.by_numbers(train.logits, train.labels, test.logits),
    }
    shares = {name: float((each == test.labels).double().mean()) for name, each in guesses.items()}
    first, *_, last = shares.values()
    return 100 * (last - first), [{"class made of": name, "accuracy": share} for name, share in shares.items()]


def _mean(rows: list[Row], name: str) -> float:
    return sum(float(row[name] or 0) for row in rows) / len(rows)
