"""Options of ``snn.train``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from engram.backbone.contract import NOTHING, Inputs, Kind, Metric, Requirement, Scalar
from engram.backbone.experiments.configs import TRAIN_METRICS, TrainConfig
from engram.backbone.registry import Registry
from engram.snn.neurons.options import Neuron
from engram.snn.training.options import SpikingOptions

SPIKING_METRICS = (
    *TRAIN_METRICS,
    Metric(name="spikes_per_neuron_per_step", unit="spikes", direction="min"),
    Metric(name="spikes_per_image", unit="spikes", direction="min"),
    Metric(name="synaptic_operations", unit="1/image", direction="min"),
    Metric(name="analog_macs", unit="1/image", direction="min"),
    Metric(name="macs", unit="1/image", direction="min"),
)

# What differs from the recipe of the same network with ReLUs: a spiking one needs fewer passes and more time for each.
_RECIPES: Mapping[str, Mapping[str, Scalar]] = {
    **{name: {"epochs": 5} for name in ("mnist", "kmnist", "fashion-mnist")},
    "digits": {"epochs": 15},
    "moving-shapes": {"epochs": 24, "batch_size": 64, "lr": 4e-3},
}


@dataclass(frozen=True, kw_only=True)
class SpikingTrainConfig(SpikingOptions, TrainConfig):
    """Train a spiking network: any network, with spiking neurons for its activations.

    With ``--from TRIAL`` it starts from a trained network with ReLUs or QCFS activations: neurons get the scales of its
    activations, fire as a converted network's would, and are trained from there. From a converted network (a trial of
    ``snn.convert``) it goes on with that network's weights, thresholds, calibrated starts and currents as they are.
    """

    version: ClassVar[int] = 2
    metrics: ClassVar[tuple[Metric, ...]] = SPIKING_METRICS

    uses: ClassVar[Mapping[Kind, tuple[str, ...]]] = {"adapters": ("snn.spiking",)}

    neuron: Neuron = "lif"
    """if: no leak; lif: leaky; plif: with a learned decay; cuba-lif: a synaptic current; adaptive-lif: a threshold
    that rises with every spike. By default lif, and if beside --from."""

    @classmethod
    def recipe(cls, given: Mapping[str, Any]) -> dict[str, Scalar]:
        return {**super().recipe(given), **_RECIPES.get(given.get("dataset", cls.dataset).partition(":")[0], {})}

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        if given.get("from_trial") is not None:
            given = {"neuron": "if", "start": 0.5, **given, "learn_scale": True}
        return super().resolve(given, inputs).filled()

    def problems(self) -> list[str]:
        found = [f"--{problem.replace('_', '-', 1)}" for problem in SpikingOptions.problems(self)]
        heads = Registry.discover().without_linear_form(self.head, "snn.train")
        return [*TrainConfig.problems(self), *found, *heads]

    def first(self) -> Requirement:
        """The network that an objective begins from spikes as well."""
        return Requirement(experiment="snn.train", config=replace(self, **self.as_reference()))

    def neurons(self) -> dict[str, Scalar]:
        """The options of the adapter ``snn.spiking``."""
        return {field.name: getattr(self, field.name) for field in fields(SpikingOptions)}
