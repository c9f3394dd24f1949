"""What experiments that train nothing are told of their network; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from engram.backbone.contract import ExperimentConfig, Flag, Input, Inputs, OptionsOf, Registered, Scalar
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.network_configs import other_network
from engram.backbone.registry import Registry
from engram.backbone.weights import WeightsFile


@dataclass(frozen=True, kw_only=True)
class FrozenConfig(ExperimentConfig):
    """Options of an experiment on a trained network: that of a trial, or one with weights from a file."""

    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trial with the network: its id, the beginning of it, its folder, or models:/NAME@ALIAS."""
    backbone: Annotated[str, Registered("backbones")] | None = None
    """In place of a trial, a network whose weights are in a file, such as FILE.py:Class: see ``engram list
    backbones``."""
    backbone_options: Annotated[Mapping[str, Scalar], OptionsOf("backbone")] = field(default_factory=dict)
    """Options of that network."""
    weights: Annotated[str, WeightsFile()] | None = None
    """The file with its weights: safetensors, or a state_dict that torch.save wrote."""
    adapter: Annotated[tuple[str, ...], Registered("adapters")] = ()
    """What changes the network before it is used, one or several in turn, such as snn.readout: see ``engram list
    adapters``."""
    adapter_options: Annotated[Mapping[str, Scalar], OptionsOf("adapter")] = field(default_factory=dict)
    """Options of the adapters, each under its adapter's name; of a single one without it as well."""
    head: Annotated[str | None, Registered("heads", support=True)] = None
    """What tells classes apart by the features of labelled images: see ``engram list heads``. None: the head of the
    trial's network with what it has learned where it is of this kind, else fewshot.prototype."""
    head_options: Annotated[Mapping[str, Scalar], OptionsOf("head")] = field(default_factory=dict)
    """Options of the head."""

    @classmethod
    def frozen(cls, given: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
        """What was given, without the network where a trial has it.

        Raises:
            UserError: it is another network than the trial's.
        """
        trained = inputs.get("trained", {})
        problems = other_network(given, trained)
        if trained and given.get("weights") is not None:
            problems.append(must("--weights", "left out beside --from", given["weights"], "Drop one of the two."))
        if problems:
            raise UserError("\n".join(map(str, problems)))
        said = ("backbone", "backbone_options") if trained else ()
        return {name: value for name, value in given.items() if name not in said}

    def problems(self) -> list[str]:
        if self.from_trial is not None:
            return []
        if self.backbone is None:
            step = "Train one with: engram run fewshot.episodes"
            return [str(must("--from", "a trained trial, or --backbone with --weights", "nothing", step))]
        own = Registry.discover().entry("backbones", self.backbone).takes_path
        if self.weights is None and not own:
            return [str(must("--weights", "given beside --backbone", "nothing", "Name the file, or a trial --from."))]
        return []
