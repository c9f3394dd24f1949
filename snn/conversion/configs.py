"""Options of ``snn.convert``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.contract import NOTHING, Flag, Input, Inputs, Metric, Registered, Requirement
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import TrainConfig, accuracy, early_exit
from engram.backbone.registry import Registry
from engram.snn.conversion.methods import RIGHT_ON_AVERAGE, Calibration, Coding, Conversion, Per, Threshold, biased

CONVERT_METRICS = (
    accuracy("test", "snn", primary=True),
    accuracy("test", "ann"),
    accuracy("validation", "snn", optional=True),
    accuracy("validation", "ann", optional=True),
    Metric(name="test/accuracy_drop", split="test", of="accuracy_drop", unit="points", direction="min"),
    Metric(name="spikes_per_neuron_per_step", unit="spikes", direction="min"),
    Metric(name="synaptic_operations", unit="1/image", direction="min"),
    Metric(name="analog_macs", unit="1/image", direction="min"),
    Metric(name="macs", unit="1/image", direction="min"),
    Metric(name="effective_macs", unit="1/image", direction="min"),
    Metric(name="silent_channels", unit="count", direction="min"),
    *early_exit("snn"),
)

# Option values that settle, before anything is trained or imported, that a network cannot become spiking.
_HOPELESS: Mapping[str, tuple[frozenset[str], str]] = {
    "activation": (frozenset({"leaky-relu", "gelu", "silu"}), "relu"),
    "normalisation": (frozenset({"group"}), "batch"),
}

_TRAINING = tuple(field.name for field in fields(TrainConfig) if field.name not in ("seed", "from_trial"))
_TEACHER = ("teacher", "distill", "temperature")


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(TrainConfig):
    """Turn a trained network into a spiking one and measure accuracy, spikes and operations against simulation length.

    Give ``--from TRIAL``, or training options: then the network is trained first, as ``backbone.train`` would.
    """

    version: ClassVar[int] = 4
    metrics: ClassVar[tuple[Metric, ...]] = CONVERT_METRICS
    renamed: ClassVar[Mapping[str, str]] = {
        "snn/accuracy": "snn/test/accuracy",
        "ann/accuracy": "ann/test/accuracy",
        "accuracy_drop": "test/accuracy_drop",
    }

    dataset: Annotated[str, Registered("datasets", training=False)] = "digits"
    """What the network is trained on where no trial is given: see ``engram list datasets``."""
    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS. Options of training
    are then its own."""
    steps: Annotated[int, Ge(1), Le(4096)] = 64
    """Simulation steps of a picture; accuracy is also given for 1, 2, 4, ... up to it. Of a recording every frame takes
    as many, at whose beginning neurons begin anew, and accuracy is given for 1, 2, 4, ... frames."""
    threshold: Threshold = "mse"
    """What a spike stands for. max: the largest activation; percentile: nearly the largest; mse: what quantises the
    activations best; ltb: local threshold balancing. QCFS activations bring their own."""
    percentile: Annotated[float, Gt(0), Le(100)] = 99.9
    """For --threshold percentile: the percentile of an activation's outputs; 100 is their maximum."""
    per: Per = "channel"
    """One threshold for each channel or for each layer."""
    calibration: Calibration = "auto"
    """What is corrected, layer by layer, on the calibration images. bias: the drive of every channel; potential: where
    every neuron starts; weights: the layers before the neurons, then where these start; auto: potential for ReLUs;
    for QCFS activations of L levels weights up to 2 L steps, and none from there on."""
    calibration_images: Annotated[int, Ge(1)] = 1000
    """Training images that thresholds and calibration look at (all of them when there are fewer); of recordings as many
    as have so many frames together."""
    calibration_steps: Annotated[int, Ge(1), Le(4096)] | None = None
    """Simulation length that calibration and --threshold mse aim at; by default half of --steps, within 4 and 8."""
    start: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Potential before the first step as a fraction of the threshold; at a half, spike counts round to nearest."""
    pre_simulation: Annotated[int, Ge(0), Le(4096)] = 0
    """Steps simulated beforehand to find the neurons that would send too much, which then stay silent. They come on
    top of --steps: spikes, rates, operations, costs and the mean steps of early exits include them. Frames are shown
    again where they are fewer."""
    delay: Annotated[int, Ge(0), Lt(4096)] | None = None
    """Steps the read-out leaves out at the beginning, while the first spikes are on their way; by default 2, or half of
    --steps if that is less, for QCFS activations, and 0 for ReLUs."""
    hybrid: str = "none"
    """Keep a front part analog: none, auto (what cannot be converted, and what is before it) or a number N (the first N
    activations)."""
    coding: Coding = "constant"
    """How an image becomes T frames. constant: shown at every step; poisson: random spikes at the pixels' rates;
    latency: the brighter the earlier; delta: changes of brightness."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        if given.get("from_trial") is None:
            return super().resolve(given, inputs)
        beside = [name for name in _TRAINING if name in given]
        if beside:
            raise UserError("\n".join(_beside(name, given[name]) for name in beside))
        trained = inputs.get("trained", {})
        return cls(**{name: trained[name] for name in _TRAINING if name in trained and name not in _TEACHER}, **given)

    def problems(self) -> list[str]:
        if self.from_trial is not None:
            return self._conversion_problems()
        heads = Registry.discover().without_linear_form(self.head, "snn.convert")
        found = [*super().problems(), *self._conversion_problems(), *heads]
        for option, (hopeless, good) in _HOPELESS.items():
            value = self.backbone_options.get(option)
            if value in hopeless:
                found.append(
                    f"--backbone.{option} must be one that can become spiking; got {value}."
                    f" Use --backbone.{option} {good}."
                )
        return found

    def _conversion_problems(self) -> list[str]:
        found = []
        if self.delay is not None and self.delay >= self.steps:
            found.append(f"--delay must be less than --steps {self.steps}; got {self.delay}. Simulate longer.")
        if self.hybrid not in ("none", "auto") and not self.hybrid.isdecimal():
            found.append(f"--hybrid must be none, auto or a number of activations; got {self.hybrid}. Use auto.")
        elif self.coding in RIGHT_ON_AVERAGE and self.hybrid.isdecimal() and int(self.hybrid):
            found.append(str(biased(self.coding, f"--hybrid {self.hybrid}")))
        return found

    def conversion(self) -> Conversion:
        """The options that say how the network is converted."""
        names = {field.name for field in fields(Conversion)} & {field.name for field in fields(self)}
        return Conversion(**{name: getattr(self, name) for name in names})

    def requires(self) -> Mapping[str, Requirement]:
        if self.from_trial is not None:
            return {}
        values = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        return {"trained": Requirement(experiment="backbone.train", config=TrainConfig(**values))}


def _beside(name: str, value: Any) -> str:
    flag = "--" + name.replace("_options", ".*").replace("_", "-")
    return f"{flag} must be left out beside --from, whose network is trained already; got {value}. Drop one of the two."
