"""``backbone.train``: train a network on images, score it, keep it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engram.backbone.contract import Figure, Objective, ObjectiveSetting, Result, Sampler, Services, Weighted
from engram.backbone.data.load import Data, load
from engram.backbone.data.sets import ALL, Split, Used
from engram.backbone.data.trained import cautions, of_such_images, reference, require_shape
from engram.backbone.errors import must
from engram.backbone.experiments.beginning import Beginning, begin, load_teacher, show_verdicts
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.hardware import Machine, choose_precision, suit_threads
from engram.backbone.measures.answers import answers, steps_taken
from engram.backbone.measures.confusions import Confusions
from engram.backbone.measures.scoring import score
from engram.backbone.nets.classifier import Classifier
from engram.backbone.objectives.distillation import Distillation
from engram.backbone.objectives.every_step import EveryStep
from engram.backbone.objectives.making import objective_of
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.training.loop import Trainer
from engram.backbone.training.preparing import prepare
from engram.backbone.training.samplers import Balanced, Uniform


@dataclass
class TrainState:
    data: Data
    beginning: Beginning
    trainer: Trainer
    curves: list[dict[str, float]]


class Train:
    """Units of work are a few seconds of training; the last epoch's unit ends with the scores.

    Other experiments that train a network are subclasses: `begin` makes it, `measure` tests what has become of it.
    """

    alone = False
    """Whether a single group or environment is left to train on because the others are to be tested on."""

    def __init__(self, config: TrainConfig, services: Services) -> None:
        self.config, self.services = config, services
        self.machine = Machine(services.device, choose_precision(config.precision, services.device))

    def start(self) -> TrainState:
        beginning = self.begun()
        return TrainState(beginning.data, beginning, self.trainer(beginning), [])

    def begun(self) -> Beginning:
        """The network as its training finds it: images were shown to one that wants to see some before."""
        data = self.load()
        suit_threads(self.config.batch_size * math.prod(data.in_shape) * (data.frames or 1))
        beginning = self.begin(data)
        show_verdicts(beginning.model.backbone, self.services)
        if beginning.prepare is not None:
            prepare(beginning.model, beginning.data.train, self.config.seed, beginning.prepare)
        return beginning

    def load(self) -> Data:
        """What to train, choose and test on."""
        c, s = self.config, self.services
        used = ALL if c.share_seed is None else Used(c.train_share, c.share_seed)
        data = load(
            c.dataset, c.dataset_options, root=s.data_root, download=s.download, validation=c.validation, used=used
        )
        s.provenance(data_sha256=data.fingerprint, precision=self.machine.precision, **data.facts)
        if found := cautions(data):
            s.table("caution", found)
        return data

    def trainer(self, beginning: Beginning, **more: Any) -> Trainer:
        """The training of that network; ``more`` are hooks and numbers of steps, as `Trainer` takes them.

        Raises:
            UserError: it has no weights to train.
        """
        model = beginning.model
        if not any(parameter.requires_grad for parameter in model.backbone.parameters()):
            remedy = "Start from the trial it was made from, or use snn.train --from if it was converted to spikes."
            raise must("the network of --from", "one whose weights can be trained", "one that can only run", remedy)
        data, objective = beginning.data.train, self.objective(beginning)
        return Trainer(model, data, self.config, self.machine, objective, self.sampler(), **more)

    def sampler(self) -> Sampler:
        """The order of the images."""
        return Uniform() if self.config.balance is None else Balanced(self.config.balance)

    def objective(self, beginning: Beginning) -> Objective:
        """What to minimise."""
        c, data = self.config, beginning.data
        setting = ObjectiveSetting(
            data=data.train,
            outputs=len(data.classes),
            label_smoothing=c.label_smoothing,
            device=self.machine.device,
            validation=data.validation,
            alone=self.alone,
            reference=self.reference(data),
        )
        found = objective_of(c, setting)
        if c.tet is not None or c.discount is not None:
            net: Any = beginning.model.backbone
            steps = net.steps
            if isinstance(net, Weighted) and net.step_weights(steps) is not None:
                rule, remedy = "one without learned weights, which no step's loss reaches", "Leave out one of the two."
                raise must("the read-out beside --tet or --discount", rule, "a learned one", remedy)
            found = EveryStep(found, c.tet or 0.0, c.discount or 1.0)
        if c.teacher is None:
            return found
        teacher, outputs = load_teacher(self.services.inputs["teacher"] / "model", data, c.dataset)
        normalise = beginning.model.normalise
        return Distillation(found, teacher, outputs, normalise, c.distill, c.temperature, self.machine)

    def reference(self, data: Data) -> Classifier | None:
        """The first network that the objective begins from; its outputs are those of this training.

        Raises:
            UserError: it knows other classes, or takes other images.
        """
        if "reference" not in self.services.inputs:
            return None
        model, made = load_model(self.services.inputs["reference"] / "model")
        require_shape(
            made, "images for the network of --reference", data.in_shape, of_such_images(made, self.config.dataset)
        )
        if made.classes != tuple(data.classes):
            rule, got = "one with the classes of the data, in their order", ", ".join(made.classes)
            raise must("the network of --reference", rule, got, "Leave --reference out: one is trained first.")
        return model.eval().requires_grad_(False).to(self.machine.device)

    def begin(self, data: Data) -> Beginning:
        """The network to train."""
        c = self.config
        head = None if c.head is None else in_full(Registry.discover(), "heads", c.head, c.head_options)
        return begin(c, data, self.services.inputs, head)

    def scores(self, model: Classifier, split: Split) -> dict[str, float]:
        """``accuracy`` and ``loss`` on images to choose on, as this experiment understands them."""
        return score(model, split, self.services.device, self.machine.precision)

    def measure(self, model: Classifier, data: Data) -> Result:
        """Test what was trained; at least ``test/accuracy`` and ``test/loss``."""
        confusions, device = Confusions(data.classes, keep=0), self.services.device
        test = score(model, data.test, device, confusions=confusions)  # in fp32: what is saved is
        metrics = {"test/accuracy": test["accuracy"], "test/loss": test["loss"]}
        figures = confusions.matrix("test")
        if steps_taken(model, data.test) == 1:
            return Result(metrics=metrics, figures=figures)
        held = None if data.validation is None else answers(model, data.validation, device)
        tested = answers(model, data.test, device)
        metrics |= tested.metrics(held)
        return Result(metrics=metrics, tables=tested.tables(held), figures={**tested.figures(), **figures})

    def step(self, state: TrainState) -> bool:
        trainer = state.trainer
        ended = trainer.advance()
        p = trainer.progress
        epoch = p.step / trainer.steps_per_epoch
        self.services.progress(p.step, trainer.total_steps, f"epoch {epoch:.1f} of {self.config.epochs}")
        if ended is not None:
            row = {"epoch": epoch, **ended, **self.validate(state)}
            state.curves.append(row)
            self.services.log(p.step, {name: value for name, value in row.items() if name != "epoch"})
        return not trainer.done

    def validate(self, state: TrainState) -> dict[str, float]:
        """Score the validation images, every epoch for small sets and about ten times in all for large ones."""
        trainer, split = state.trainer, state.data.validation
        epoch = trainer.progress.step // trainer.steps_per_epoch
        every = max(1, round(self.config.epochs / 10)) if len(state.data.train) > 10_000 else 1
        if split is None or (epoch % every and not trainer.done):
            return {}
        scores = self.scores(trainer.scored_model, split)
        return {f"validation/{name}": scores[name] for name in ("accuracy", "loss")}

    def finish(self, state: TrainState) -> Result:
        trainer = state.trainer
        model = trainer.scored_model.eval()
        measured = self.measure(model, state.data)
        last = state.curves[-1]
        metrics = {
            **measured.metrics,
            "train/loss": last["train/loss"],
            "parameters": float(sum(p.numel() for p in model.parameters())),
            "train_seconds": trainer.progress.seconds,
            "images_per_second": trainer.shown(trainer.total_steps) / trainer.progress.seconds,
        }
        metrics |= {name: last[name] for name in ("validation/accuracy", "validation/loss") if name in last}
        save_model(self.services.trial_dir / "model", model, self._made(state, metrics["test/accuracy"]))
        return Result(
            metrics=metrics,
            tables={
                "epochs": state.curves,
                **trainer.objective.tables(),
                **measured.tables,
                **({"cautions": found} if (found := cautions(state.data)) else {}),
            },
            figures={**_curves(state.curves), **measured.figures},
            artifacts={"model": "model/model.safetensors", "manifest": "model/model.json"},
        )

    def _made(self, state: TrainState, accuracy: float) -> Made:
        c, data, beginning = self.config, state.data, state.beginning
        return Made(
            backbone=beginning.backbone,
            adapters=tuple(beginning.adapters),
            head=beginning.head,
            classes=tuple(data.classes),
            in_shape=data.in_shape,
            data=reference(c.dataset, c.dataset_options, data, c.validation, beginning.view),
            meanings=beginning.meanings,
            test_accuracy=accuracy,
            precision=self.machine.precision,
        )

    def state_dict(self, state: TrainState) -> dict[str, Any]:
        return {"trainer": state.trainer.state_dict(), "curves": state.curves}

    def load_state_dict(self, state: TrainState, saved: Mapping[str, Any]) -> None:
        state.trainer.load_state_dict(saved["trainer"])
        state.curves[:] = saved["curves"]


def _curves(rows: list[dict[str, float]]) -> dict[str, Figure]:
    def line(name: str) -> list[tuple[float, float]]:
        return [(row["epoch"], row[name]) for row in rows if name in row]

    names = [name for name in ("train/loss", "validation/loss") if line(name)]
    loss = Figure(title="Loss", x_label="epoch", y_label="loss (nat)", series={name: line(name) for name in names})
    figures = {"loss": loss}
    if line("validation/accuracy"):
        series = {"validation/accuracy": line("validation/accuracy")}
        figures["accuracy"] = Figure(title="Validation accuracy", x_label="epoch", y_label="accuracy", series=series)
    return figures
