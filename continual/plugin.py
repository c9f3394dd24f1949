"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Entry, Plugin
from engram.continual.targets import TARGETS


def _entry(module: str, name: str, summary: str, *, options: bool = True) -> Entry:
    package = module.partition(".")[0]
    return Entry(
        target=f"engram.continual.{module}:{name}",
        summary=summary,
        options=f"engram.continual.{package}.options:{name}Options" if options else None,
    )


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
        ),
        "continual.finetune": _entry("baselines", "Finetune", "Nothing against forgetting", options=False),
        "continual.joint": _entry("baselines", "Joint", "All tasks so far at once: the upper bound", options=False),
        "continual.si": _entry("regularisation.si", "SI", "Synaptic intelligence, Zenke et al. 2017"),
        "continual.ewc": _entry("regularisation.ewc", "EWC", "Elastic weight consolidation, Kirkpatrick et al. 2017"),
        "continual.mas": _entry("regularisation.mas", "MAS", "Memory aware synapses, Aljundi et al. 2018"),
        "continual.lwf": _entry("regularisation.lwf", "LwF", "Learning without forgetting, Li and Hoiem 2017"),
        "continual.er": _entry("replay.er", "ER", "Experience replay from a buffer, Chaudhry et al. 2019"),
        "continual.der": _entry("replay.der", "DER", "Dark experience replay, Buzzega et al. 2020"),
        "continual.derpp": _entry("replay.der", "DERpp", "DER with labels as well, Buzzega et al. 2020"),
        "continual.er-ace": _entry("replay.er_ace", "ERACE", "Asymmetric cross-entropy, Caccia et al. 2022"),
        "continual.agem": _entry("replay.agem", "AGEM", "Averaged gradient episodic memory, Chaudhry et al. 2019"),
        "continual.icarl": _entry("replay.icarl", "ICaRL", "Exemplars and nearest means, Rebuffi et al. 2017"),
        "continual.dgr": _entry("generative.dgr", "DGR", "Deep generative replay, Shin et al. 2017"),
        "continual.bi-r": _entry("generative.bi_r", "BIR", "Brain-inspired replay, van de Ven et al. 2020"),
        "continual.packnet": _entry("isolation.packnet", "PackNet", "Prune, freeze, go on, Mallya and Lazebnik 2018"),
        "continual.hat": _entry("isolation.hat", "HAT", "Hard attention to the task, Serra et al. 2018"),
        "continual.xdg": _entry("isolation.xdg", "XdG", "Context-dependent gating, Masse et al. 2018"),
    },
)
