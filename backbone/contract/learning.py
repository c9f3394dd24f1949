"""What takes part in a step of training: the batch, what is minimised, the order of the images, and hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from engram.backbone.contract.outputs import Outputs, Wanted
from engram.backbone.contract.values import Row

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engram.backbone.data.sets import Split
    from engram.backbone.hardware import Precision
    from engram.backbone.nets.classifier import Classifier
    from engram.backbone.training.optim import Optimizers
    from engram.backbone.training.options import TrainingOptions


@dataclass
class Batch:
    """What one step trains on. Hooks may append rows of their own in ``before_forward``.

    Attributes:
        raw: [B, C, H, W] uint8 (event frames [B, T, C, H, W]), as the split holds them.
        images: [N, C, H, W] float32, normalised and augmented; the first B rows come from ``raw``.
        labels: [N] int64.
        indices: [B] int64 on the CPU, positions in the split.
        columns: [N, ...] each, what else is known of every row.
        by_rows: whether somebody asks for ``losses``.
        whole: how many images the batch has in all, where several processes share it (``--devices``): ``raw`` and
            ``images`` are those of this one, everything else is of all rows. None: it has no others.
        logits: [N, K] float32, once the forward pass is done.
        losses: [N] float32, the loss of every row, once the objective has been asked; only where ``by_rows`` is set.
    """

    raw: Tensor
    images: Tensor
    labels: Tensor
    indices: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    by_rows: bool = False
    whole: int | None = None
    logits: Tensor = field(init=False)
    losses: Tensor = field(init=False)

    @property
    def own(self) -> int:
        """How many rows come from the split."""
        return len(self.raw)

    @property
    def count(self) -> int:
        """How many images it has, N."""
        return len(self.images) if self.whole is None else self.whole

    def repeated(self, times: int) -> Batch:
        """Labels and columns of all rows, then all again, so many times; images stay as they are."""
        columns = {name: column.repeat(times, *[1] * (column.ndim - 1)) for name, column in self.columns.items()}
        return replace(self, labels=self.labels.repeat(times), columns=columns)


class Objective(Protocol):
    """What training minimises. Subclass it: what is not overridden is as it says here.

    Made before the first step as ``NAME(options, setting)`` (`ObjectiveSetting`); ``--objective`` names it. Its entry
    says in ``asks`` (`Asks`) what follows for the trial, so that one which cannot be is refused when it is planned.
    Label smoothing, masks of heads, the loss of every step and distillation are put around it
    (`engram.backbone.objectives`).
    """

    columns: tuple[str, ...] = ()
    """Columns of the data it needs in ``batch.columns``."""
    wants: tuple[Wanted, ...] = ()
    """What of `Outputs` it looks at beside the logits."""
    recordable: bool = True
    """Whether a pass may be recorded on a GPU: it goes backward through a pass once, and does not ask for gradients of
    gradients."""
    by_rows: bool = False
    """Whether it is the mean of the losses of rows, and fills ``batch.losses`` where it is asked to."""
    by_itself: bool = False
    """Whether nothing can be put around it, because it learns in a way of its own or trains a network beside."""

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        """The loss to go backward from, [].

        Args:
            outputs: of the network, for all rows.
            batch: with the labels and columns of all rows.
            step: how many steps were done before.
        """
        ...

    def begin(self, training: Training) -> None:
        """A training begins, or is gone on with where it was broken off; in a stream that of a task.

        Asked once, before the state is loaded.

        Raises:
            UserError: it is no training for this objective.
        """
        return

    def divisor(self, step: int) -> float:
        """What the gradient is divided by before a step, with all that others add to the loss; 1 leaves it."""
        return 1.0

    def learn(self, training: Training) -> float | None:
        """Train in a way of its own, and return the mean loss over the training images; None: the loop trains.

        Asked once, before the first step, where it stands ``by_itself``; where a number comes back the training is
        over. It lasts minutes at most: nothing of it is kept before it is done.
        """
        return None

    def trained(self, model: Classifier) -> nn.Module | None:
        """The part of a network that is trained; None for all of it.

        Asked once, before the first step. The rest keeps its weights and its statistics, and runs as it does when it is
        scored.

        Raises:
            UserError: it is no network for this objective.
        """
        return None

    def tables(self) -> Mapping[str, Sequence[Row]]:
        """What it has found out, as tables of the trial's result."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember between two steps: tensors, numbers, strings, and containers of them."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        return


@dataclass(frozen=True, kw_only=True)
class ObjectiveSetting:
    """What an objective may know before the first step."""

    data: Split
    """The training images, with the columns that it needs."""
    outputs: int
    """Width of the head."""
    label_smoothing: float
    """Share of the target to spread over all classes."""
    device: str
    validation: Split | None = None
    """Images to choose on, with their columns; None: there are none, or the experiment keeps them to itself."""
    alone: bool = False
    """Whether a single group or environment is meant, because the others are left out to be tested on; what compares
    several refuses it otherwise."""
    reference: Classifier | None = None
    """The first network that it begins from, in evaluation mode on the device; given where its entry asks for one
    (`Asks.reference`)."""


class Sampler(Protocol):
    """Which images an epoch shows, and in which order: a pure function of the data, a seed and the epoch."""

    def rows(self, data: Split) -> int:
        """How many images an epoch shows, each as often as it comes."""
        ...

    def order(self, data: Split, seed: int, epoch: int) -> Tensor:
        """Their positions, ``[rows] int64`` on the CPU; batches are consecutive stretches of it."""
        ...


class Training(Protocol):
    """What hooks may ask of the training they are in."""

    @property
    def model(self) -> Classifier: ...
    @property
    def data(self) -> Split:
        """The images that are trained on."""
        ...

    @property
    def options(self) -> TrainingOptions:
        """Its seed is that of all that is random in this training."""
        ...

    @property
    def optimizers(self) -> Optimizers: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def step(self) -> int:
        """Steps that are done."""
        ...

    @property
    def total_steps(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
    def forward(self, images: Tensor) -> Tensor:
        """images: ``[N, C, H, W]`` float, normalised -> logits ``[N, K]`` float32, at the training's precision."""
        ...

    def augmented(self, raw: Tensor, purpose: str) -> Tensor:
        """Images ``[b, C, H, W] uint8`` as the training sees its own, with draws of their own for every purpose."""
        ...


class Hook(Protocol):
    """What is called around the steps of a training; subclass it, the calls here do nothing.

    In a step all hooks are called in their order, ``after_step`` in reverse.
    """

    @property
    def recordable(self) -> bool:
        """Whether a training pass stays the same function of images and weights (`Strategy.recordable`)."""
        return False

    def before_forward(self, training: Training, batch: Batch) -> None:
        """Rows may be appended to the batch."""
        return

    def loss(self, training: Training, batch: Batch, loss: Tensor) -> Tensor:
        """loss: ``[]`` of the objective -> the loss to go on with, ``[]``."""
        return loss

    def after_backward(self, training: Training, batch: Batch) -> None:
        """Gradients are there."""
        return

    def after_step(self, training: Training, batch: Batch) -> None:
        """Weights have changed, gradients are gone."""
        return

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        return
