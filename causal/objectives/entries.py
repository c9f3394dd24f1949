"""What this folder adds to the plugin."""

from __future__ import annotations

from engram.backbone.contract import Entry


def _comparing(made: str, options: str, summary: str) -> Entry:
    """An objective that compares environments or groups."""
    return Entry(
        target=f"engram.causal.objectives.{made.lower()}:{made}",
        options=f"engram.causal.objectives.environment_options:{options}",
        summary=summary,
    )


def _after(where: str, options: str, summary: str) -> Entry:
    """An objective that begins from what a first network answers."""
    return Entry(
        target=f"engram.causal.objectives.{where}",
        options=f"engram.causal.objectives.reference_options:{options}",
        summary=summary,
        reference=True,
    )


OBJECTIVES = {
    "irm": _comparing("IRM", "IRMOptions", "One head that is best in every environment, Arjovsky et al. 2019"),
    "vrex": _comparing("VREx", "VRExOptions", "Equal losses in all environments, Krueger et al. 2021"),
    "coral": _comparing("CORAL", "MatchingOptions", "Means and covariances of features alike in all environments"),
    "mmd": _comparing("MMD", "MatchingOptions", "Features distributed alike in all environments, by kernels"),
    "groupdro": _comparing("GroupDRO", "GroupDROOptions", "The loss of the worst group, Sagawa et al. 2020"),
    "reweight": _comparing("Reweight", "ReweightOptions", "Groups count alike, however many images they have"),
    "jtt": _after("jtt:jtt", "JTTOptions", "What a first network gets wrong counts more, Liu et al. 2021"),
    "eiil": _after("eiil:EIIL", "EIILOptions", "Environments found by a first network's answers, Creager et al. 2021"),
    "lff": Entry(
        target="engram.causal.objectives.lff:LfF",
        options="engram.causal.objectives.reference_options:LfFOptions",
        summary="What a biased network beside it finds hard counts more, Nam et al. 2020",
    ),
    "dfr": _after("dfr:DFR", "DFROptions", "The last layer fitted anew, groups alike, Kirichenko et al. 2023"),
    "afr": _after("afr:AFR", "AFROptions", "The last layer fitted anew to what is unsure, Qiu et al. 2023"),
    "backdoor": Entry(
        target="engram.causal.objectives.adjusting:backdoor",
        summary="Likelihood of the label given the column context, for the head causal.backdoor",
    ),
    "frontdoor": Entry(
        target="engram.causal.objectives.adjusting:frontdoor",
        summary="Likelihood of label and column mediator, for the head causal.frontdoor",
    ),
}
