"""The concept bottleneck, what trains and measures it, and data with concepts, as the plugin has them; no torch."""

from __future__ import annotations

from engram.backbone.contract import Asks, Entry

_OPTIONS = "engram.causal.concepts.options"

EXPERIMENTS = {
    "causal.concepts": Entry(
        target="engram.causal.concepts.experiment:ConceptTraining",
        options="engram.causal.concepts.configs:ConceptsConfig",
        summary="Train a concept bottleneck, correct its concepts by hand, measure what leaks, Koh et al. 2020",
    ),
}
HEADS = {
    "causal.concept-bottleneck": Entry(
        target="engram.causal.concepts.head:concept_bottleneck",
        options=f"{_OPTIONS}:BottleneckOptions",
        linear=False,
        conceptual=True,
        summary="Features, concepts, classes, Koh et al. 2020",
    ),
}
OBJECTIVES = {
    "concepts": Entry(
        target="engram.causal.objectives.bottleneck:concepts",
        options=f"{_OPTIONS}:ConceptsOptions",
        asks=Asks(columns=("concepts",), wants=("concepts",), by_rows=True),
        summary="Concepts and classes: jointly, in sequence, or each by itself, Koh et al. 2020",
    ),
}
DATASETS = {
    "concept-shapes": Entry(
        target="engram.causal.concepts.shapes:open_concept_shapes",
        options=f"{_OPTIONS}:ConceptShapesOptions",
        known=f"{_OPTIONS}:known_concept_shapes",
        summary="Shapes made here whose looks are six concepts, of which four make the class",
    ),
}
