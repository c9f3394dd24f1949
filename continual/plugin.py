"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from dataclasses import replace

from engram.backbone.contract import Entry, Plugin, Traits
from engram.continual.targets import TARGETS


def _entry(module: str, name: str, summary: str, traits: Traits, *, options: bool = True) -> Entry:
    package = module.partition(".")[0]
    return Entry(
        target=f"engram.continual.{module}:{name}",
        summary=summary,
        options=f"engram.continual.{package}.options:{name}Options" if options else None,
        traits=traits,
    )


_STAYS = "it keeps weights, but nothing compares old classes with new ones"
_NEW_IMAGES = "its targets for old classes come from images of new ones"
_STREAMED = Traits(replays=True, buffer=True, boundaries=False)
_OWN_LOSS = {"label_smoothing": (0.0,)}  # in place of the cross-entropy with the labels
_ISOLATED = Traits(needs_task=True, turn=3)


PLUGIN = Plugin(
    name="continual",
    targets=TARGETS,
    views={"continual.stream": "engram.continual.experiment.saved:view"},
    experiments={
        "continual.stream": Entry(
            target="engram.continual.experiment.experiment:StreamExperiment",
            options="engram.continual.experiment.configs:StreamConfig",
            summary="Learn one task after another and measure what is forgotten",
        )
    },
    strategies={
        "avalanche": Entry(
            target="engram.continual.avalanche.course:Avalanche",
            options="engram.continual.avalanche.options:AvalancheOptions",
            summary="One of Avalanche's strategies, as a reference: avalanche:Replay",
            takes_path=True,
            traits=Traits(alone=True, buffer=True),
            distributions=("avalanche-lib",),
        ),
        "continual.finetune": _entry(
            "baselines", "Finetune", "Nothing against forgetting", Traits(boundaries=False, alone=True), options=False
        ),
        "continual.joint": _entry(
            "baselines",
            "Joint",
            "All tasks so far at once: the upper bound",
            Traits(alone=True, replays=True),
            options=False,
        ),
        "continual.si": _entry(
            "regularisation.si",
            "SI",
            "Synaptic intelligence, Zenke et al. 2017",
            Traits(turn=0, strength="c", fails_without_task=_STAYS),
        ),
        "continual.ewc": _entry(
            "regularisation.ewc",
            "EWC",
            "Elastic weight consolidation, Kirkpatrick et al. 2017",
            Traits(strength="strength", strengths=(1.0, 10.0, 100.0, 1000.0, 10_000.0), fails_without_task=_STAYS),
        ),
        "continual.mas": _entry(
            "regularisation.mas",
            "MAS",
            "Memory aware synapses, Aljundi et al. 2018",
            Traits(strength="strength", strengths=(0.001, 0.01, 0.1, 1.0, 10.0), fails_without_task=_STAYS),
        ),
        "continual.lwf": _entry(
            "regularisation.lwf",
            "LwF",
            "Learning without forgetting, Li and Hoiem 2017",
            Traits(turn=1, teacher=True, unweighted="--strategies.lwf.strength", fails_without_task=_NEW_IMAGES),
        ),
        "continual.er": _entry("replay.er", "ER", "Experience replay from a buffer, Chaudhry et al. 2019", _STREAMED),
        "continual.der": _entry("replay.der", "DER", "Dark experience replay, Buzzega et al. 2020", _STREAMED),
        "continual.derpp": _entry("replay.der", "DERpp", "DER with labels as well, Buzzega et al. 2020", _STREAMED),
        "continual.er-ace": _entry(
            "replay.er_ace",
            "ERACE",
            "Asymmetric cross-entropy, Caccia et al. 2022",
            replace(_STREAMED, weighs=True, by_rows=True, only=_OWN_LOSS),
        ),
        "continual.agem": _entry(
            "replay.agem",
            "AGEM",
            "Averaged gradient episodic memory, Chaudhry et al. 2019",
            Traits(replays=True, buffer=True, each_task=True, turn=3),
        ),
        "continual.icarl": _entry(
            "replay.icarl",
            "ICaRL",
            "Exemplars and nearest means, Rebuffi et al. 2017",
            Traits(
                **{"replays": True, "buffer": True, "new_outputs": True, "alone": True, "only": _OWN_LOSS},
                answers_by="the nearest class mean",
            ),
        ),
        "continual.dgr": _entry(
            "generative.dgr",
            "DGR",
            "Deep generative replay, Shin et al. 2017",
            Traits(replays=True, weighs=True, by_rows=True),
        ),
        "continual.bi-r": _entry(
            "generative.bi_r",
            "BIR",
            "Brain-inspired replay, van de Ven et al. 2020",
            Traits(replays=True, alone=True, by_rows=True),
        ),
        "continual.packnet": _entry(
            "isolation.packnet", "PackNet", "Prune, freeze, go on, Mallya and Lazebnik 2018", _ISOLATED
        ),
        "continual.hat": _entry("isolation.hat", "HAT", "Hard attention to the task, Serra et al. 2018", _ISOLATED),
        "continual.xdg": _entry("isolation.xdg", "XdG", "Context-dependent gating, Masse et al. 2018", _ISOLATED),
    },
)
