"""What takes part in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Strategy(Protocol):
    """Hooks around the one training loop. A strategy never knows which backbone it trains.

    ``learner`` is the `engram.backbone.training.loop.Trainer` that runs the loop and ``batch`` its
    `engram.backbone.training.loop.Batch`. In a step the hooks run in this order, each for all strategies in turn:
    ``before_forward`` (may append rows), forward pass, ``loss``, backward pass, ``after_backward`` (gradients are
    there), optimizer step, ``after_step`` (gradients are gone; in reverse, so that whoever saw the gradients first
    sees the weights last). ``enter_task`` precedes every forward pass of a task's images, in training and in tests,
    wherever the task is known.

    One with an attribute ``recordable = True`` promises, for its subclasses too, that a training pass stays the same
    function of images and weights: it adds no hooks, changes no mode of a module and no ``requires_grad``, puts no
    other tensor in a weight's place and goes backward through a pass once. On a GPU such passes are recorded
    (`engram.backbone.training.recorded`).
    """

    def before_task(self, learner: Any, task: Any) -> None: ...
    def enter_task(self, learner: Any, task: int) -> None: ...
    def before_forward(self, learner: Any, batch: Any) -> None: ...
    def loss(self, learner: Any, batch: Any, loss: Tensor) -> Tensor: ...
    def after_backward(self, learner: Any, batch: Any) -> None: ...
    def after_step(self, learner: Any, batch: Any) -> None: ...
    def after_task(self, learner: Any, task: Any) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: Mapping[str, Any]) -> None: ...
