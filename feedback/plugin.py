"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Ability, Asks, Entry, Plugin
from engram.feedback.targets import TARGETS


def _adapter(
    name: str,
    summary: str,
    *,
    options: str = "FeedbackOptions",
    offers: tuple[Ability, ...] = (),
    data_parallel: bool | None = None,
) -> Entry:
    return Entry(
        target=f"engram.feedback.adapters.{name}:{name}",
        options=f"engram.feedback.options:{options}",
        summary=summary,
        needs=("Staged",),
        offers=("StageSteps", "Prepared", "Calibrated", "Delayed", *offers),
        data_parallel=data_parallel,
    )


PLUGIN = Plugin(
    name="feedback",
    targets=TARGETS,
    experiments={
        "feedback.robustness": Entry(
            target="engram.feedback.robustness.experiment:Robustness",
            options="engram.feedback.robustness.configs:RobustnessConfig",
            summary="Ask whether feedback pays, on spoiled pictures beside matched feed-forward controls",
        ),
        "feedback.clutter": Entry(
            target="engram.feedback.clutter.experiment:Clutter",
            options="engram.feedback.clutter.configs:ClutterConfig",
            summary="Find all digits that occlude one another, with and without recurrence, Spoerer et al. 2017",
        ),
        "feedback.control": Entry(
            target="engram.feedback.robustness.control:Control",
            options="engram.feedback.robustness.control_configs:ControlConfig",
            summary="Train a feed-forward network as large, or as expensive, as one with feedback",
        ),
        "feedback.analyse": Entry(
            target="engram.feedback.analysing.experiment:Analyse",
            options="engram.feedback.analysing.configs:AnalyseConfig",
            summary="Look inside a network with feedback: what it is for, and what stages tell step by step",
        ),
        "feedback.mixing": Entry(
            target="engram.feedback.mixing.experiment:MixingExperiment",
            options="engram.feedback.mixing.configs:MixingConfig",
            summary="How much feedback predictive coding wants where images are noisy, Alamia et al. 2023",
        ),
    },
    backbones={
        "feedback.alamia": Entry(
            target="engram.feedback.nets.alamia:alamia",
            options="engram.feedback.nets.options:AlamiaOptions",
            offers=("Traceable", "Staged", "StageSteps"),
            summary="Three 5x5 convolutions, 12-18-24 channels, Alamia et al. 2023",
        ),
        "feedback.spoerer": Entry(
            target="engram.feedback.nets.spoerer:spoerer",
            options="engram.feedback.nets.options:SpoererOptions",
            offers=("Traceable", "Staged", "StageSteps"),
            summary="Two convolutions that end before their ReLU, for feedback.blt, Spoerer et al. 2017",
        ),
    },
    adapters={
        "feedback.gated": _adapter("gated", "Later stages are a gain on earlier ones, Konkle and Alvarez 2023"),
        "feedback.additive": _adapter("additive", "Later stages are added to earlier ones"),
        "feedback.predictive": _adapter(
            "predictive",
            "Every stage predicts the one before, Choksi et al. 2021",
            options="PredictiveOptions",
            offers=("Predicting",),
        ),
        "feedback.equilibrium": _adapter(
            "equilibrium",
            "Feedback until nothing changes any more, Bai et al. 2019",
            options="EquilibriumOptions",
            data_parallel=False,  # all images are searched for until the last one has arrived
        ),
        "feedback.generative": _adapter(
            "generative", "Back down from logits with the same weights, Huang et al. 2020", options="GenerativeOptions"
        ),
        "feedback.blt": _adapter(
            "blt",
            "Lateral and top-down convolutions, whose sum is rectified, Spoerer et al. 2017",
            options="BLTOptions",
        ),
        "feedback.lateral": _adapter(
            "lateral", "Stages go over their own output, Kubilius et al. 2019 (CORnet-S)", options="LateralOptions"
        ),
    },
    objectives={
        "feedback.reconstruction": Entry(
            target="engram.feedback.reconstruction:reconstruction",
            asks=Asks(wants=("predictions",)),
            summary="How wrong a network's predictions of its stages are; nothing but them is trained",
        ),
    },
)
