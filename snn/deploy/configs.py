"""Options of ``snn.deploy``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le

from engram.backbone.contract import NOTHING, ExperimentConfig, Flag, Input, Inputs, Metric
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import accuracy
from engram.backbone.training.options import TrainingOptions
from engram.snn.loihi.quantise_options import QuantiseOptions

Target = Literal["loihi2-sim", "lava", "nir", "netx"]
LAVA_IMAGES = 10
"""Images that go through Lava where nobody says how many: each takes it about a second."""

_OF_TRAINING = tuple(field.name for field in fields(TrainingOptions) if field.name not in ("seed", "epochs"))

DEPLOY_METRICS = (
    accuracy("test", "loihi2", primary=True),
    accuracy("test", "float"),
    accuracy("test", "ann", optional=True),
    accuracy("validation", "loihi2", optional=True),
    accuracy("validation", "float", optional=True),
    Metric(name="test/accuracy_drop", split="test", of="accuracy_drop", unit="points", direction="min"),
    Metric(name="lava/agreement", unit="fraction", direction="max", optional=True),
    Metric(name="file/agreement", unit="fraction", direction="max", optional=True),
    Metric(name="spikes_per_image", unit="spikes", direction="min"),
    Metric(name="synaptic_operations", unit="1/image", direction="min"),
    Metric(name="cores", unit="count", direction="min"),
    Metric(name="chips", unit="count", direction="min"),
    Metric(name="seconds_per_image", unit="s", direction="min"),
    Metric(name="energy", unit="uJ/image", direction="min", bounds=(0.0, None)),
    Metric(name="images_per_second", unit="1/s", direction="max", timed=True),
)


@dataclass(frozen=True, kw_only=True)
class DeployConfig(QuantiseOptions, TrainingOptions, ExperimentConfig):
    """Put a trained network on a chip: quantise it into Loihi 2's integers, see which cores it takes, and simulate it
    bit for bit on the test images beside the network of floats.

    Spiking networks of ``snn.train`` and ``snn.convert`` keep their neurons; networks with ReLUs become sigma-delta
    neurons. Targets: loihi2-sim; lava (the same, and images through Intel's Lava as the reference); nir and netx (the
    same, and a file for other tools).
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = DEPLOY_METRICS

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS."""
    ann: Annotated[str | None, Input("ann")] = None
    """A trained trial with ReLUs to compare with; by default the network that the trial was converted from."""
    target: Target = "loihi2-sim"
    """What for: loihi2-sim, lava, nir or netx."""
    images: Annotated[int, Ge(0)] | None = None
    """Test images to run through Lava, every spike and potential compared with ours. By default 10 for --target lava,
    and none otherwise."""
    chips: Annotated[int, Ge(1)] = 1
    """Chips that there are, of 128 cores each; a network that needs more cores is refused."""
    epochs: Annotated[int, Ge(0)] = 0
    """Passes over the training images with the chip's numbers, so that what rounding cost is learned back. The other
    options of training concern these alone."""
    lr: Annotated[float, Gt(0)] = 5e-4
    """Peak learning rate."""
    mean_bits: Annotated[float, Ge(2), Le(8)] | None = None
    """Take bits from the weights of the layers that need them least, as validation images say, until weights have no
    more than this on average."""
    sensitivity: bool = False
    """Also score the network with 8, 6, 4 and 2 bits for one layer at a time, on validation images."""
    calibration_images: Annotated[int, Ge(1)] = 256
    """Training images that scales are chosen on and ranges are measured on."""
    allow_approximate: bool = False
    """Let a file say what its format can only say nearly; what was lost is then listed."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        config = super().resolve(given, inputs)
        chosen = [name for name in _OF_TRAINING if name in given and given[name] != getattr(cls, name)]
        if not config.epochs and chosen:
            rule = "left out without --epochs, as nothing is trained then"
            found = (must(f"--{n.replace('_', '-')}", rule, given[n], "Add --epochs 1, or drop it.") for n in chosen)
            raise UserError("\n".join(map(str, found)))
        if config.images is None:
            return cls(**{**given, "images": LAVA_IMAGES if config.target == "lava" else 0})
        return config

    def problems(self) -> list[str]:
        found = []
        if self.from_trial is None:
            found.append("--from must be a trained trial; got nothing. Train one with: engram run snn.train")
        if self.allow_approximate and self.target not in ("nir", "netx"):
            found.append(f"--allow-approximate must be left out for --target {self.target}; got true. Use nir or netx.")
        if self.epochs and self.target == "nir":
            found.append(f"--epochs must be 0 for --target nir, which holds floats; got {self.epochs}. Leave it out.")
        return found

    def quantising(self) -> QuantiseOptions:
        """How numbers become integers: for a file of a format that has no more, plain ones."""
        values = {field.name: getattr(self, field.name) for field in fields(QuantiseOptions)}
        return QuantiseOptions(**{**values, "plain": self.plain or self.target == "netx"})
