"""Our strategies as Avalanche's plugins, for scripts of its users: ``SIPlugin``, ``DERppPlugin``, ``HATPlugin``.

::

    from engram.continual.avalanche.plugins import SIPlugin
    strategy = Naive(model=model, optimizer=optimizer, plugins=[SIPlugin(c=0.1, xi=0.1)], ...)

They are the very strategies of our experiment, seen through an adapter: ``Hooked`` turns Avalanche's callbacks into
their hooks. The classes are made when they are asked for, because Avalanche is imported then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Setting, Shaped
from engram.backbone.errors import must
from engram.backbone.options import options_of
from engram.backbone.registry import Registry
from engram.continual.avalanche.guard import module
from engram.continual.avalanche.networks import OFF
from engram.continual.strategy import StrategyBase
from engram.continual.traits import AUTO, traits

NAMES = {"SIPlugin": "continual.si", "DERppPlugin": "continual.derpp", "HATPlugin": "continual.hat"}


class Hooked:
    """The adapter. Options are those of the strategy, by name; see ``engram run continual.stream --help``.

    Args:
        seed: of what is random in it.
        buffer: images it may keep, where it keeps any; they are kept as the data set gives them, and an image that
            comes by several times may be kept several times.
        options: of the strategy.

    Its state between two steps is its ``state_dict``; a new plugin takes one before it is first used.

    Raises:
        UserError: the strength of a penalty is no number; the network has no ``backbone`` and ``head``, or no fixed
            outputs, where the strategy needs them; or its parameters changed between experiences.
    """

    strategy_name: str

    def __init__(self, *, seed: int = 0, buffer: int = 200, **options: Any) -> None:
        super().__init__()
        registry = Registry.discover()
        schema = registry.options("strategies", self.strategy_name)
        if schema and "copies" in {field.name for field in fields(schema)} and not options.setdefault("copies", True):
            what = f"copies of {type(self).__name__}"
            raise must(what, "True, for no batch of Avalanche's says which images it holds", False, "Leave it out.")
        self.options = options_of(registry, "strategies", self.strategy_name, options)
        self.seed, self.buffer = seed, buffer
        name, strength = type(self).__name__, traits(self.strategy_name).strength
        if strength and getattr(self.options, strength) == AUTO:
            raise must(f"{strength} of {name}", "a number", AUTO, f"Give it one: {name}({strength}=1.0).")
        self.ours: StrategyBase | None = None
        self.learner: Any = None
        self.batch: Any = None
        self.saved: Mapping[str, Any] = {}
        self.gated = traits(self.strategy_name).needs_task

    def before_training_exp(self, strategy: Any, *args: Any, **more: Any) -> None:
        if self.ours is None:
            self._begin(strategy)
        elif [id(p) for p in strategy.model.parameters()] != self._parameters:
            what = f"a network for {type(self).__name__}"
            raise must(what, "the same from the first experience on", "one with other parameters", "Make it whole.")
        assert self.ours is not None
        learner, loader = self.learner, strategy.dataloader
        learner.task = strategy.experience.current_experience  # its clock begins anew with every strategy
        learner.steps_per_epoch = len(loader)
        learner.total_steps = strategy.train_epochs * len(loader)
        learner.step = 0
        self.ours.before_task(learner, self._task)
        if self.gated:
            self.ours.enter_task(learner, learner.task)

    def before_forward(self, strategy: Any, *args: Any, **more: Any) -> None:
        assert self.ours is not None
        images, labels = strategy.mb_x, strategy.mb_y
        self.batch = Batch(images, images, labels, torch.arange(len(labels)))
        self.learner.data.labels = labels.cpu()
        self.ours.before_forward(self.learner, self.batch)

    def after_forward(self, strategy: Any, *args: Any, **more: Any) -> None:
        self._mask(strategy, self.learner.task)
        self.batch.logits = strategy.mb_output

    def before_backward(self, strategy: Any, *args: Any, **more: Any) -> None:
        assert self.ours is not None
        strategy.loss = self.ours.loss(self.learner, self.batch, strategy.loss)

    def after_backward(self, strategy: Any, *args: Any, **more: Any) -> None:
        assert self.ours is not None
        self.ours.after_backward(self.learner, self.batch)

    def after_update(self, strategy: Any, *args: Any, **more: Any) -> None:
        assert self.ours is not None
        self.ours.after_step(self.learner, self.batch)
        self.learner.step += 1

    def after_training_exp(self, strategy: Any, *args: Any, **more: Any) -> None:
        assert self.ours is not None
        self.ours.after_task(self.learner, self._task)

    def before_eval_exp(self, strategy: Any, *args: Any, **more: Any) -> None:
        if self.gated and self.ours is not None:
            self.ours.enter_task(self.learner, strategy.experience.current_experience)

    def after_eval_forward(self, strategy: Any, *args: Any, **more: Any) -> None:
        if self.ours is not None:
            self._mask(strategy, strategy.experience.current_experience)

    def state_dict(self) -> dict[str, Any]:
        """The strategy's state; its tensors are the live ones."""
        return dict(self.saved) if self.ours is None else self.ours.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.saved = saved
        if self.ours is not None:
            self.ours.load_state_dict(saved)

    @property
    def _task(self) -> Any:
        return SimpleNamespace(index=self.learner.task)

    def _mask(self, strategy: Any, task: int) -> None:
        """HAT is told the task: the outputs of others are off."""
        if self.gated:
            strategy.mb_output = strategy.mb_output.masked_fill(~self.learner.head.table[task], OFF)

    @torch.no_grad()
    def _begin(self, strategy: Any) -> None:
        model, device = strategy.model, str(strategy.device)
        image = strategy.experience.dataset[0][0]
        stream = strategy.experience.origin_stream
        what = f"a network for {type(self).__name__}"
        if isinstance(model, module("avalanche.models.dynamic_modules").MultiTaskModule):
            raise must(what, "one with all its outputs in one layer", type(model).__name__, "Use one linear layer.")
        if self.gated and not {"backbone", "head"} <= dict(model.named_children()).keys():
            raise must(what, "one whose parts are called backbone and head", type(model).__name__, "Rename them.")
        if self.gated and not isinstance(model.backbone, Shaped):
            model.backbone.in_shape = tuple(image.shape)
        training = model.training
        outputs = model.eval()(image[None].to(device)).shape[1]
        model.train(training)
        setting = Setting(
            seed=self.seed,
            device=device,
            precision="fp32",
            tasks=len(stream),
            outputs=outputs,
            in_shape=tuple(image.shape),
            frames=None,
            batch_size=strategy.train_mb_size,
            groups=len(stream) * outputs,
            buffer=self.buffer,
        )
        ours = Registry.discover().load("strategies", self.strategy_name)(self.options, setting, model)
        self.ours = ours
        self._keep_as_given(image, device)
        self._parameters = [id(p) for p in model.parameters()]
        table = torch.zeros(len(stream), outputs, dtype=torch.bool, device=device)
        for index, experience in enumerate(stream if self.gated else ()):
            table[index, list(experience.dataset.targets.uniques)] = True
        self.learner = _Learner(
            model, device, strategy.plugins, SimpleNamespace(table=table), SimpleNamespace(labels=None, frames=None)
        )
        if self.saved:
            ours.load_state_dict(self.saved)

    def _keep_as_given(self, image: Tensor, device: str) -> None:
        """Our buffers keep bytes; here images may be anything."""
        buffer = getattr(self.ours, "buffer", None)
        if buffer is not None:
            buffer.images = torch.zeros(self.buffer, *image.shape, dtype=image.dtype, device=device)


@dataclass
class _Learner:
    """What our strategies ask of a learner (`engram.backbone.contract.Learner`), with Avalanche's loop around them."""

    model: Any
    device: str
    strategies: Any
    """All plugins: others may change gradients, and ours are told by how many there are."""
    head: SimpleNamespace
    data: SimpleNamespace
    options = SimpleNamespace(clip=0.0)
    task = step = total_steps = steps_per_epoch = 0
    precision = "fp32"

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def augmented(self, raw: Tensor, purpose: str) -> Tensor:
        return raw

    def losses(self, logits: Tensor, labels: Tensor, tasks: Tensor | None = None) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")


@cache
def _made(name: str) -> type:
    base = module("avalanche.core").SupervisedPlugin
    return type(name, (Hooked, base), {"strategy_name": NAMES[name], "__module__": __name__, "__doc__": Hooked.__doc__})


def __getattr__(name: str) -> type:
    if name not in NAMES:
        raise AttributeError(name)
    return _made(name)
