"""Heads of this package, as the plugin names them."""

from __future__ import annotations

from engram.backbone.contract import Entry

HEADS = {
    "causal.backdoor": Entry(
        target="engram.causal.heads.backdoor:Backdoor",
        options="engram.causal.heads.options:BackdoorOptions",
        summary="Answers averaged over a confounder, by the back-door adjustment",
        linear=False,
        given="context",
    ),
    "causal.frontdoor": Entry(
        target="engram.causal.heads.frontdoor:Frontdoor",
        options="engram.causal.heads.options:FrontdoorOptions",
        summary="Answers of what an image leads to, averaged over others, by the front-door adjustment",
        data_parallel=False,  # it keeps the images that were shown last
        linear=False,
        given="mediator",
    ),
}
