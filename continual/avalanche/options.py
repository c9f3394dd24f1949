"""Options of Avalanche's strategies, and what is known of each; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engram.backbone.contract import Scalar, StrategyOptions, Traits
from engram.continual.avalanche import guard

_LOOP: Mapping[str, tuple[Scalar, ...]] = {
    **{"flip": ("none",), "translate": (0,), "schedule": ("constant",), "clip": (0.0,)},
    **{"affine": (0.0,), "elastic": (0.0,)},
    **{"cutout": (0,), "randaugment": (0,), "label_smoothing": (0.0,), "ema": (0.0,), "optimizer": ("adamw", "sgd")},
    **{"event_drop": (0.0,), "time_shift": (0,), "time_jitter": (0.0,)},
    "weight_decay": (0.0,),  # it would shrink biases and norms too
    "reset_optimizer": (False,),  # its loop keeps its own
    "head": ("single", "multi", "growing"),
    "objective": ("cross-entropy",),
}
"""What Avalanche's loop can have of the stream's options."""
_ONE_HEAD = {**_LOOP, "head": ("single", "growing")}
_STAYS = "it keeps weights, but nothing compares old classes with new ones"
_NEW_IMAGES = "its targets for old classes come from images of new ones"
_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "DER": {"only": {**_LOOP, "head": ("single",)}, "instead": "continual.der"},  # logits of outputs not yet there
    "ICaRL": {"only": _ONE_HEAD, "instead": "continual.icarl", "answers_by": "the nearest class mean"},
    "GSS_greedy": {"only": _ONE_HEAD, "instead": "continual.er"},
    "EWC": {"buffer": False, "fails_without_task": _STAYS},
    "MAS": {"buffer": False, "fails_without_task": _STAYS},
    "LwF": {"buffer": False, "fails_without_task": _NEW_IMAGES},
    "PackNet": {
        "buffer": False,
        "needs_task": True,
        "only": {**_LOOP, "iterations": (None,)},  # it prunes before the last epochs
        "answers_by": "the weights of its task",
    },
}


@dataclass(frozen=True, kw_only=True)
class AvalancheOptions(StrategyOptions):
    """A strategy of Avalanche, trained as Avalanche trains it. How many images it keeps is ``--buffer``."""

    arguments: str = ""
    """Further arguments of its constructor, with commas: ewc_lambda=10,mode=online."""

    def traits(self, declared: Traits, path: str) -> Traits:
        return replace(declared, **{"only": _LOOP, **_KNOWN.get(path, {})})

    def problems(self, path: str) -> list[str]:
        reason = guard.refusal(path)
        return [] if reason is None else [reason]
