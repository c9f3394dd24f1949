"""Adapters with attention and the objectives that train them, as the plugin offers them; no torch here."""

from __future__ import annotations

from engram.backbone.contract import Asks, Entry

_OPTIONS, _OBJECTIVES = "engram.causal.attention.options", "engram.causal.objectives"

EXPERIMENTS = {
    "causal.attention": Entry(
        target="engram.causal.attention.experiment:Attention",
        options="engram.causal.attention.configs:AttentionConfig",
        summary="What attention maps add to a trained network's answers, and where they are",
    ),
}
ADAPTERS = {
    "causal.counterfactual-attention": Entry(
        target="engram.causal.attention.counterfactual:counterfactual_attention",
        options=f"{_OPTIONS}:CounterfactualOptions",
        needs=("Staged",),
        offers=("Staged", "StageSteps", "Prepared", "Calibrated", "Delayed", "Counterfactual"),
        summary="Features pooled by attention maps, and by others in their place, Rao et al. 2021",
    ),
    "causal.complementary": Entry(
        target="engram.causal.attention.complementary:complementary",
        options=f"{_OPTIONS}:ComplementaryOptions",
        needs=("Staged",),
        offers=("Staged", "StageSteps", "Prepared", "Calibrated", "Delayed", "Complementary"),
        summary="What attention lets through, and what it leaves out, Wang et al. 2021 (CaaM)",
    ),
}
OBJECTIVES = {
    "counterfactual": Entry(
        target=f"{_OBJECTIVES}.counterfactual:counterfactual",
        options=f"{_OBJECTIVES}.attention_options:EffectOfAttentionOptions",
        asks=Asks(wants=("counterfactual",), by_rows=True),
        summary="What attention adds to the logits has to tell the classes apart, Rao et al. 2021",
    ),
    "complementary": Entry(
        target=f"{_OBJECTIVES}.complementary:complementary",
        options=f"{_OBJECTIVES}.attention_options:ComplementaryTrainingOptions",
        asks=Asks(wants=("halves",)),
        summary="Heads that agree in environments found by what attention leaves out, Wang et al. 2021 (CaaM)",
    ),
}
