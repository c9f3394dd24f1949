"""``feedback.mixing``: the shares of feedforward, feedback and memory that noisy images want."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Result, Row, Services
from engram.backbone.data.load import Data
from engram.backbone.data.trained import load_as_trained
from engram.backbone.errors import TrialError, must
from engram.backbone.measures.anytime import StepScores
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged, layout
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import generator
from engram.backbone.training.optim import Optimizers
from engram.feedback.adapters.predictive import Predictive
from engram.feedback.mixing.configs import MixingConfig
from engram.feedback.mixing.noise import noisy
from engram.feedback.mixing.report import report
from engram.feedback.network.mixing import Mixing

UNIT_SECONDS = 2.0
TEST_BATCH = 50


@dataclass
class MixingState:
    """Where a trial is.

    Attributes:
        data: those that the network was trained on.
        targets: [classes] int64, the network's output for each of their classes.
        model: the network, whose shares are those of the condition at hand.
        mixing: these shares.
        optimizers: what trains them.
        done: how many conditions (`MixingConfig.conditions`) are done.
        updates: how many updates of the one at hand are done.
        scores: of its test images so far.
        path: the shares, correction and loss after every update of every condition.
        accuracies: those of every condition that is done, after each step, the plain pass first.
    """

    data: Data
    targets: Tensor
    model: Classifier
    mixing: Mixing
    optimizers: Optimizers
    scores: StepScores
    done: int = 0
    updates: int = 0
    path: list[list[Row]] = field(default_factory=list)
    accuracies: list[list[float]] = field(default_factory=list)


class MixingExperiment:
    """Units of work are a few seconds of updates, or of testing."""

    def __init__(self, config: MixingConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> MixingState:
        s = self.services
        model, made = load_model(s.inputs["trained"] / "model")
        if not isinstance(model.backbone, Predictive):
            rule = "one made with feedback.predictive, which has predictions to mix"
            remedy = "Add --adapter feedback.predictive --objective feedback.reconstruction to its training."
            raise must("the network of --from", rule, type(model.backbone).__name__, remedy)
        data, targets = load_as_trained(made, root=s.data_root, download=s.download)
        s.provenance(data_sha256=data.fingerprint, model_sha256=made.sha256)
        model.requires_grad_(False).to(s.device, memory_format=layout(model.backbone))  # type: ignore[call-overload]
        return self._anew(MixingState(data, targets.to(s.device), model, *self._fresh(model.backbone, 0)))

    def _fresh(self, net: Predictive, number: int) -> tuple[Mixing, Optimizers, StepScores]:
        """Shares as a condition begins with, what trains them, and no scores yet.

        Source: the published script: sigmoids of numbers between 0 and 1, and a rate of correction between 0 and 1.
        """
        mixing, random = Mixing(len(net.stage_channels), [0.3], [0.3], [0.0], True), generator(self.config.seed, "mix")
        with torch.no_grad():
            for share in mixing.parameters():
                share.copy_(torch.rand(1, generator=random))
            if not self.config.conditions[number][1]:
                mixing.feedback.fill_(-math.inf)  # a sigmoid of 0, with no gradient
        optimizers = Optimizers(mixing.to(self.services.device), "adamw", self.config.lr, 0.9, 0.0)
        return mixing, optimizers, StepScores(range(1, self.config.steps + 2))

    def _anew(self, state: MixingState) -> MixingState:
        """The state at the beginning of a condition."""
        net: Any = state.model.backbone
        state.mixing, state.optimizers, state.scores = self._fresh(net, state.done)
        net.mixing, state.updates = state.mixing, 0
        state.path.append([])
        return state

    def step(self, state: MixingState) -> bool:
        began, c = time.perf_counter(), self.config
        asked = min(c.images, len(state.data.test))
        while time.perf_counter() - began < UNIT_SECONDS and state.scores.images < asked:
            if state.updates < c.updates:
                self._update(state)
            else:
                self._test(state, asked)
        done = state.done + (state.updates + state.scores.images / asked) / (c.updates + 1)
        level, feedback = c.conditions[state.done]
        text = f"{c.noise} noise, level {level:g}" + ("" if feedback else ", without feedback")
        self.services.progress(done, len(c.conditions), text)
        if state.scores.images >= asked:
            state.accuracies.append([float(row["accuracy"] or 0) for row in state.scores.rows()])
            state.done += 1
            if state.done < len(c.conditions):
                self._anew(state)
        return state.done < len(c.conditions)

    def _shown(self, state: MixingState, raw: Tensor, purpose: str, number: int) -> Tensor:
        """Images [B, C, H, W] uint8 as the network sees them; conditions of one level see the same noise."""
        c, model, (level, _) = self.config, state.model, self.config.conditions[state.done]
        random = generator(c.seed, f"{purpose}.{c.levels.index(level)}", number)
        return arranged(noisy(model.normalise(raw), c.noise, level, model.normalise, random), model.backbone)

    def _update(self, state: MixingState) -> None:
        c, train = self.config, state.data.train
        order = torch.randint(len(train), (c.batch_size,), generator=generator(c.seed, "mixing.images", state.updates))
        raw, labels, _ = next(iter(train.batches(order, c.batch_size, self.services.device)))
        logits = self._logits(state.model, self._shown(state, raw, "mixing.noise", state.updates))[1:]
        labels = state.targets[labels].expand(len(logits), -1)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        state.optimizers.step(1.0)
        if not bool(loss.isfinite()):
            rule, remedy = f"finite; got others at update {state.updates + 1}", "Use fewer --steps, or a smaller --lr."
            raise TrialError(f"the loss at level {c.conditions[state.done][0]:g} must be {rule}. {remedy}")
        first = state.mixing.shares()[0]
        names = ("feedforward", "feedback", "correction")
        values = {name: float(torch.as_tensor(share).detach()) for name, share in zip(names, first, strict=True)}
        state.path[-1].append({"loss": float(loss.detach()), **values})
        state.updates += 1

    @torch.inference_mode()
    def _test(self, state: MixingState, asked: int) -> None:
        test, begun = state.data.test, state.scores.images
        order = torch.randperm(len(test), generator=generator(0, "mixing.test"))[begun : min(begun + TEST_BATCH, asked)]
        raw, labels, _ = next(iter(test.batches(order, TEST_BATCH, self.services.device)))
        state.scores.add(
            self._logits(state.model, self._shown(state, raw, "mixing.test", begun)), state.targets[labels]
        )

    def _logits(self, model: Classifier, x: Tensor) -> Tensor:
        """x: [B, C, H, W] normalised -> logits after the plain pass and each step, [steps + 1, B, classes]."""
        net: Any = model.backbone
        found, current = [], net.begin(x)
        for step in range(self.config.steps + 1):
            features, current = net.advance(x, current, step)
            found.append(features)
        return model.head(torch.stack(found))

    def finish(self, state: MixingState) -> Result:
        return report(self.config, state.path, state.accuracies)

    def state_dict(self, state: MixingState) -> dict[str, Any]:
        return {
            "mixing": state.mixing.state_dict(),
            "optimizers": state.optimizers.state_dict(),
            "scores": state.scores.state_dict(),
            "done": state.done,
            "updates": state.updates,
            "path": state.path,
            "accuracies": state.accuracies,
        }

    def load_state_dict(self, state: MixingState, saved: Mapping[str, Any]) -> None:
        state.mixing.load_state_dict(saved["mixing"])
        state.optimizers.load_state_dict(saved["optimizers"])
        state.scores.load_state_dict(saved["scores"])
        state.done, state.updates = saved["done"], saved["updates"]
        state.path[:], state.accuracies[:] = saved["path"], saved["accuracies"]
