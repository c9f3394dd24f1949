"""What every experiment that trains a network is told of the network and its data; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Lt

from engram.backbone.contract import ExperimentConfig, Flag, Input, Inputs, OptionsOf, Registered, Scalar
from engram.backbone.errors import UserError, must
from engram.backbone.weights import WeightsFile


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ExperimentConfig):
    """Options of an experiment that trains a network: a fresh one, or that of another trial (``--from``)."""

    dataset: Annotated[str, Registered("datasets")] = "digits"
    """What to train on: see ``engram list datasets``. Beside --from that of the trial, unless another one is given."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    backbone: Annotated[str, Registered("backbones")] = "lenet5"
    """The network: see ``engram list backbones``. Beside --from that of the trial."""
    backbone_options: Annotated[Mapping[str, Scalar], OptionsOf("backbone")] = field(default_factory=dict)
    """Options of the network."""
    adapter: Annotated[tuple[str, ...], Registered("adapters")] = ()
    """What changes the network before it is trained, one or several in turn: see ``engram list adapters``."""
    adapter_options: Annotated[Mapping[str, Scalar], OptionsOf("adapter")] = field(default_factory=dict)
    """Options of the adapters, each under its adapter's name (qcfs.levels); of a single one without it as well."""
    validation: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the training images held out for validation; 0 trains on all of them. Beside --from that of the
    trial."""
    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """Start from the network of this trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS. Its
    own adapters stay, and its data set, network and options need not be repeated."""
    weights: Annotated[str, WeightsFile()] | None = None
    """Start from the weights in this file: safetensors, or a state_dict that torch.save wrote."""

    @classmethod
    def carried_on(cls, given: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
        """What was given, and what the trial of ``--from`` fixes: its network, and its data unless others are given.

        Raises:
            UserError: one line for everything given that is another one than the trial's.
        """
        trained = inputs.get("trained", {})
        found = {**given, **{name: trained[name] for name in ("backbone", "backbone_options") if name in trained}}
        problems = other_network(given, trained)
        if trained and given.get("weights") is not None:
            problems.append(must("--weights", "left out beside --from", given["weights"], "Drop one of the two."))
        if "dataset" in trained and given.get("dataset", trained["dataset"]) == trained["dataset"]:
            found["dataset"] = trained["dataset"]
            found["dataset_options"] = {**trained.get("dataset_options", {}), **given.get("dataset_options", {})}
            held = trained.get("validation", cls.validation)
            found.setdefault("validation", held)
            if found["validation"] not in (held, 0.0):
                rule = "that of the trial beside --from, whose other images were trained on"
                problems.append(must("--validation", rule, found["validation"], f"Use {held:g} or 0, or leave it out."))
        if problems:
            raise UserError("\n".join(map(str, problems)))
        return found


def other_network(given: Mapping[str, Any], trained: Mapping[str, Any]) -> list[UserError]:
    """What was given of the network and contradicts the trained one."""
    if "backbone" not in trained:
        return []
    rule, fixed = "that of the trial beside --from", trained["backbone"]
    if given.get("backbone", fixed) != fixed:
        return [must("--backbone", rule, given["backbone"], f"Leave it out: it is {fixed}.")]
    held = trained.get("backbone_options", {})
    return [
        must(f"--backbone.{name.replace('_', '-')}", rule, value, "Leave it out.")
        for name, value in given.get("backbone_options", {}).items()
        if held.get(name, value) != value
    ]
