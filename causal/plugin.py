"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Entry, Plugin
from engram.causal.attention import entries as attention
from engram.causal.concepts import entries as concepts
from engram.causal.data.entries import DATASETS
from engram.causal.heads.entries import HEADS
from engram.causal.objectives.entries import OBJECTIVES
from engram.causal.scm.entries import SCM
from engram.causal.shift.entries import SELECT, SHIFT, VIEW
from engram.causal.targets import TARGETS

PLUGIN = Plugin(
    name="causal",
    targets=TARGETS,
    adapters=attention.ADAPTERS,
    heads={**HEADS, **concepts.HEADS},
    datasets={**DATASETS, **concepts.DATASETS},
    objectives={**OBJECTIVES, **attention.OBJECTIVES, **concepts.OBJECTIVES},
    experiments={
        **attention.EXPERIMENTS,
        **concepts.EXPERIMENTS,
        "causal.scm": SCM,
        "causal.effects": Entry(
            target="engram.causal.effects.experiment:EffectsExperiment",
            options="engram.causal.effects.configs:EffectsConfig",
            summary="What parts of a trained network do for its answers: average causal effects, with refuters",
        ),
        "causal.explain": Entry(
            target="engram.causal.explaining.experiment:Explain",
            options="engram.causal.explaining.configs:ExplainConfig",
            summary="Ask which pixels, features and concepts a network answers by, and how far that can be trusted",
            check="engram.causal.explaining.configs:check_captum",
            distributions=("captum",),
        ),
        "causal.shift": SHIFT,
    },
    commands={
        "select": SELECT,
    },
    views={
        "causal.shift": VIEW,
    },
)
