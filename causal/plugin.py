"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Plugin
from engram.causal.data.entries import DATASETS
from engram.causal.objectives.entries import OBJECTIVES

PLUGIN = Plugin(
    name="causal",
    datasets=DATASETS,
    objectives=OBJECTIVES,
)
