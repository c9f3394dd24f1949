"""Avalanche's strategies in our experiment: it trains, task after task; streams, tests and records are ours.

A task is trained in one go, so that a run that was broken off goes on from the last finished task.
"""

from __future__ import annotations

import copy
import inspect
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engram.backbone.contract import Learned, Learner, Setting, Task, Tasks
from engram.backbone.data.sets import Split
from engram.backbone.errors import TrialError, UserError, must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.seeding import derive, seed_everything
from engram.continual.avalanche import guard, networks, state
from engram.continual.avalanche.benchmark import to_benchmark, unit
from engram.continual.avalanche.options import AvalancheOptions
from engram.continual.experiment.stream import Stream
from engram.continual.strategy import StrategyBase, total_bytes
from engram.continual.tasks.heads import MASKED

LOOKS = {"GenerativeReplay": networks.generated, "GSS_greedy": unit}
"""What images become for strategies that cannot work on bytes."""


class _Watch:
    """A plugin that counts steps and rows, and stops after a given number of steps."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.steps, self.rows, self.loss_sum = limit, 0, 0, torch.zeros(())

    def after_training_iteration(self, strategy: Any, **more: Any) -> None:
        self.steps, self.rows = self.steps + 1, self.rows + len(strategy.mb_y)
        self.loss_sum = self.loss_sum + strategy.loss.detach().sum().cpu() * len(strategy.mb_y)
        if self.steps == self.limit:
            strategy.stop_training()


class Avalanche(StrategyBase):
    """One of Avalanche's strategies, named after the colon of ``avalanche:NAME``, as a reference for ours.

    It trains our network on our stream with Avalanche's own loop: cross-entropy, Adam or SGD as the stream's options
    say, and its seeds derived from ours for every task. ``--buffer`` becomes ``mem_size`` (``memory_size``; for AGEM
    and GEM ``patterns_per_exp`` times the number of tasks).

    Source: Carta et al. 2023, "Avalanche: A PyTorch library for deep continual learning"; avalanche-lib 0.6.0.
    """

    options: AvalancheOptions

    def __init__(self, options: AvalancheOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.name, self.network_bytes = setting.path, _module_bytes(model)
        self.cls = guard.strategy(self.name)
        self.stream: Stream | None = None
        self.benchmark: Any = None
        self.made: Any = None
        self.saved: Mapping[str, Any] = {}
        self.task, self.learned = 0, 0
        self._generates = self.name == "GenerativeReplay"

    def training_data(self, stream: Tasks, task: Task) -> tuple[Split, Tensor | None] | None:
        assert isinstance(stream, Stream)
        self.stream = stream
        return None

    def attach(self, learner: Learner) -> None:
        """Make Avalanche's strategy, once; a saved state is put into it."""
        if self.made is not None:
            return
        self._check()
        assert self.stream is not None
        with guard.quiet(), _seeded(derive(self.setting.seed, "avalanche benchmark")):
            self.benchmark = to_benchmark(self.stream, LOOKS.get(self.name, networks.as_they_are))
        with guard.quiet(), _seeded(derive(self.setting.seed, "avalanche")):
            self.made = self._make(learner)
        if self.saved:
            state.restore(self.made, self.saved["strategy"])
            self.learned = self.saved["learned"]

    def _check(self) -> None:
        if self._generates and self.setting.in_shape != (1, 28, 28):
            size = "x".join(map(str, self.setting.in_shape))
            what = f"images for avalanche:{self.name}"
            raise must(what, "1x28x28, for which its generator is made", size, "Use continual.dgr.")

    def _make(self, learner: Learner) -> Any:
        model, extra = self._model(learner)
        options = learner.options
        if options.optimizer == "sgd":
            chosen: Any = torch.optim.SGD
            extra_rate = {"momentum": options.momentum, "nesterov": options.momentum > 0}
        else:
            chosen, extra_rate = torch.optim.Adam, {"betas": (options.momentum, 0.999)}
        optimizer = chosen(model.parameters(), options.lr, fused=True, **extra_rate)
        buffer, batch = self.setting.buffer, options.batch_size
        given = {"mem_size": buffer, "memory_size": buffer, "batch_size_mem": batch, "sample_size": batch}
        given |= {"input_size": list(self.setting.in_shape), "subsample": buffer}
        given |= {"patterns_per_exp": max(buffer // self.setting.tasks, 1), **extra}
        chosen_arguments = guard.arguments(self.cls, self.options.arguments, given)
        epochs = options.epochs if learner.limit is None else learner.limit
        common = {
            "model": model,
            "optimizer": optimizer,
            "train_mb_size": min(options.batch_size, len(learner.data)),
            "train_epochs": epochs,
            "eval_mb_size": 256,
            "device": learner.device,
            "evaluator": guard.module("avalanche.training.plugins").EvaluationPlugin(),
        }
        common["criterion"] = nn.CrossEntropyLoss()
        takes = inspect.signature(self.cls.__init__).parameters
        common = {name: value for name, value in common.items() if name in takes}  # ICaRL has no model and no criterion
        try:
            made = self.cls(**common, **chosen_arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(
                f"avalanche:{self.name} must be given arguments it can work with; got {self.options.arguments!r}: "
                f"{error}. Change --strategies.avalanche.arguments."
            ) from error
        for plugin in made.plugins:
            if getattr(plugin, "post_prune_epochs", 0) >= epochs:
                what = "post_prune_epochs in --strategies.avalanche.arguments"
                raise must(what, f"fewer than the {epochs} of --epochs", plugin.post_prune_epochs, "Lower it.")
            if getattr(plugin, "generator_strategy", None) is not None:
                plugin.generator_strategy.evaluator.loggers = []  # they print
        return made

    def _model(self, learner: Learner) -> tuple[nn.Module, dict[str, Any]]:
        """What Avalanche trains, and what else the strategy's constructor wants of it."""
        classifier = learner.model
        if self.name == "ICaRL":
            parts = {
                "feature_extractor": networks.Features(classifier, self.setting.precision),
                "classifier": classifier.head,
            }
            return classifier, {**parts, "buffer_transform": None, "fixed_memory": True}
        if self.name == "PackNet":  # it puts layers of its own in the place of ours
            own = networks.Network(copy.deepcopy(classifier), learner.head, self.setting.precision)
            try:
                return guard.module("avalanche.models.packnet").PackNetModel(own), {}
            except ValueError as error:
                raise must("--backbone", "one that avalanche:PackNet knows", error, "Use continual.packnet.") from error
        model = networks.network(classifier, learner.head, self.setting.precision)
        for entrance in networks.entrances(model):
            entrance.generated = self._generates
        return model, {}

    def learn(self, learner: Learner) -> Learned:
        """Train one task as Avalanche does."""
        watch, made = _Watch(learner.limit), self.made
        networks.enter(made.model, learner.task)
        with guard.quiet(), _seeded(derive(self.setting.seed, "avalanche task", learner.task)):
            experience = self.benchmark.train_stream[learner.task]
            state.fresh_iterators(made)
            made.plugins.append(watch)
            try:
                made.train(experience, eval_streams=[])
            finally:
                made.plugins.remove(watch)
        self.learned = learner.task + 1
        self._hand_over(learner.model)
        loss, lr = float(watch.loss_sum) / watch.rows, learner.options.lr
        if not math.isfinite(loss):
            raise TrialError(
                f"the training loss must be finite; got nan or inf with avalanche:{self.name} at learning rate "
                f"{lr:.3g}. Try --lr {lr / 3:.2g}, or other --strategies.avalanche.arguments."
            )
        return Learned(steps=watch.steps, loss=loss)

    def _hand_over(self, classifier: Classifier) -> None:
        """Give our network the weights, where Avalanche trains a copy of it."""
        for part in self.made.model.modules():
            if isinstance(part, networks.Network) and part.classifier is not classifier:
                named = {key.replace("wrappee.", ""): value for key, value in part.classifier.state_dict().items()}
                classifier.load_state_dict({key: named[key] for key in classifier.state_dict()})

    def enter_task(self, learner: Learner, task: int) -> None:
        self.task = task

    def scores(self, learner: Learner, images: Tensor) -> Tensor | None:
        """What the strategy classifies by, where that is not our network's own logits."""
        if self.name not in ("ICaRL", "PackNet") or not self.learned:
            return None
        model = self.made.model.eval()
        networks.enter(model, self.task)
        with torch.inference_mode(False), torch.no_grad():  # PackNet keeps tensors it makes here, to train with
            tasks = (torch.full((len(images),), self.task, device=images.device),) if self.name == "PackNet" else ()
            with networks.normalised(model):
                found = model(images.clone(), *tasks).float()
        missing = self.setting.outputs - found.shape[1]
        return nn.functional.pad(found, (0, missing), value=MASKED)

    def stored(self) -> dict[str, Tensor] | None:
        return None if self.made is None else state.stored(self.made)

    def bytes(self) -> int:
        """What it keeps, and what it adds to the network (PackNet its masks)."""
        if self.made is None:
            return 0
        held = state.snapshot(self.made)
        return total_bytes([held["own"], held["plugins"]]) + _module_bytes(self.made.model) - self.network_bytes

    def state_dict(self) -> dict[str, Any]:
        return {"learned": self.learned, "strategy": {} if self.made is None else state.snapshot(self.made)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.saved = saved
        if self.made is not None and saved["strategy"]:
            state.restore(self.made, saved["strategy"])
            self.learned = saved["learned"]


def _module_bytes(module: nn.Module) -> int:
    return total_bytes([*module.parameters(), *module.buffers()])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Avalanche draws from the global generators; they are seeded for it, and afterwards as they were before."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_everything(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
