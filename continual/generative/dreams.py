"""What both generative strategies share: a scholar of the earlier tasks, which generates rows and answers them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting, Task
from engram.backbone.errors import must
from engram.backbone.hardware import autocast
from engram.backbone.seeding import generator
from engram.continual.generative.answers import answers, masks, mismatch
from engram.continual.generative.options import BIROptions, DGROptions
from engram.continual.generative.vae import fresh
from engram.continual.strategy import StrategyBase, frozen

G = TypeVar("G", bound=nn.Module)


@dataclass(frozen=True)
class Dream:
    """Generated rows of one step.

    Attributes:
        x: [R, C, H, W] in [0, 1], or features [R, D].
        tasks: [R] int64, where they were generated for one task each.
        targets: [R, questions, K], the answers of the earlier network.
        allowed: what the network at hand chooses among, as `answers.masks` has it.
        first: where the rows begin in the batch, in pixel space.
    """

    x: Tensor
    tasks: Tensor | None
    targets: Tensor
    allowed: Tensor | None
    first: int


class Features:
    """Keeps the features that went into the head last."""

    value: Tensor

    def catch(self, head: nn.Module, frozen: bool) -> None:
        """Look at the head's next input; ``frozen`` lets no gradient past it, so that what made it does not change."""

        def look(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            handle.remove()
            self.value = inputs[0].detach() if frozen else inputs[0]
            return (self.value,)

        handle = head.register_forward_pre_hook(look)


class Dreaming(StrategyBase, ABC, Generic[G]):
    """Every step also trains on as many generated rows as the task has, from the second task on.

    They come from copies of the generator and of the network (of its head, in latent space), made when the previous
    task ended. The loss of the T-th task is ``1/T L_task + (1 - 1/T) L_generated``, of the network and the generator.

    Source: Shin et al. 2017 (arXiv 1705.08690), section 3; weights: van de Ven and Tolias 2018 (arXiv 1809.10635).
    """

    name: ClassVar[str]
    by_rows = True
    reach = "met"

    def __init__(self, options: DGROptions | BIROptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.latent = options.space == "latent"
        if setting.frames is not None and not self.latent:
            flag = f"--strategies.{self.name}.space"
            raise must(flag, "latent for event frames", options.space, f"Use {flag} latent.")
        self.model: Any = model
        self.shape: tuple[int, ...] = (self.model.backbone.feature_dim,) if self.latent else setting.in_shape
        self.generator: G = fresh(self._build, setting.device, setting.seed, f"{self.name}/weights")
        self.optimizer = torch.optim.Adam(self.generator.parameters(), options.lr, fused=True)
        self.past: G | None = None
        self.solver: nn.Module | None = None
        self.features = Features()
        self.dream: Dream | None = None

    @abstractmethod
    def _build(self) -> G:
        """A new generator."""

    @abstractmethod
    def _sample(self, learner: Learner, past: G, rows: int, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Generated rows, and the task of each where it was chosen."""

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        self.dream = None
        if self.past is None or self.solver is None:
            return
        if self.latent:
            learner.model.backbone.eval()  # or its running statistics would go on changing
        with torch.no_grad(), autocast(learner.device, learner.precision):
            x, tasks = self._sample(learner, self.past, len(batch.raw), self.random(learner, "sample"))
            seen = x if self.latent else learner.augmented(x, self.name)
            logits: Tensor = (self.solver if self.latent else self.solver.forward_normalised)(seen)  # type: ignore[operator]
            then, now = masks(learner.head, learner.task, tasks)
            targets = answers(logits.float(), then, self.options.targets)
        self.dream = Dream(x, tasks, targets, now, len(batch.labels))
        if not self.latent:
            choice = targets[:, 0].argmax(-1)
            learner.replay(batch, seen, choice, torch.zeros_like(choice) if tasks is None else tasks)

    def random(self, learner: Learner, purpose: str) -> torch.Generator:
        """Draws of the step at hand."""
        name = f"{self.name}/{purpose}"
        return generator(learner.options.seed, name, learner.step, learner.device)

    def share(self, learner: Learner) -> float:
        """The share of the loss that is the task at hand's."""
        return 1 / (learner.task + 1)

    def mixed(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        """The loss, [], with the classification of generated rows in it."""
        dream = self.dream
        if dream is None:
            return loss
        share, rows = self.share(learner), len(dream.x)
        if self.latent:
            with autocast(learner.device, learner.precision):
                logits = learner.model.head(dream.x).float()
            rest = batch.losses.mean()
        else:
            ours = slice(dream.first, dream.first + rows)
            logits = batch.logits[ours]
            rest = (batch.losses.sum() - batch.losses[ours].sum()) / (len(batch.losses) - rows)
        generated = mismatch(logits, dream.targets, dream.allowed, self.options.targets, self.options.scale).mean()
        return loss - batch.losses.mean() + share * rest + (1 - share) * generated

    def weigh(self, learner: Learner, losses: Tensor, own: int) -> Tensor:
        """losses: [N], the first ``own`` of the task and the rest generated -> their weighted mean."""
        if len(losses) == own:
            return losses.mean()
        share = self.share(learner)
        return share * losses[:own].mean() + (1 - share) * losses[own:].mean()

    def after_task(self, learner: Learner, task: Task) -> None:
        self.past = frozen(self.generator)
        self.solver = frozen(self._solver())

    def _solver(self) -> nn.Module:
        return self.model.head if self.latent else self.model

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "past": None if self.past is None else self.past.state_dict(),
            "solver": None if self.solver is None else self.solver.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.generator.load_state_dict(saved["generator"])
        self.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))  # torch would train on in the saved tensors
        if saved["past"] is not None:
            self.past, self.solver = frozen(self.generator), frozen(self._solver())
            self.past.load_state_dict(saved["past"])
            self.solver.load_state_dict(saved["solver"])
