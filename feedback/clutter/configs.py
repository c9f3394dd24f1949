"""Options of ``feedback.clutter``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Gt, Le

from engram.backbone.contract import NOTHING, Inputs, Metric, Registered, Scalar
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TrainConfig, accuracy, loss
from engram.feedback.clutter.networks import BACKBONE, Network, options_of
from engram.feedback.nets.options import SpoererOptions
from engram.feedback.options import BLTOptions

MAPS = 32
_RECIPE: Mapping[str, Scalar] = {"epochs": 10, "batch_size": 50, "lr": 5e-3}
_USUAL: Mapping[str, Mapping[str, Any]] = {
    "backbone": vars(SpoererOptions()),
    "adapter": {f"blt.{name}": value for name, value in vars(BLTOptions()).items()},
}
_OTHER = ("backbone", "adapter", "from_trial", "weights")

METRICS = (
    accuracy("test", primary=True),
    loss("test"),
    Metric(name="test/found", split="test", of="found", unit="fraction", direction="max"),
    Metric(name="test/noisy_accuracy", split="test", of="noisy_accuracy", unit="fraction", direction="max"),
    accuracy("validation", optional=True),
    loss("validation", optional=True),
    loss("train"),
    Metric(name="parameters", unit="count", direction="min"),
    Metric(name="images_per_second", unit="1/s", direction="max", timed=True),
    Metric(name="train_seconds", unit="s", direction="min", timed=True),
)


@dataclass(frozen=True, kw_only=True)
class ClutterConfig(TrainConfig):
    """Find all digits in an image in which they occlude one another, or one under fragments of digits.

    An image counts as right if the n strongest outputs are the n digits in it. Beside the test images themselves they
    are shown with Gaussian noise. ``--network`` names one of the paper's; any other backbone, adapter or ``--from
    TRIAL`` can take its place.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    dataset: Annotated[str, Registered("datasets")] = "digit-clutter:digits"
    """What to train on, with a column ``present``: digit-clutter:NAME. Beside --from that of the trial."""
    backbone: Annotated[str, Registered("backbones")] = BACKBONE
    """The network, where it is none of the paper's: see ``engram list backbones``. Beside --from that of the trial."""
    objective: Annotated[str, Registered("objectives")] = "present"
    """What is minimised: see ``engram list objectives``."""
    discount: Annotated[float, Gt(0), Le(1)] | None = 1.0
    """The losses of every step's output in place of that of the read-out, the one k steps before the last times this to
    the power of k; 1: all alike, as in the paper. None: the loss of the read-out."""
    network: Network | None = None
    """One of the paper's: bottom-up (B), with top-down (BT), lateral (BL) or both connections (BLT), and controls with
    more maps (BF) or larger kernels (BK). None: BLT, unless another network is named. Options beside those that make it
    what it is can be given with its adapter's name: --adapter feedback.blt --adapter.steps 8."""
    maps: Annotated[int, Ge(1), Le(512)] = MAPS
    """Feature maps of the layers of --network; BF has twice as many."""
    lrn: bool = True
    """Local response normalisation in --network, as in the paper; it takes about as long as the convolutions."""

    @classmethod
    def recipe(cls, given: Mapping[str, Any]) -> dict[str, Scalar]:
        fresh = given.get("from_trial") is None and given.get("optimizer") is None
        return {**super().recipe(given), **(_RECIPE if fresh else {})}

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values = dict(given)
        other = [name for name in _OTHER if values.get(name)]
        if values.get("network") is None and not other:
            values["network"] = "BLT"
        if (network := values.get("network")) is not None:
            values = _named(network, values)
        else:
            for name in ("maps", "lrn"):
                if (value := values.get(name, getattr(cls, name))) != getattr(cls, name):
                    remedy = f"Use --backbone.{name}, or drop it."
                    raise must(f"--{name}", "left out without --network", value, remedy)
        return super().resolve(values, inputs)


def _named(network: Network, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and what the network is made of.

    Raises:
        UserError: one line for everything given that makes another network.
    """
    made = options_of(network, given.get("maps", MAPS), given.get("lrn", True))
    flags = {"from_trial": "--from", "weights": "--weights"}
    problems = [
        must(flag, "left out beside --network", given[name], "Drop one of the two.")
        for name, flag in flags.items()
        if given.get(name) is not None
    ]
    for name in ("backbone", "adapter"):
        own, held = f"{name}_options", given.get(f"{name}_options", {})
        other = {name: given[name]} if given.get(name) and given[name] != made[name] else {}
        other |= {f"{name}.{key}": held[key] for key, value in made[own].items() if held.get(key, value) != value}
        rule = f"as --network {network} has it"
        problems += [must(f"--{each}", rule, value, "Drop one of the two.") for each, value in other.items()]
        usual = _USUAL[name]
        made[own] = {**held, **{key: value for key, value in made[own].items() if value != usual.get(key)}}
    if problems:
        raise UserError("\n".join(map(str, problems)))
    return {**given, **made}
