"""Options of ``continual.stream``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Lt

from engram.backbone.contract import (
    NOTHING,
    Direction,
    Inputs,
    KnownData,
    Metric,
    OptionsOf,
    Registered,
    Scalar,
    SplitName,
    Traits,
)
from engram.backbone.errors import must
from engram.backbone.experiments.network_configs import NetworkConfig
from engram.backbone.objectives.asking import around, asked, beginning, lacking, without_rows
from engram.backbone.objectives.options import ObjectiveOptions
from engram.backbone.options.named import options_within, short
from engram.backbone.training.options import MOVING, TrainingOptions
from engram.continual.traits import AUTO, because, in_turn, problems, said, strength, traits

Scenario = Literal[
    "task", "domain", "class", "online", "blurry", "task-free", "permuted", "rotated", "coloured", "noisy"
]
MIXED = ("blurry", "task-free")
"""Scenarios in which images of any class may come in any task."""
BY_CLASS = ("task", "domain", "class", "online", "blurry", "task-free")
"""Scenarios whose tasks have some of the classes each; in the others a task has all, seen differently."""


def _score(of: str, direction: Direction, split: SplitName = "test", **more: Any) -> Metric:
    return Metric(name=f"{split}/{of}", split=split, of=of, unit="fraction", direction=direction, **more)


METRICS = (
    _score("average_accuracy", "max", primary=True),
    _score("forgetting", "min", optional=True, bounds=(-1.0, 1.0)),
    _score("backward_transfer", "max", optional=True, bounds=(-1.0, 1.0)),
    _score("forward_transfer", "max", optional=True, bounds=(-1.0, 1.0)),
    Metric(name="seconds_per_iteration", unit="s", direction="min", timed=True),
    _score("average_incremental_accuracy", "max"),
    _score("plasticity", "max"),
    _score("task_aware_accuracy", "max"),
    _score("average_accuracy", "max", "validation", optional=True),
    _score("connectivity_barrier", "min", optional=True),
    Metric(name="choosing_seconds", unit="s", direction="min", timed=True, optional=True),
    Metric(name="stored_samples", unit="count", direction="min"),
    Metric(name="strategy_bytes", unit="B", direction="min"),
    Metric(name="parameters", unit="count", direction="min"),
    Metric(name="train_seconds", unit="s", direction="min", timed=True),
)


@dataclass(frozen=True, kw_only=True)
class StreamConfig(TrainingOptions, ObjectiveOptions, NetworkConfig):
    """Learn one task after another, and see what is left of the earlier ones."""

    version: ClassVar[int] = 4
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    renamed: ClassVar[Mapping[str, str]] = {
        metric.of: metric.name for metric in METRICS if metric.split == "test"
    }  # they had no split in front

    scenario: Scenario = "class"
    """task, domain, class: some classes each; an image's task is told in tests, does not matter, or must be found out.
    online: class, every image once. blurry: classes return. task-free: nobody says where a task ends. permuted,
    rotated, coloured, noisy: all classes, seen differently in every task."""
    tasks: Annotated[int, Ge(1)] = 5
    """How many; classes that do not divide evenly go to the first ones."""
    class_order: Literal["shuffled", "sorted"] = "shuffled"
    """Which classes come first; shuffled by the seed."""
    blur: Annotated[float, Ge(0), Lt(1)] = 0.1
    """blurry: share of a task's images that belongs to other tasks. task-free: share of a task in which the next one
    fades in."""
    strategies: Annotated[tuple[str, ...], Registered("strategies")] = ("continual.finetune",)
    """What is done against forgetting, one or several: see ``engram list strategies``."""
    strategies_options: Annotated[Mapping[str, Scalar], OptionsOf("strategies")] = field(default_factory=dict)
    """Options of the strategies, each under its strategy's name: si.c, ewc.strength."""
    cross_validation_tasks: Annotated[int, Ge(2)] = 3
    """On how many of the first tasks strengths that are auto are chosen, by validation images; the whole stream is then
    learned from its beginning."""
    buffer: Annotated[int, Ge(1)] = 200
    """Images that may be kept, all tasks together; several strategies that keep some have equal shares."""
    head: Literal["single", "multi", "growing", "prototype"] = "single"
    """single: all outputs always; multi: those of the image's task; growing: those of the classes met; prototype: the
    nearest class mean. By default multi for task, single otherwise."""
    backbone: Annotated[str, Registered("backbones")] = "mlp"
    """The network: see ``engram list backbones``. Beside --from that of the trial."""
    validation: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the training images held out to choose options by; 0 trains on all of them. Beside --from that of the
    trial."""
    normalise: bool = True
    """Bring images to zero mean and unit deviation; without it they stay in [0, 1]. Beside --from as the trial did."""

    iterations: Annotated[int, Ge(1)] | None = None
    """Steps per task, however many images it has."""
    epochs: Annotated[int, Ge(1)] = 10
    """Passes over a task's images, where --iterations is not given. By default 1 for online and task-free."""
    batch_size: Annotated[int, Ge(1)] = 128
    """Images of the task per step; the last step of a pass takes what is left."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Momentum of sgd and muon, beta1 of adamw. By default 0 for sgd."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Decay of weights (decoupled for adamw and muon); biases and norms are spared."""
    schedule: Literal["onecycle", "cosine", "constant"] = "constant"
    """Of the learning rate within a task. onecycle: linear up, then linear down to zero; cosine: linear warm-up, then
    half a cosine."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of a task's steps in which the learning rate rises."""
    reset_optimizer: bool = False
    """Begin every task with a fresh optimizer."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """auto: bf16 autocast where the processor has it in hardware."""
    connectivity: Annotated[int, Ge(0)] = 0
    """Places on the straight line between the weights after one task and after the next at which to test; 0 for none,
    else at least 3."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        iterations = given.get("iterations") is not None
        if iterations and "epochs" in given:
            raise must("--epochs", "left out beside --iterations", given["epochs"], "Give one of the two.")
        if "normalise" in given and given.get("from_trial") is not None:
            got = str(given["normalise"]).lower()
            raise must("--normalise", "left out beside --from, whose network does as it did", got, "Leave it out.")
        scenario = given.get("scenario", cls.scenario)
        default: dict[str, Any] = {
            "epochs": 1 if iterations or scenario in ("online", "task-free") else cls.epochs,
            "head": "multi" if scenario == "task" else cls.head,
            "momentum": 0.0 if given.get("optimizer") == "sgd" else cls.momentum,
        }
        return cls(**{**default, **cls.carried_on(given, inputs)})._plain()

    def _plain(self) -> Self:
        """What has no meaning here, at its default: it makes no other trial."""
        first = max(min(self.cross_validation_tasks, self.tasks), 2)
        kept = any(self.traits(name).buffer for name in self.strategies)
        return replace(
            self,
            cross_validation_tasks=first if self.to_choose() else type(self).cross_validation_tasks,
            buffer=self.buffer if kept else type(self).buffer,
            blur=self.blur if self.scenario in MIXED else type(self).blur,
            border=self.border if any(getattr(self, name) for name in MOVING) else type(self).border,
            class_order=self.class_order if self.scenario in BY_CLASS else type(self).class_order,
        )

    def traits(self, strategy: str) -> Traits:
        """What a strategy of the stream is, with its options."""
        return traits(strategy, self.options_of(strategy))

    def problems(self) -> list[str]:
        found = [*self._sizes(), *self._heads(), *self._answers(), *self._objective()]
        if not self.strategies:
            found.append("--strategies must be at least one; got none. Use finetune to do nothing against forgetting.")
        for name in self.strategies:
            found += [*self._alone(name), *problems(name, self.options_of(name)), *self._values(name)]
        return [*found, *self._combinations(), *self._buffers(), *self._averages()]

    def _objective(self) -> list[str]:
        """What the objective asks for and a stream does not have, which has all of its network choose among classes."""
        name = self.objective
        asks, found = asked(name, self.objective_options)
        problems = [*beginning(name, asks), *around(name, asks, ("streams",))]
        if "predictions" in asks.wants:
            rule = "one that looks at logits, which tell classes apart"
            problems.append(must("--objective", rule, name, "Use cross-entropy."))
        if asks.columns and (replaying := self._named("replays")):
            rule = f"one that needs no column of the data beside {replaying[0]}, which replays images and labels"
            problems.append(must("--objective", rule, name, "Use cross-entropy, or no replay."))
        if not asks.by_rows and (weighing := self._named("by_rows")):
            problems.append(without_rows(weighing[0], name))
        return [*found, *map(str, problems)]

    def data_problems(self, known: KnownData) -> list[str]:
        asks, _ = asked(self.objective, self.objective_options)
        return list(map(str, lacking(asks.columns, known.columns)))

    def _named(self, trait: str) -> list[str]:
        """What the strategies with a trait are called in messages."""
        return [said(name) for name in self.strategies if getattr(self.traits(name), trait)]

    def _alone(self, name: str) -> list[str]:
        if len(self.strategies) == 1 or not self.traits(name).alone:
            return []
        if cause := because(name, self.options_of(name), "alone"):
            return [
                f"--strategies.{short(name)}.{option} must be left out beside other strategies; got {value}. "
                f"Leave it out, or {said(name)} alone."
                for option, value in cause.items()
            ]
        got = ", ".join(map(said, self.strategies))
        return [f"--strategies must leave {said(name)} alone; got {got}. Run them one by one."]

    def _values(self, name: str) -> list[str]:
        """Options of the stream that a strategy cannot have as they are."""
        found, declared = [], self.traits(name)
        for option, known in declared.only.items():
            got = getattr(self, option)
            if got in known:
                continue
            flag, without = f"--{option.replace('_', '-')}", known[0] in (None, False)
            rule = "left out" if without else " or ".join(map(str, known))
            remedy = "Leave it out." if without else f"Use {flag} {known[0]}."
            if declared.instead and not without:
                remedy = f"Use {declared.instead}, or {flag} {known[0]}."
            found.append(f"{flag} must be {rule} for {said(name)}; got {got}. {remedy}")
        return found

    def _combinations(self) -> list[str]:
        """What each strategy does is right, and what they do together is not."""
        found = []
        isolated, weighing = self._named("needs_task"), self._named("weighs")
        for trait, about in (
            ("replays", "which works on one task at a time, with replay of others"),
            ("teacher", "whose gates or weights of a task a copy of the network lacks, with such a copy"),
        ):
            if isolated and (others := self._named(trait)):
                found.append(
                    f"--strategies must not mix {isolated[0]}, {about}; got {others[0]}. Choose one of the two."
                )
        if len(weighing) > 1:
            ways = [self.traits(name).unweighted for name in self.strategies if said(name) in weighing]
            found.append(
                "--strategies must hold one at most that weighs the loss of the task anew; "
                f"got {' and '.join(weighing)}. Use {', '.join(filter(None, [*ways, 'or one of them']))}."
            )
        if self.head != "multi" and self.scenario not in ("task", "class", "online"):
            found += [
                f"--scenario must bring new classes for {name}; got {self.scenario}. Use class, or --head multi."
                for name in self._named("new_outputs")
            ]
        return found

    def _averages(self) -> list[str]:
        """What does not go with a running average of the weights."""
        means = [*self._named("answers_by"), *(["--head prototype"] if self.head == "prototype" else [])]
        reasons = [f"{name}, whose answers are those of the network that is trained" for name in means]
        reasons += [
            f"{name}, which computes with other weights or units for every task" for name in self._named("needs_task")
        ]
        reasons += ["--connectivity, which looks at the weights that are trained"] if self.connectivity else []
        return [f"--ema must be 0 for {reason}; got {self.ema}. Leave it out." for reason in reasons[:1] if self.ema]

    def _buffers(self) -> list[str]:
        keeping = len(self._named("buffer"))
        among = f" of {keeping} strategies" if keeping > 1 else ""
        for name in self._named("each_task"):
            if self.buffer < keeping * self.tasks:
                least = f"{keeping * self.tasks} for {name}, one for each task{among}"
                return [f"--buffer must be at least {least}; got {self.buffer}. Raise it."]
        if self.buffer < keeping:
            return [f"--buffer must be at least {keeping}, one for each{among}; got {self.buffer}. Raise it."]
        return []

    def _answers(self) -> list[str]:
        """What lies between two solutions can be tested where the weights alone give the answers."""
        given = [(name, "another of --strategies") for name in self._named("answers_by")]
        given += [(f"--head {self.head}", "--head single or multi")] if self.head in ("growing", "prototype") else []
        return [
            "--connectivity must be 0 where answers do not follow from the weights alone; "
            f"got {got}. Leave it out, or use {remedy}."
            for got, remedy in given[:1]
            if self.connectivity
        ]

    def _sizes(self) -> list[str]:
        if self.connectivity in (1, 2):
            return [f"--connectivity must be 0 or at least 3; got {self.connectivity}. 11 is usual."]
        if self.scenario in ("online", "task-free") and (self.iterations or self.epochs != 1):
            got = f"--iterations {self.iterations}" if self.iterations else f"--epochs {self.epochs}"
            return [f"a single pass must be what --scenario {self.scenario} makes; got {got}. Leave it out."]
        return []

    def _heads(self) -> list[str]:
        found = [
            f"--head must be multi for {name}, which needs to know an image's task; "
            f"got {self.head}. Use --scenario task or --head multi."
            for name in self._named("needs_task")
            if self.head != "multi"
        ]
        for name in self.strategies if self.scenario == "task-free" else ():
            if not self.traits(name).boundaries:
                continue
            rule = "must do without task boundaries for --scenario task-free"
            if cause := because(name, self.options_of(name), "boundaries"):
                found += [
                    f"--strategies.{short(name)}.{option} {rule}; got {value}. Leave it out."
                    for option, value in cause.items()
                ]
            else:
                found.append(f"--strategies {rule}; got {said(name)}. Use er, der, derpp or er-ace.")
        if self.scenario == "task-free":
            given = {"--reset-optimizer": self.reset_optimizer, "--schedule": self.schedule != "constant"}
            given["--head prototype"] = self.head == "prototype"
            found += [
                f"{flag} must be left out for --scenario task-free, where nobody tells a task's end; got it. "
                "Leave it out."
                for flag, is_given in given.items()
                if is_given
            ]
        if self.scenario in MIXED and self.head in ("multi", "growing"):
            found.append(
                f"--head must be another one for --scenario {self.scenario}, whose tasks share their classes; "
                f"got {self.head}. Leave it out."
            )
        shared = self.scenario in ("domain", "permuted", "rotated", "coloured", "noisy")
        if shared and self.head in ("growing", "prototype"):
            found.append(
                f"--head must be single or multi for --scenario {self.scenario}, whose tasks share their outputs; "
                f"got {self.head}. Leave it out."
            )
        return found

    def cautions(self) -> list[str]:
        """What is allowed and known not to work."""
        if self.head == "multi" or self.scenario not in BY_CLASS or self.scenario == "domain":
            return []
        untold = [
            f"--head {self.head} has nothing to tell it an image's task with: --scenario task is tested like class. "
            "--head multi is told."
        ]
        return (untold if self.scenario == "task" else []) + [
            f"{said(name)} is known to fail when classes are new and an image's task is not told: "
            f"{self.traits(name).fails_without_task}. Its accuracy will be near that of finetune; replay works there."
            for name in self.strategies
            if self.traits(name).fails_without_task and not self._named("replays")
        ]

    def to_choose(self) -> list[str]:
        """Names of the strategies whose strength is auto, in the order of their hooks."""
        return [name for name in in_turn(self.strategies) if strength(name, self.options_of(name)) == AUTO]

    def with_strengths(self, chosen: Mapping[str, float]) -> Self:
        """The same with these strengths, by the names of their strategies."""
        options = {f"{short(name)}.{traits(name).strength}": value for name, value in chosen.items()}
        return replace(self, strategies_options={**self.strategies_options, **options})

    def options_of(self, strategy: str) -> dict[str, Scalar]:
        """The options given to one strategy, by its own names."""
        return options_within(self.strategies_options, strategy)
