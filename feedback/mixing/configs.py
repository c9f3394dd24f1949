"""Options of ``feedback.mixing``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt

from engram.backbone.contract import (
    NOTHING,
    ExperimentConfig,
    Flag,
    Input,
    Inputs,
    Metric,
    OptionsOf,
    Registered,
    Requirement,
    Scalar,
)
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.experiments.network_configs import other_network

LEVELS: Mapping[str, tuple[float, ...]] = {"gaussian": (0.0, 0.2, 0.4, 0.8), "salt-and-pepper": (0.0, 0.02, 0.04, 0.06)}
"""Those of the paper."""
_TRAINED_FIRST = ("dataset", "dataset_options", "backbone", "backbone_options", "epochs", "prediction_epochs", "kernel")


def _share(end: str) -> Metric:
    return Metric(name=f"feedback_share/{end}", unit="fraction", direction="max")


def _of_level(end: str) -> tuple[Metric, ...]:
    """At the lowest or the highest level of noise: the accuracy of the plain pass, and what the steps after it add."""
    accuracy = Metric(name=f"{end}/test/accuracy", split="test", of="accuracy", unit="fraction", direction="max")
    gain = Metric(name=f"{end}/test/gain", split="test", of="gain", unit="points", direction="max")
    return accuracy, gain


@dataclass(frozen=True, kw_only=True)
class MixingConfig(ExperimentConfig):
    """Does a network with predictive coding want more feedback where its images are noisier?

    Network and predictions are trained and stay as they are. For each level of noise, four numbers that all stages
    share are trained anew on noisy training images: how much of a stage's next output comes from below
    (feed-forward), is predicted from above (feedback) or stays (memory), and how fast a stage corrects what it
    predicted wrong. Accuracies are of noisy test images. At the highest level the others are trained without feedback
    as well: what the steps gain then is no work of feedback.

    Source: Alamia et al. 2023 (Neural Networks 157, 280), the shallow network.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="feedback_share/rise", unit="", direction="max", primary=True, bounds=(-1.0, 1.0)),
        _share("lowest"),
        _share("highest"),
        *_of_level("lowest"),
        *_of_level("highest"),
        Metric(name="highest/test/gain_without", split="test", of="gain_without", unit="points", direction="max"),
    )

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trial with the network, which was made with the adapter feedback.predictive and whose predictions were
    trained by the objective feedback.reconstruction. None: a network is trained first, and then its predictions, in
    trials of their own."""
    dataset: Annotated[str, Registered("datasets")] = "digits"
    """What a network is trained on: see ``engram list datasets``. Beside --from that of the trial."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    backbone: Annotated[str, Registered("backbones")] = "feedback.alamia"
    """The network that is trained: see ``engram list backbones``. Beside --from that of the trial."""
    backbone_options: Annotated[Mapping[str, Scalar], OptionsOf("backbone")] = field(default_factory=dict)
    """Options of the network."""
    epochs: Annotated[int, Ge(1)] = 6
    """Passes over the training images for the network."""
    prediction_epochs: Annotated[int, Ge(1)] = 1
    """Passes for the predictions."""
    kernel: Annotated[int, Ge(1)] = 5
    """Side of the predictions' kernels, odd."""
    noise: Literal["gaussian", "salt-and-pepper"] = "gaussian"
    """gaussian: added to every normalised value, in standard deviations of the training images; salt-and-pepper: pixels
    that are white or black, half of each."""
    levels: tuple[Annotated[float, Ge(0)], ...] = ()
    """Standard deviations, or shares of pixels, in ascending order. None given: 0, 0.2, 0.4 and 0.8, or 0, 0.02, 0.04
    and 0.06."""
    steps: Annotated[int, Ge(1)] = 10
    """Steps after the plain pass; the loss is the mean of theirs."""
    updates: Annotated[int, Ge(1)] = 40
    """Steps of Adam for each level."""
    lr: Annotated[float, Gt(0)] = 0.1
    """Learning rate of Adam."""
    batch_size: Annotated[int, Ge(1)] = 32
    """Images of an update."""
    images: Annotated[int, Ge(1)] = 1000
    """Test images, the same ones for every seed; all where there are fewer."""

    @property
    def conditions(self) -> tuple[tuple[float, bool], ...]:
        """What is trained in turn: a level of noise, and whether there is feedback."""
        return (*((level, True) for level in self.levels), (self.levels[-1], False))

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values, trained = dict(given), inputs.get("trained")
        if trained is not None:
            problems = other_network(given, trained)
            for name in _TRAINED_FIRST:
                same = given.get(name) == trained.get(name, getattr(cls, name, None))
                if name in given and not same and not name.startswith("backbone"):
                    flag = "--" + name.removesuffix("_options").replace("_", "-") + ".*" * name.endswith("_options")
                    rule = "left out beside --from, whose network and predictions are trained"
                    problems.append(must(flag, rule, given[name], "Drop one of the two."))
            if problems:
                raise UserError("\n".join(map(str, problems)))
            values = {name: value for name, value in values.items() if name not in _TRAINED_FIRST}
            values |= {name: trained[name] for name in _TRAINED_FIRST[:4] if name in trained}
        values["levels"] = tuple(values.get("levels") or LEVELS[values.get("noise", cls.noise)])
        return cls(**values)

    def problems(self) -> list[str]:
        found: list[UserError] = []
        if list(self.levels) != sorted(set(self.levels)) or len(self.levels) < 2:
            rule, got = "two levels or more, in ascending order", ", ".join(map(str, self.levels))
            found.append(must("--levels", rule, got, "The first and the last are compared."))
        if self.noise == "salt-and-pepper" and max(self.levels, default=0) > 1:
            found.append(must("--levels", "at most 1 for shares of pixels", max(self.levels), "Lower it."))
        if self.kernel % 2 == 0:
            remedy = f"Use {self.kernel + 1}."
            found.append(must("--kernel", "odd, so that predictions have a middle", self.kernel, remedy))
        return list(map(str, found))

    def requires(self) -> Mapping[str, Requirement]:
        """The trial that trains the predictions, after the one that trains the network."""
        if self.from_trial is not None:
            return {}
        same: dict[str, Any] = {name: getattr(self, name) for name in _TRAINED_FIRST[:4]}
        same["seed"] = self.seed
        plain: dict[str, Any] = {"flip": "none", "translate": 0, "label_smoothing": 0.0}
        network = TrainConfig.resolve({**same, **plain, "epochs": self.epochs})
        of_predictions: dict[str, Any] = {
            **{"adapter": ("feedback.predictive",), "adapter_options": {"kernel": self.kernel, "steps": 1}},
            **{"objective": "feedback.reconstruction", "lr": 3e-3, "weight_decay": 0.0},
        }
        predictions = TrainConfig.resolve({**same, **plain, **of_predictions, "epochs": self.prediction_epochs})
        first = {"trained": Requirement(experiment="backbone.train", config=network)}
        return {"trained": Requirement(experiment="backbone.train", config=predictions, after=first)}
