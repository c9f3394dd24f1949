"""What this folder adds to the plugin."""

from __future__ import annotations

from engram.backbone.contract import Asks, Entry

_ENVIRONMENTS, _GROUPS = Asks(columns=("environment",)), Asks(columns=("group",))
_MATCHING = Asks(columns=("environment",), wants=("features",))
_LAST_LAYER = Asks(columns=("group",), by_itself=True, validation=True, reference=True, layer=True)


def _comparing(made: str, options: str, summary: str, asks: Asks) -> Entry:
    """An objective that compares environments or groups."""
    return Entry(
        target=f"engram.causal.objectives.{made.lower()}:{made}",
        options=f"engram.causal.objectives.environment_options:{options}",
        summary=summary,
        asks=asks,
        data_parallel=True,
    )


def _after(where: str, options: str, summary: str, asks: Asks) -> Entry:
    """An objective that begins from what a first network answers, or that looks at a second one."""
    return Entry(
        target=f"engram.causal.objectives.{where}",
        options=f"engram.causal.objectives.reference_options:{options}",
        summary=summary,
        asks=asks,
        data_parallel=not asks.by_itself,
    )


OBJECTIVES = {
    "irm": _comparing(
        "IRM", "IRMOptions", "One head that is best in every environment, Arjovsky et al. 2019", _ENVIRONMENTS
    ),
    "vrex": _comparing("VREx", "VRExOptions", "Equal losses in all environments, Krueger et al. 2021", _ENVIRONMENTS),
    "coral": _comparing(
        "CORAL", "MatchingOptions", "Means and covariances of features alike in all environments", _MATCHING
    ),
    "mmd": _comparing(
        "MMD", "MatchingOptions", "Features distributed alike in all environments, by kernels", _MATCHING
    ),
    "groupdro": _comparing("GroupDRO", "GroupDROOptions", "The loss of the worst group, Sagawa et al. 2020", _GROUPS),
    "reweight": _comparing(
        "Reweight",
        "ReweightOptions",
        "Groups count alike, however many images they have",
        Asks(columns=("group",), by_rows=True),
    ),
    "jtt": _after(
        "jtt:jtt",
        "JTTOptions",
        "What a first network gets wrong counts more, Liu et al. 2021",
        Asks(by_rows=True, reference=True),
    ),
    "eiil": _after(
        "eiil:EIIL",
        "EIILOptions",
        "Environments found by a first network's answers, Creager et al. 2021",
        Asks(reference=True),
    ),
    "lff": _after(
        "lff:LfF",
        "LfFOptions",
        "What a biased network beside it finds hard counts more, Nam et al. 2020",
        Asks(by_itself=True),
    ),
    "dfr": _after(
        "dfr:DFR", "DFROptions", "The last layer fitted anew, groups alike, Kirichenko et al. 2023", _LAST_LAYER
    ),
    "afr": _after(
        "afr:AFR", "AFROptions", "The last layer fitted anew to what is unsure, Qiu et al. 2023", _LAST_LAYER
    ),
    "backdoor": Entry(
        target="engram.causal.objectives.adjusting:backdoor",
        summary="Likelihood of the label given the column context, for the head causal.backdoor",
        asks=Asks(columns=("context",), wants=("given",), by_rows=True),
    ),
    "frontdoor": Entry(
        target="engram.causal.objectives.adjusting:frontdoor",
        summary="Likelihood of label and column mediator, for the head causal.frontdoor",
        asks=Asks(columns=("mediator",), wants=("given",), by_rows=True),
    ),
}
