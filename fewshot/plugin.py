"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Entry, Plugin
from engram.fewshot.targets import TARGETS


def _head(
    module: str,
    name: str,
    summary: str,
    *,
    linear: bool = False,
    fixed: bool = True,
    trainable: bool = False,
    transductive: bool = False,
) -> Entry:
    return Entry(
        target=f"engram.fewshot.heads.{module}:{name}",
        options=f"engram.fewshot.head_options:{name}Options",
        summary=summary,
        support=True,
        linear=linear,
        fixed=fixed,
        trainable=trainable,
        transductive=transductive,
    )


PLUGIN = Plugin(
    name="fewshot",
    targets=TARGETS,
    views={
        "fewshot.enrol": "engram.fewshot.enrolling.enrolment:view",
        "fewshot.incremental": "engram.fewshot.incremental.sessions:view",
        "fewshot.training-classes": "engram.fewshot.episodes.saved:view",
    },
    experiments={
        "fewshot.episodes": Entry(
            target="engram.fewshot.episodes.experiment:Episodes",
            options="engram.fewshot.episodes.configs:EpisodesConfig",
            summary="Classify new classes from a few images of each, in many episodes",
        ),
        "fewshot.enrol": Entry(
            target="engram.fewshot.enrolling.experiment:Enrol",
            options="engram.fewshot.enrolling.configs:EnrolConfig",
            summary="Enrol new classes from a few pictures of each",
        ),
        "fewshot.incremental": Entry(
            target="engram.fewshot.incremental.experiment:Incremental",
            options="engram.fewshot.incremental.configs:IncrementalConfig",
            summary="Learn some classes well, then others from a few images each, and test on all",
        ),
        "fewshot.one-shot-runs": Entry(
            target="engram.fewshot.oneshot.experiment:OneShot",
            options="engram.fewshot.oneshot.configs:OneShotConfig",
            summary="Lake's twenty-way one-shot classification within alphabets",
        ),
    },
    datasets={
        "one-shot-runs": Entry(
            target="engram.fewshot.oneshot.source:open_runs",
            options="engram.backbone.data.options:PictureOptions",
            summary="The published one-shot classification runs of Omniglot, a folder or a zip file, Lake et al. 2015",
            takes_path=True,
            check="engram.fewshot.oneshot.reading:check_runs",
            files="engram.fewshot.oneshot.reading:runs_files",
        ),
    },
    heads={
        "fewshot.prototype": _head(
            "prototype",
            "Prototype",
            "Distance to the mean of each class, Snell et al. 2017",
            linear=True,
            trainable=True,
        ),
        "fewshot.simpleshot": _head(
            "simpleshot", "SimpleShot", "Distance to class means of normalised features, Wang et al. 2019"
        ),
        "fewshot.matching": _head("matching", "Matching", "Attention to every image, Vinyals et al. 2016"),
        "fewshot.relation": _head("relation", "Relation", "A network that compares, Sung et al. 2018"),
        "fewshot.ridge": _head(
            "ridge", "Ridge", "Ridge regression in closed form, Bertinetto et al. 2019", linear=True
        ),
        "fewshot.baseline++": _head(
            "baseline", "BaselinePlusPlus", "Cosine classifier trained on the support set, Chen et al. 2019"
        ),
        "fewshot.anil": _head(
            "anil", "ANIL", "Linear layer trained on the support set, Raghu et al. 2020", linear=True
        ),
        "fewshot.maml": _head(
            "maml", "MAML", "Network and layer trained on the support set, Finn et al. 2017", fixed=False
        ),
        "fewshot.tim": _head(
            "tim",
            "TIM",
            "Class vectors trained on the support set and all queries, Boudiaf et al. 2020",
            fixed=False,
            transductive=True,
        ),
    },
)
