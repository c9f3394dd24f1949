"""What every strategy starts from: hooks that do nothing, and what it may know of where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor, nn

from engram.backbone.contract import Row
from engram.backbone.hardware import Precision
from engram.backbone.nets.plain import copied
from engram.continual.streams.heads import Reach

if TYPE_CHECKING:
    from engram.backbone.data.sets import Split
    from engram.backbone.training.loop import Batch
    from engram.continual.experiment.learner import Learner
    from engram.continual.streams.stream import Stream, Task


M = TypeVar("M", bound=nn.Module)


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


class Strategy:
    """Base of the strategies: every hook is there and does nothing.

    A strategy is constructed once, before the first task, as ``Strategy(options, setting, model)``: its own options
    (None when it has none), the setting, and the classifier on its device. Its state after any step is its
    ``state_dict``: tensors, numbers, strings and containers of them, from which ``load_state_dict`` of a freshly
    constructed one goes on bit for bit.
    """

    by_rows: bool = False
    """Whether ``loss`` looks at ``batch.losses``."""
    recordable: ClassVar[bool] = False
    """Whether it leaves a training pass the same function of images and weights
    (`engram.backbone.contract.Strategy`)."""
    reach: ClassVar[Reach] = "all"
    """Whose outputs have gradients because of it, where those of every task are a layer: outputs out of all strategies'
    reach do not move (`engram.continual.streams.heads.Head.layers`)."""
    course: ClassVar[type[Learner] | None] = None
    """The learner to train with, where it is not ours."""

    def __init__(self, options: Any, setting: Setting, model: nn.Module) -> None:
        self.options, self.setting = options, setting

    def training_data(self, stream: Stream, task: Task) -> tuple[Split, Tensor | None]:
        """What to train on for a task, and of which task every image is ([N] int64; None: all of this one)."""
        return task.train, None

    def before_task(self, learner: Learner, task: Task) -> None:
        """The task's images are about to be trained on. Not called where boundaries are not told."""

    def enter_task(self, learner: Learner, task: int) -> None:
        """Images of a known task come next, in training or in a test. Not called where the task is not known."""

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        """Rows may be appended to ``batch.images`` and ``batch.labels``; call ``learner.replay`` for that."""

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        """loss: [] -> the loss to go on with, []."""
        return loss

    def after_backward(self, learner: Learner, batch: Batch) -> None:
        """Gradients are there."""

    def after_step(self, learner: Learner, batch: Batch) -> None:
        """Weights have changed, gradients are gone."""

    def after_task(self, learner: Learner, task: Task) -> None:
        """The task has been trained on; its data are still there."""

    def scores(self, learner: Learner, images: Tensor) -> Tensor | None:
        """images: [B, C, H, W] normalised -> scores [B, outputs] to classify by; None for the network's own logits."""
        return None

    def stored(self) -> dict[str, Tensor] | None:
        """``images`` [M, C, H, W] uint8, ``labels`` [M] and ``tasks`` [M] that are kept now; None: nothing is."""
        return None

    def samples(self) -> int:
        """How many different images of the tasks so far are kept for those to come."""
        stored = self.stored()
        return 0 if stored is None or not len(stored["images"]) else len(stored["images"].flatten(1).unique(dim=0))

    def effect(self) -> float | None:
        """How large the gradients of its penalty were beside those they were added to; None where nobody measures."""
        return None

    def tables(self) -> dict[str, list[Row]]:
        """What there is to see of the strategy when the stream is over, by title."""
        return {}

    def bytes(self) -> int:
        """Memory the strategy holds beside the network while a task is trained."""
        return total_bytes(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state."""


def frozen(module: M) -> M:
    """A copy that shares nothing with a module, in evaluation mode, and is not trained."""
    return copied(module).eval().requires_grad_(False)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters an optimizer moves."""
    return [p for p in model.parameters() if p.requires_grad]


def total_bytes(state: Any) -> int:
    """Bytes of all tensors in a nest of containers."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(total_bytes(value) for value in state.values())
    return sum(total_bytes(value) for value in state) if isinstance(state, list | tuple) else 0
