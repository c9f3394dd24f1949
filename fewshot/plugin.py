"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Entry, Plugin


def _head(
    module: str,
    name: str,
    summary: str,
    *,
    linear: bool = False,
    trainable: bool = False,
) -> Entry:
    return Entry(
        target=f"engram.fewshot.heads.{module}:{name}",
        options=f"engram.fewshot.head_options:{name}Options",
        summary=summary,
        support=True,
        linear=linear,
        trainable=trainable,
    )


PLUGIN = Plugin(
    name="fewshot",
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
        "fewshot.ridge": _head(
            "ridge", "Ridge", "Ridge regression in closed form, Bertinetto et al. 2019", linear=True
        ),
    },
)
