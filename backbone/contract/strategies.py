"""Strategies against forgetting: what they say of themselves, what they are told, and what they may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from engram.backbone.contract.learning import Training
from engram.backbone.contract.values import Row, Scalar

if TYPE_CHECKING:
    from torch import Tensor

    from engram.backbone.contract.learning import Batch
    from engram.backbone.data.sets import Split
    from engram.backbone.hardware import Precision

Reach = Literal["own", "met", "all"]
"""Outputs of the task at hand, of the tasks so far, or all."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a strategy does and needs: declared in its `Entry`, and known before the strategy is imported.

    Attributes:
        turn: among several strategies those of a lower turn come first in every hook (last in ``after_step``), in
            whatever order they are named; those of the same turn come by name. What measures steps (0) must see
            gradients before anything is added to them, and weights after all has been done to them; what weighs the
            loss of the task (1) comes before what adds to it (2); what keeps weights from moving, or from moving
            somewhere (3), comes behind what pulls at them.
        boundaries: it must be told where one task ends and the next begins.
        replays: it trains on rows of other tasks.
        buffer: it keeps images, a share of ``--buffer`` of them.
        each_task: its share must have room for an image of every task.
        needs_task: it must be told an image's task in tests as well, and computes something else for every task.
        teacher: it asks a copy of the network from before the task, which knows nothing of what ``needs_task`` does.
        weighs: it gives the loss of the task another weight; one strategy at most can.
        unweighted: the option with which it does not, as on the command line.
        by_rows: it looks at the loss of every row, as `Strategy` says, which not every objective can tell.
        new_outputs: every task must bring classes that were not there before, or outputs of its own.
        alone: it cannot be combined with other strategies.
        strength: its option that says how strong a penalty is. Where the option is ``"auto"`` it is chosen on the first
            tasks.
        strengths: powers of ten that a choice begins with, in ascending order.
        answers_by: what tests answer by, where that is not the outputs of the network.
        fails_without_task: why it is known to fail where classes are new and an image's task is not told.
        only: options of the stream that cannot have every value, by name (``head``, ``reset_optimizer``), with the
            values that they can have; the first is offered in place of others.
        instead: a strategy that does the same for other values.
    """

    turn: int = 2
    boundaries: bool = True
    replays: bool = False
    buffer: bool = False
    each_task: bool = False
    needs_task: bool = False
    teacher: bool = False
    weighs: bool = False
    unweighted: str = ""
    by_rows: bool = False
    new_outputs: bool = False
    alone: bool = False
    strength: str = ""
    strengths: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0, 1000.0)
    answers_by: str = ""
    fails_without_task: str = ""
    only: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    instead: str = ""


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    """Base for the options of a strategy whose traits depend on them, or on what follows the colon of its name.

    Options of other strategies need no base.
    """

    def traits(self, declared: Traits, path: str) -> Traits:
        """What the strategy is with these options.

        Args:
            declared: what its entry says.
            path: what follows the colon.
        """
        return declared

    def problems(self, path: str) -> list[str]:
        """Why it cannot work with these options, each "<what> must be <rule>; got <value>. <next step>"."""
        return []


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a strategy may know before the first task."""

    seed: int
    device: str
    precision: Precision
    tasks: int
    outputs: int
    """Width of the head."""
    in_shape: tuple[int, int, int]
    frames: int | None
    batch_size: int
    groups: int
    """Pairs of a task and a class of it."""
    buffer: int
    """Images the strategy may keep, all tasks together: its share of ``--buffer``."""
    keepers: int = 1
    """Strategies that have such a share."""
    path: str = ""
    """What follows the colon in the strategy's name."""


@dataclass(frozen=True)
class Task:
    """One task of a stream. Labels are outputs of the network's head."""

    index: int
    train: Split
    validation: Split | None
    test: Split
    outputs: tuple[int, ...]
    """The labels its images may have."""
    told: bool = True
    """Whether the learner is told that it begins and ends."""


class Tasks(Protocol):
    """The tasks of a stream, made when they are asked for."""

    def __len__(self) -> int: ...
    def task(self, index: int) -> Task: ...


class TaskHead(Protocol):
    """Which outputs of the network a task uses."""

    @property
    def width(self) -> int:
        """All outputs."""
        ...

    @property
    def table(self) -> Tensor:
        """``[tasks, width] bool``, what each task uses."""
        ...

    @property
    def met(self) -> Tensor:
        """``[tasks, width] bool``, what has been used when a task has begun."""
        ...

    @property
    def by_task(self) -> bool:
        """Whether rows of different tasks choose among different outputs."""
        ...

    def allowed(self, task: int | Tensor) -> Tensor | None:
        """Outputs to choose among: ``[width] bool`` for a task, ``[N, width]`` for rows of tasks ``[N]``; None: all."""
        ...


class Learner(Training, Protocol):
    """What a strategy may ask of the training of one task."""

    @property
    def task(self) -> int:
        """The number of the task at hand."""
        ...

    @property
    def head(self) -> TaskHead: ...
    @property
    def strategies(self) -> Sequence[Strategy]:
        """All of the stream, in their turn."""
        ...

    @property
    def limit(self) -> int | None:
        """Steps of a task, where they were asked for; None for whole epochs."""
        ...

    def replay(self, batch: Batch, images: Tensor, labels: Tensor, tasks: Tensor | None = None) -> None:
        """Append rows to a batch, to be trained on with the task's own. Call it in ``before_forward`` only.

        images: ``[R, C, H, W]`` normalised (see `augmented`); labels: ``[R]``; tasks: ``[R]``, whose outputs they
        choose among (None where the head asks the same of all tasks).
        """
        ...

    def masked(self, logits: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Logits with the outputs switched off that the head does not offer now, or to rows of ``tasks``: ``[N]``."""
        ...

    def losses(self, logits: Tensor, labels: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Cross-entropy of every row, ``[N]``, over the outputs the head offers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a training of a whole task came to."""

    steps: int
    loss: float
    """Mean over all rows that were trained on."""


class Strategy(Protocol):
    """Hooks around the one training loop; subclass it, those here do nothing. A strategy knows no backbone by name.

    It is constructed once, before the first task, as ``Strategy(options, setting, model)``: its own options (None when
    it has none), a `Setting`, and the classifier on its device. Its state after any step is its ``state_dict``:
    tensors, numbers, strings and containers of them, from which ``load_state_dict`` of a freshly constructed one goes
    on bit for bit. `engram.continual.strategy.StrategyBase` is the base of ours.

    In a step they are called in this order, each for all strategies in turn (`Traits.turn`): ``before_forward``,
    forward pass, ``loss``, backward pass, ``after_backward``, optimizer step, and in reverse ``after_step``, so that
    whoever saw the gradients first sees the weights last.
    """

    by_rows: bool = False
    """Whether ``loss`` looks at ``batch.losses``."""
    recordable: bool = False
    """Promises, for subclasses too, that a training pass stays the same function of images and weights: it adds no
    hooks to modules, changes no module's mode and no ``requires_grad``, puts no other tensor in a weight's place and
    goes backward through a pass once. On a GPU such passes are recorded (`engram.backbone.training.recorded`)."""
    reach: Reach = "all"
    """Whose outputs have gradients because of it, where those of every task are a layer of their own: outputs out of
    all strategies' reach do not move."""

    def training_data(self, stream: Tasks, task: Task) -> tuple[Split, Tensor | None] | None:
        """What to train on for a task, and of which task every image is (``[N] int64``; None: all of this one).

        None for the task's own images.
        """
        return None

    def attach(self, learner: Learner) -> None:
        """A learner of a task is there: before the task's first step, and again where a run goes on."""
        return

    def learn(self, learner: Learner) -> Learned | None:
        """Train all of the task in a loop of its own; None: ours trains, with the hooks."""
        return None

    def before_task(self, learner: Learner, task: Task) -> None:
        """The task's images are about to be trained on. Not called where boundaries are not told."""
        return

    def enter_task(self, learner: Learner, task: int) -> None:
        """Images of a known task come next, in training or in a test. Not called where the task is not known."""
        return

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        """Rows may be appended to the batch: call `Learner.replay`."""
        return

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        """loss: ``[]`` -> the loss to go on with, ``[]``."""
        return loss

    def after_backward(self, learner: Learner, batch: Batch) -> None:
        """Gradients are there."""
        return

    def after_step(self, learner: Learner, batch: Batch) -> None:
        """Weights have changed, gradients are gone."""
        return

    def after_task(self, learner: Learner, task: Task) -> None:
        """The task has been trained on; its data are still there. Not called where boundaries are not told."""
        return

    def scores(self, learner: Learner, images: Tensor) -> Tensor | None:
        """images: ``[B, C, H, W]`` normalised -> scores ``[B, outputs]`` to classify by; None for the logits."""
        return None

    def stored(self) -> dict[str, Tensor] | None:
        """``images`` ``[M, C, H, W] uint8``, ``labels`` ``[M]`` and ``tasks`` ``[M]`` kept now; None: nothing is."""
        return None

    def samples(self) -> int:
        """How many different images of the tasks so far are kept for those to come."""
        return 0

    def effect(self) -> float | None:
        """How large the gradients of its penalty were beside those they were added to; None: nobody measures."""
        return None

    def tables(self) -> dict[str, list[Row]]:
        """What there is to see of the strategy when the stream is over, by title."""
        return {}

    def bytes(self) -> int:
        """Memory the strategy holds beside the network while a task is trained."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        return
