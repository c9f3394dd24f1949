"""What networks are, and may be, for all that works on any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from engram.backbone.contract.outputs import Halves
from engram.backbone.contract.values import Row

if TYPE_CHECKING:
    from torch import Tensor, fx, nn


class Site(NamedTuple):
    """A place in a network whose value a tap sees.

    Attributes:
        stage: the number of the stage whose output the value is, from 0; None for every other value.
        step: the number, from 0, of the first of the steps that the value holds.
        name: ``stages.0``, ``stages.1``, ... for stages; ``features`` for the features; for an activation or a layer of
            spiking neurons its module's name in the network, and ``NAME#2`` for its second call in a step.
    """

    stage: int | None
    step: int
    name: str


Tap: TypeAlias = "Callable[[Site, Tensor], Tensor]"
"""Sees the value ``[S, B, C, ...]`` at a site, of S steps of all images of the batch, and returns it or another one of
the same shape, which takes its place: later layers and later steps see that. Of spiking neurons it sees the spikes. It
writes into no value, and keeps a copy of what it wants to look at later: a network may use the memory again.
"""


@runtime_checkable
class SeesImages(Protocol):
    """A tap that, where it stays on a network, sees the images as well."""

    def images(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W], as the network takes them -> what it sees in their place."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A network that turns images into features, in one or more steps (spiking time or recurrence).

    ``forward_steps(x)`` gives the features after each step, ``[steps, B, feature_dim]``; ``forward(x)`` their read-out
    ``[B, feature_dim]``: the mean over steps (``readout == "mean"``) or the last step (``"last"``). State is passed
    explicitly; there is no ``reset()``. ``stages(x)`` is the output of every stage, ``[B, C_i, H_i, W_i]`` each, the
    mean over steps where there are more.

    Steps: a still image ``[B, C, H, W]`` takes ``steps`` of them. A sequence of event frames ``[B, T, C, H, W]`` takes
    T, one for each frame, whatever ``steps`` is, and the state is carried from one frame to the next. A still image is
    therefore the same as ``steps`` equal frames.

    With a ``tap`` every stage's output, every activation or layer of spiking neurons and the features are shown to it,
    step by step or several steps at a time, and what it returns is what flows on. Gradients flow through it. All images
    of a batch are seen together, and nothing is recorded, compiled or computed again then. A network whose
    ``forward_steps`` has no ``tap`` is tapped from outside (`engram.backbone.nets.tapped`).
    """

    in_shape: tuple[int, int, int]
    feature_dim: int
    stage_channels: tuple[int, ...]
    steps: int
    readout: Literal["mean", "last"]

    def stages(self, x: Tensor) -> list[Tensor]: ...
    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor: ...
    def forward(self, x: Tensor) -> Tensor: ...


# What a network may have besides. Whoever needs one of these asks with isinstance, and refuses a network without it by
# the name of the protocol (`engram.backbone.nets.needs`).


@runtime_checkable
class Shaped(Protocol):
    """It says which images it takes, (C, H, W). Every `Backbone` does."""

    in_shape: tuple[int, int, int]


@runtime_checkable
class Traceable(Protocol):
    """Its features of images have no control flow on tensors: a graph can be made of the code."""

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]."""
        ...


@runtime_checkable
class Staged(Protocol):
    """It is a row of stages and a tail, each of which can be run by itself on the output of the one before.

    ``features(x)`` is all of them in turn, ``len(stage_channels)`` stages and then the tail.
    """

    def apply_stage(self, index: int, x: Tensor) -> Tensor:
        """x: the images, or the output of stage ``index - 1`` -> the output of stage ``index``, [B, C, H, W]."""
        ...

    def apply_tail(self, x: Tensor) -> Tensor:
        """x: the output of the last stage, [B, C, H, W] -> features [B, feature_dim]."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """It is in stages (`Staged`) whose layers remember what they saw: spiking neurons, for one.

    Its ``apply_stage(index, x, memory)`` and ``apply_tail(x, memory)`` run one step. ``memory`` is a dict of what its
    layers remember, by names of its own choice: it is empty before the first step, and each call puts new values in the
    place of old ones, which it never writes into. Without a ``memory`` a stage begins from rest. What is the same
    tensor as in the step before may be taken for the same image. A ``tap`` sees, and may replace, what layers of
    neurons send, [1, B, C, ...]; activations that are modules are seen by hooks.
    """

    remembers: Literal[True]

    def apply_stage(
        self, index: int, x: Tensor, memory: dict[str, Any] | None = None, tap: Tap | None = None
    ) -> Tensor: ...
    def apply_tail(self, x: Tensor, memory: dict[str, Any] | None = None, tap: Tap | None = None) -> Tensor: ...


@runtime_checkable
class Wrapping(Protocol):
    """It is recurrence around a network in stages, ``inner``, and may be put around another one with such stages."""

    inner: nn.Module

    def links(self) -> Mapping[str, nn.Module]:
        """What leads back, by name."""
        ...

    def settled(self) -> nn.Module:
        """A copy of the network inside as it is after many steps: normalisation that knows its step is the last's."""
        ...

    def around(self, net: nn.Module) -> nn.Module:
        """The same recurrence, with copies of its weights, around another network, which becomes part of the result.

        One that has steps of its own (`Remembering`) keeps them and its read-out.

        Raises:
            UserError: this kind of recurrence cannot be put around another network, or its stages are others.
        """
        ...


@runtime_checkable
class StageMeans(Protocol):
    """The output of its stages can be had, as their mean over steps. Every `Backbone` can."""

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the output of every stage, each [B, C_i, H_i, W_i]."""
        ...


@runtime_checkable
class StageSteps(Protocol):
    """The output of its stages can be had step by step."""

    def stage_steps(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the output of every stage at every step, each [S, B, C_i, H_i, W_i]."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A fresh one is initialised from images."""

    def prepare(self, images: Tensor) -> None:
        """images: [N, C, H, W] normalised training images."""
        ...


@runtime_checkable
class Calibrated(Protocol):
    """What an adapter has added to a trained one is set from images."""

    def calibrate(self, images: Tensor) -> None:
        """images: [N, C, H, W] normalised training images."""
        ...


@runtime_checkable
class Initialised(Protocol):
    """It has a way of its own to initialise layers, of which a fresh head behind it is one."""

    def initialise(self, module: nn.Module) -> None:
        """Initialise one module, in place; a module of another kind stays as it is."""
        ...


@runtime_checkable
class Unnormalised(Protocol):
    """It takes images as they are where ``raw`` is True: pictures in [0, 1], frames as whole numbers of events."""

    raw: bool


@runtime_checkable
class Spiking(Protocol):
    """Its activations are layers of spiking neurons."""

    def neurons(self) -> Mapping[str, nn.Module]:
        """The layers by name, in the order they run."""
        ...


@runtime_checkable
class Delayed(Protocol):
    """Its read-out, a mean over steps, leaves out the first ``delay`` of them."""

    delay: int


@runtime_checkable
class Predicting(Protocol):
    """It predicts the output of each stage from a later one, with weights of their own."""

    def prediction_errors(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> the mean squared error of every prediction, [P], before any step of feedback.

        Gradients reach the weights of the predictions alone.
        """
        ...

    def predictors(self) -> nn.Module:
        """The part of the network that holds these weights, and no others."""
        ...


@runtime_checkable
class Counterfactual(Protocol):
    """Its attention can be exchanged for what it might have been."""

    def counterfactual(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> its features, and those with other attention, [B, feature_dim] each."""
        ...


@runtime_checkable
class Complementary(Protocol):
    """Its attention keeps what it leaves out, and it has a head of its own for every environment."""

    def halves(self, x: Tensor) -> tuple[Tensor, Halves]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> its features [B, feature_dim], and what stands beside them.

        Raises:
            UserError: the head behind it is not linear.
        """
        ...


@runtime_checkable
class Weighted(Protocol):
    """Its read-out is a mean over steps with weights that are its own."""

    def step_weights(self, steps: int) -> Tensor | None:
        """[steps], positive: the weight of each step in a read-out of the first ``steps``, which divides by their
        sum. None: all are equal.
        """
        ...


@runtime_checkable
class Introduced(Protocol):
    """It looks at the logits of its steps: a classifier introduces the head behind it."""

    def introduce(self, head: nn.Module) -> None:
        """Take the head that turns its features into logits. It stays the classifier's: none of its weights are
        this network's.
        """
        ...


@runtime_checkable
class Presimulating(Protocol):
    """Every image takes ``pre_simulation`` steps before the first of those whose features it gives."""

    pre_simulation: int


@runtime_checkable
class Judged(Protocol):
    """An adapter made it: ``verdicts`` are rows of ``layer``, ``kind`` and ``verdict``, what became of every layer."""

    verdicts: Sequence[Row]


@runtime_checkable
class AnyLayout(Protocol):
    """It sets the memory layout of its images itself where ``any_layout`` is True (`engram.backbone.nets.layout`)."""

    any_layout: bool


@runtime_checkable
class Recomputing(Protocol):
    """A module that keeps less of a training pass, and computes it again, where ``recompute`` is True."""

    recompute: bool


@runtime_checkable
class Graphed(Protocol):
    """It runs a graph, which is one of its modules."""

    def as_graph(self) -> fx.GraphModule:
        """That graph; it is not a copy."""
        ...


@runtime_checkable
class Whole(Protocol):
    """A module that is one operation where ``leaf`` is True, an activation of its own kind: no graph looks into it."""

    leaf: bool


@runtime_checkable
class Composed(Protocol):
    """A layer that computes what a plain one does, with weights made from its own."""

    def baked(self) -> nn.Module:
        """The plain layer that it is now."""
        ...


Ability = Literal[
    "Traceable",
    "Staged",
    "StageSteps",
    "Prepared",
    "Calibrated",
    "Delayed",
    "Spiking",
    "Predicting",
    "Counterfactual",
    "Complementary",
]
"""The name of a protocol that an adapter or an objective can need of a network."""
ABILITIES: Mapping[Ability, type] = {
    "Traceable": Traceable,
    "Staged": Staged,
    "StageSteps": StageSteps,
    "Prepared": Prepared,
    "Calibrated": Calibrated,
    "Delayed": Delayed,
    "Spiking": Spiking,
    "Predicting": Predicting,
    "Counterfactual": Counterfactual,
    "Complementary": Complementary,
}
