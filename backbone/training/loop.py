"""The one supervised training loop, resumable after any step.

Everything random is a pure function of (seed, step): the order of an epoch, the augmentation of a batch, dropout. So
the state to resume from is the weights, the optimizers' buffers and one counter, and a resumed run repeats the
uninterrupted one bit for bit on a CPU.

Where several processes work together (`engram.backbone.ranks`) each computes its rows of every batch, and the numbers
are those of one up to the order of sums.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engram.backbone.contract import Batch, Hook, Objective, Outputs, Recomputing, Sampler
from engram.backbone.data.corruptions.occlusion import GREY
from engram.backbone.data.sets import Split
from engram.backbone.data.views import in_pass
from engram.backbone.errors import TrialError, must
from engram.backbone.hardware import Machine, Precision, autocast
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged, layout
from engram.backbone.objectives.columns import columns_of
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.ranks import current
from engram.backbone.seeding import derive, generator
from engram.backbone.training import augment, event_augment
from engram.backbone.training.divided import AsWhole, Divided
from engram.backbone.training.optim import Optimizers, add_l2, lists, rate_at
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.recorded import Passes, can_record
from engram.backbone.training.samplers import Uniform

UNIT_SECONDS = 2.0  # a unit of work between two looks at signals and checkpoints


@dataclass
class Progress:
    """What changes while training: ``loss_sum`` over the images of the epoch at hand, ``seconds`` over all of it."""

    model: Classifier
    optimizers: Optimizers
    average: AveragedModel | None
    step: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    seconds: float = 0.0


class Trainer:
    """Trains one classifier on one set of images or recordings (`engram.backbone.contract.Training`).

    An epoch shows what its sampler says; its last batch is as long as what is left. A single image left over is shown
    to networks without batch normalisation only, which has nothing to normalise it by; the next epoch leaves out
    another one.

    Args:
        model: prepared (`engram.backbone.training.preparing`), on any device.
        data: the training images.
        machine: where, and how exactly; ``options.precision`` is what was asked for.
        objective: what is minimised; None for the cross-entropy.
        sampler: the order of the images; None for all of them, shuffled in every epoch.
        hooks: called around every step.
        steps: how many in all; None for ``options.epochs`` whole epochs.
        optimizers: of an earlier training of the same model, to go on with; None makes fresh ones.
        passes: of an earlier training, gone on with where it was of this model and precision.
        average: of the weights, of an earlier training of the same model, to go on with.

    Raises:
        UserError: a batch of one image cannot be normalised, the data lack a column that the objective or the sampler
            needs, the network is none for the objective, or ``gradient_checkpointing`` has nothing to work on.
    """

    def __init__(
        self,
        model: Classifier,
        data: Split,
        options: TrainingOptions,
        machine: Machine,
        objective: Objective | None = None,
        sampler: Sampler | None = None,
        hooks: Sequence[Hook] = (),
        *,
        steps: int | None = None,
        optimizers: Optimizers | None = None,
        passes: Passes | None = None,
        average: AveragedModel | None = None,
    ) -> None:
        self.options, self.data, self.machine, self.hooks = options, data, machine, hooks
        self.device = machine.device
        self.precision: Precision = machine.precision
        self.objective = CrossEntropy(options.label_smoothing) if objective is None else objective
        self.sampler = Uniform() if sampler is None else sampler
        self.columns = columns_of(data, self.objective.columns, machine.device)
        self.rows = self.sampler.rows(data)
        self.batch_size = min(options.batch_size, self.rows)
        normalised = any(isinstance(module, _BatchNorm) for module in model.modules())
        if self.batch_size == 1 and normalised:
            remedy = "Raise it, or use --backbone.normalisation none."
            raise must("--batch-size", "at least 2 for a network with batch normalisation", 1, remedy)
        event_augment.check_kind(options, data.frames is not None)
        ranks = current()
        self.divided = None if ranks is None else Divided(ranks, machine.device, self.batch_size, options, hooks)
        self.steps_per_epoch = -(-self.rows // self.batch_size)
        if normalised and self.rows % self.batch_size == 1:
            self.steps_per_epoch -= 1
        self.total_steps = self.steps_per_epoch * options.epochs if steps is None else steps
        if options.gradient_checkpointing:
            _recompute(model)
        self.part = self.objective.trained(model)
        if self.part is not None:
            model.requires_grad_(False)
            self.part.requires_grad_(True)
        model = model.to(self.device, memory_format=layout(model.backbone))  # type: ignore[call-overload]
        if self.divided is not None:
            self.divided.take_over(model)
        if optimizers is None:
            optimizers = Optimizers(model, options.optimizer, options.lr, options.momentum, options.weight_decay)
        self.passes = self._passes(model, passes)
        if options.ema and average is None:
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema), use_buffers=True)
        self.progress = Progress(model, optimizers, average)
        self.progress.loss_sum = self.progress.loss_sum.to(self.device)
        self._epoch_order: tuple[int, Tensor] | None = None
        self.objective.begin(self)

    @property
    def model(self) -> Classifier:
        return self.progress.model

    @property
    def optimizers(self) -> Optimizers:
        return self.progress.optimizers

    @property
    def step(self) -> int:
        return self.progress.step

    def _passes(self, model: Classifier, earlier: Passes | None) -> Passes | None:
        """Recorded passes, where network, objective and hooks leave a pass the same kernels every time."""
        plain = self.objective.recordable and not self.objective.wants and self.divided is None
        if not (plain and all(hook.recordable for hook in self.hooks) and can_record(model, self.device)):
            return None
        if earlier is None or earlier.model is not model or earlier.precision != self.precision:
            return Passes(model, self.device, self.precision)
        earlier.renew()
        return earlier

    @property
    def scored_model(self) -> Classifier:
        """The model to score and save: the running average when there is one."""
        average = self.progress.average
        return self.progress.model if average is None else average.module  # type: ignore[return-value]

    @property
    def done(self) -> bool:
        return self.progress.step >= self.total_steps

    def shown(self, steps: int) -> int:
        """How many images the first ``steps`` steps train on, each as often as it comes."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        whole = min(self.steps_per_epoch * self.batch_size, self.rows)
        return epochs * whole + rest * self.batch_size

    def advance(self, seconds: float = UNIT_SECONDS) -> dict[str, float] | None:
        """Train for about ``seconds``, at most to the end of the epoch; after the last step, not at all.

        Returns:
            The mean training loss of the epoch's images and the last learning rate when an epoch ended, else None.

        Raises:
            TrialError: the loss is not finite.
        """
        if self.done:
            return None
        began = time.perf_counter()
        p = self.progress
        if p.step == 0 and (loss := self.objective.learn(self)) is not None:
            p.step, p.seconds = self.total_steps, time.perf_counter() - began
            if p.average is not None:
                p.average.module.load_state_dict(p.model.state_dict())
            return {"train/loss": loss, "lr": 0.0}
        model = self._in_training()
        epoch, first = divmod(p.step, self.steps_per_epoch)
        last = min(self.steps_per_epoch, first + self.total_steps - p.step)
        if self.divided is not None:
            last, seconds = min(last, first + self.divided.unit(seconds, p.model)), math.inf
        indices = self._order(epoch)[first * self.batch_size : last * self.batch_size]
        if first == 0:
            p.loss_sum.zero_()
        for images, labels, chosen in self._batches(epoch, indices):
            p.loss_sum.add_(self._step(model, images, labels, chosen, epoch), alpha=len(chosen))
            p.step += 1
            if time.perf_counter() - began > seconds:
                break
        ended = p.step % self.steps_per_epoch == 0 or self.done
        mean_loss = p.loss_sum.item() / (self.shown(p.step) - self.shown(epoch * self.steps_per_epoch))  # waits
        p.seconds += (took := time.perf_counter() - began)
        if self.divided is not None:
            self.divided.step_seconds = took / (last - first)
        if not mean_loss < float("inf"):
            raise self._diverged()
        return {"train/loss": mean_loss, "lr": self._rate(p.step - 1) * self.options.lr} if ended else None

    def _in_training(self) -> Classifier:
        """The model with what is trained in training mode, the rest in that of evaluation."""
        model = self.progress.model
        if self.part is None:
            return model.train()
        model.eval()
        self.part.train()
        return model

    def _step(self, model: Classifier, raw: Tensor, labels: Tensor, indices: Tensor, epoch: int) -> Tensor:
        step = self.progress.step
        self._seed_layers(step)
        if self.passes is not None:
            self.passes.begin()
        whole = None if self.divided is None else len(indices)
        batch = Batch(raw, self._images(model, raw, indices, epoch), labels, indices, whole=whole)
        for name, column in self.columns.items():
            batch.columns[name] = column[indices.to(column.device, non_blocking=True)]
        for hook in self.hooks:
            hook.before_forward(self, batch)
        with nullcontext() if self.divided is None else AsWhole(self.divided, len(indices)) as together:
            outputs = self._outputs(model, batch.images)
            if together is not None:
                outputs = together.outputs(outputs)
            batch.logits = outputs.logits
            loss = self.objective(outputs, batch, step)
            for hook in self.hooks:
                loss = hook.loss(self, batch, loss)
            loss.backward() if together is None else together.backward(loss)
        if self.divided is not None:
            self.divided.add_gradients(model)
        for hook in self.hooks:
            hook.after_backward(self, batch)
        self._weigh(model, self.objective.divisor(step))
        if self.options.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.options.clip)
        self.progress.optimizers.step(self._rate(step))
        for hook in reversed(self.hooks):
            hook.after_step(self, batch)
        if self.progress.average is not None:
            self.progress.average.update_parameters(model)
        return loss.detach()

    @torch.no_grad()
    def _weigh(self, model: Classifier, divisor: float) -> None:
        """Add the gradient of the weights' own term, and divide all of it."""
        add_l2(model, self.options.l2)
        if divisor != 1:
            lists._foreach_div_([weight.grad for weight in model.parameters() if weight.grad is not None], divisor)

    def _outputs(self, model: Classifier, images: Tensor) -> Outputs:
        """What the network makes of a batch, with what the objective wants of it."""
        if not self.objective.wants:
            return Outputs(self.forward(images))
        with autocast(self.device, self.precision):
            return model.outputs(images, self.objective.wants)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W] float, normalised -> logits [N, K] float32, at the precision of the training."""
        passes = self.passes if self.progress.model.training and torch.is_grad_enabled() else None
        if passes is not None and not images.requires_grad:
            return passes(images)
        with autocast(self.device, self.precision):
            return self.progress.model.forward_normalised(images).float()

    def _seed_layers(self, step: int) -> None:
        """Seed dropout and the like. torch.manual_seed would take a stack trace for CUDA, a tenth of a small step."""
        seed = derive(self.options.seed, "layers", step)
        if self.device.startswith("cuda"):
            torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)

    def _batches(self, epoch: int, order: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        data = in_pass(self.data, epoch)
        if self.divided is None:
            return data.batches(order, self.batch_size, self.device)
        return self.divided.batches(data, order, self.batch_size)

    def _images(self, model: Classifier, raw: Tensor, indices: Tensor, epoch: int) -> Tensor:
        change = partial(self._augment, model, indices, epoch)
        if self.divided is None:
            return change(raw, augment.all_rows(raw))
        return self.divided.changed(raw, len(indices), change)

    def _augment(self, model: Classifier, indices: Tensor, epoch: int, images: Tensor, rows: augment.Rows) -> Tensor:
        """Normalised and augmented images; what happens to one frame of a recording happens to all of them."""
        options = self.options
        x, random = self._begin_augmentation(model, images, "")
        if options.flip == "alternate":
            x = augment.flip_alternate(x, indices[rows.here].to(x.device, non_blocking=True), epoch)
        return self._finish_augmentation(x, images, random, rows)

    def augmented(self, raw: Tensor, purpose: str) -> Tensor:
        """Images from elsewhere as this training sees its own: normalised, augmented with draws of their own.

        raw: [b, C, H, W] uint8 -> [b, C, H, W] float32. Mirroring in turns becomes mirroring by chance.
        """
        x, random = self._begin_augmentation(self.progress.model, raw, purpose)
        if self.options.flip == "alternate":
            x = augment.flip(x, augment.by_chance(augment.all_rows(x), random, x.device))
        return self._finish_augmentation(x, raw, random, augment.all_rows(x))

    def _begin_augmentation(self, model: Classifier, images: Tensor, purpose: str) -> tuple[Tensor, torch.Generator]:
        seed, step = self.options.seed, self.progress.step
        if self.options.randaugment:
            drawn = derive(seed, f"randaugment{purpose}", step)
            images = augment.rand_augment(images, self.options.randaugment, drawn)
        if images.ndim == 5:
            images = event_augment.augmented(images, self.options, generator(seed, f"events{purpose}", step))
        x = model.normalise(images)
        x = x.flatten(1, 2) if images.ndim == 5 else x  # frames as channels of one image
        return x, generator(seed, f"augment{purpose}", step)

    def _finish_augmentation(self, x: Tensor, images: Tensor, random: torch.Generator, rows: augment.Rows) -> Tensor:
        options = self.options
        if options.flip == "random":
            x = augment.flip(x, augment.by_chance(rows, random, x.device))
        black = self._grey(images, 0) if options.border == "black" else None
        if options.affine or options.elastic:
            x = augment.warp(x, options.affine, options.elastic, random, black, rows)
        if options.translate:
            x = augment.translate(x, options.translate, random, black, rows)
        if options.cutout:
            x = augment.cutout(x, options.cutout, random, rows)
        if options.occlude:
            hidden = self._grey(images, GREY if images.ndim == 4 else 0)
            x = augment.occlude(x, options.occlude, random, hidden, rows)
        if options.noise:
            x = augment.noisy(x, options.noise, random, self._grey(images, 0), self._grey(images, 255), rows)
        return x.reshape(images.shape) if images.ndim == 5 else arranged(x, self.progress.model.backbone)

    def _grey(self, images: Tensor, level: int) -> Tensor:
        """What a grey level is once it is normalised, in every channel: [C], of event frames [T C]."""
        return self.progress.model.normalise(torch.full_like(images[:1, ..., :1, :1], level)).flatten()

    def _order(self, epoch: int) -> Tensor:
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            self._epoch_order = (epoch, self.sampler.order(self.data, self.options.seed, epoch))
        return self._epoch_order[1]

    def _rate(self, step: int) -> float:
        return rate_at(self.options, step, self.total_steps)

    def _diverged(self) -> TrialError:
        lr = self.options.lr * self._rate(self.progress.step - 1)
        return TrialError(
            f"the training loss must be finite; got nan or inf by step {self.progress.step} of {self.total_steps}, at "
            f"learning rate {lr:.3g}. Try --lr {self.options.lr / 3:.2g}, --clip 1 or --precision fp32."
        )

    def state_dict(self) -> dict[str, Any]:
        """What to save now: as in torch, its tensors are the live ones and change with the next step."""
        p = self.progress
        return {
            "model": p.model.state_dict(),
            "optimizers": p.optimizers.state_dict(),
            "average": None if p.average is None else p.average.state_dict(),
            "step": p.step,
            "loss_sum": p.loss_sum,
            "seconds": p.seconds,
            "objective": self.objective.state_dict(),
            "hooks": [hook.state_dict() for hook in self.hooks],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        p = self.progress
        p.model.load_state_dict(saved["model"])
        p.optimizers.load_state_dict(saved["optimizers"])
        if p.average is not None:
            p.average.load_state_dict(saved["average"])
        p.step, p.seconds = saved["step"], saved["seconds"]
        p.loss_sum = saved["loss_sum"].to(self.device, copy=True)
        self.objective.load_state_dict(saved["objective"])
        for hook, state in zip(self.hooks, saved["hooks"], strict=True):
            hook.load_state_dict(state)


def _recompute(model: Classifier) -> None:
    able = [module for module in model.modules() if isinstance(module, Recomputing)]
    if not able:
        raise must(
            "--gradient-checkpointing", "left out for this network", "on", "Nothing in it can be computed again."
        )
    for module in able:
        module.recompute = True
