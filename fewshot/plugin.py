"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Entry, Plugin


def _head(module: str, name: str, summary: str, *, fixed: bool = False, transductive: bool = False) -> Entry:
    """A head with a support set; one that may also be trained with fixed classes is linear."""
    return Entry(
        target=f"engram.fewshot.heads.{module}:{name}",
        options=f"engram.fewshot.head_options:{name}Options",
        summary=summary,
        support=True,
        fixed=fixed,
        linear=fixed,
        transductive=transductive,
    )


PLUGIN = Plugin(
    name="fewshot",
    heads={
        "fewshot.prototype": _head(
            "prototype", "Prototype", "Distance to the mean of each class, Snell et al. 2017", fixed=True
        ),
    },
)
