"""Which way of running a network under many interventions it can be taken, and the means of its stages."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.tapped import sites
from engram.causal.effects.replaying import Replay, parts_of
from engram.causal.effects.tapping import Tapping
from engram.causal.effects.variants import Network
from engram.causal.intervening.collecting import gathered
from engram.causal.intervening.kinds import Source
from engram.causal.intervening.place import Place


def network(model: Classifier) -> Network:
    """A classifier to be asked what it answers under interventions; both ways give the same numbers, but for rounding.

    Args:
        model: in evaluation mode, on its device.
    """
    parts = parts_of(model)
    return Tapping(model) if parts is None else Replay(model, parts)


def stage_means(model: Classifier, images: Tensor) -> list[Tensor]:
    """The mean of every stage over images [N, C, H, W], or recordings: [S, 1, C, H, W] each.

    Raises:
        UserError: the network tells of no stages.
    """
    stages = {site.stage for site in sites(model.backbone) if site.stage is not None}
    if not stages:
        got = f"{type(model.backbone).__name__}, which tells of none"
        raise must("a network whose effects are asked for", "in stages", got, "Let stages(x) return their outputs.")
    source = Source(images, mean=True)
    return [held.values for held in gathered(model, [(Place(stage), source) for stage in sorted(stages)])]
