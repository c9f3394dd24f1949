"""``fewshot.episodes``: classes never seen before, known from a few images of each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from engram.backbone.atomic import write_atomically
from engram.backbone.contract import AdaptingHead, Centred, Named, Result, Row, Services
from engram.backbone.data.load import load_disjoint
from engram.backbone.data.quarter_turns import TURNS, Turned
from engram.backbone.data.sets import Data, Split
from engram.backbone.data.trained import cautions, reference
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.beginning import Beginning, begin, show_verdicts
from engram.backbone.hardware import Machine, choose_precision, suit_threads
from engram.backbone.measures.features import features_of
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import LINEAR
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.seeding import derive
from engram.backbone.training.loop import Trainer
from engram.backbone.training.preparing import prepare
from engram.fewshot.episodes import figures, kept
from engram.fewshot.episodes.configs import EpisodesConfig, between
from engram.fewshot.episodes.features import Table, gathered
from engram.fewshot.episodes.sampling import Pools, Shape, Shapes
from engram.fewshot.episodes.saved import SUPPORT, VIEW, classifier_of, numbered, save_support, support_head
from engram.fewshot.episodes.scoring import Pictures, Source, interval, score_episodes
from engram.fewshot.episodes.state import EpisodesState, Work, said, support_of
from engram.fewshot.episodes.training import PASS, EpisodeSampler, Episodic, Through

UNIT_SECONDS = 2.0
VALIDATIONS = 20
"""Times in a training at which validation episodes are scored."""
VALIDATION_EPISODES = 400
"""Scored each of these times."""
CENTRED_IMAGES = 2000
"""Training images whose mean feature heads are told then."""
SHOTS = (1, 2, 5, 10)
"""Shots of the curve of accuracy against them, as far as classes have the images."""
MOST_WAYS = 60
"""Classes of a training episode where nobody says."""
EPISODES = "episodes.safetensors"
"""A file of the trial: the accuracies of all episodes."""
CHUNK = 200
"""Episodes scored between two looks at the clock; of heads that adapt a network for each, a tenth."""


class Episodes:
    """Units of work are a few seconds of training, of computing features or of scoring episodes."""

    def __init__(self, config: EpisodesConfig, services: Services) -> None:
        self.config, self.services = config, services
        self.machine = Machine(services.device, choose_precision(config.precision, services.device))
        self.shapes = Shapes(between(config.ways), between(config.shots), config.queries)
        self.entry = Registry.discover().entry("heads", config.head)

    def start(self) -> EpisodesState:
        c, s = self.config, self.services
        data = load_disjoint(
            c.dataset, c.dataset_options, root=s.data_root, download=s.download, validation=c.validation
        )
        train, labels = numbered(gathered(data.train))
        held = data.validation and gathered(data.validation)
        data = replace(data, validation=held, test=gathered(data.test))
        shown, within = gathered(Turned(train)) if c.train_turns else train, c.columns
        _need_columns(within, train)
        pools = {"test": Pools.of(data.test, within)}
        pools["train"] = Pools.of(shown, (*within, "turn") if within and c.train_turns else within)
        pools |= {} if held is None else {"validation": Pools.of(held, within)}
        own = replace(data, train=train, classes=tuple(data.classes[label] for label in labels))
        shape = self._train_shape(pools["train"])
        self._check(pools, shape, data.classes, own.classes)
        s.provenance(data_sha256=data.fingerprint, precision=self.machine.precision, **data.facts)
        images = c.batch_size if shape is None else c.train_together * shape.ways * (shape.shots + shape.queries)
        suit_threads(images * math.prod(data.in_shape) * (data.frames or 1))
        beginning = self._begin(own)
        if found := self._cautions(data):
            s.table("caution", found)
        show_verdicts(beginning.model.backbone, s)
        named = in_full(Registry.discover(), "heads", c.head, c.head_options)
        width: Any = beginning.model.backbone.feature_dim
        ways = self.shapes.ways[1] if shape is None else shape.ways
        support = support_head(named, width, ways, s.inputs.get("trained"))
        state = EpisodesState(data, train, pools, beginning, named, support, None, [], {})
        if c.training == "none":
            beginning.model.to(s.device).requires_grad_(False)
            support.to(s.device)
        else:
            state.trainer = self._trainer(state, shown, shape)
        state.works = self._works(state)
        adapting, trained = isinstance(support, AdaptingHead), state.trainer is not None
        wanted = [] if adapting else [part for part in ("test", "validation") if part in pools]
        wanted += ["train"] if trained or isinstance(support, Centred) else []
        state.tables = {part: Table(state.split(part), s.device) for part in wanted}
        return state

    def _train_shape(self, pools: Pools) -> Shape | None:
        """The size of training episodes; None where there are none."""
        c = self.config
        if c.training != "episodic":
            return None
        assert c.train_shots is not None  # resolved
        return Shape(c.train_ways or min(MOST_WAYS, pools.most), c.train_shots, c.train_queries)

    def _check(
        self, pools: Mapping[str, Pools], shape: Shape | None, classes: tuple[str, ...], own: tuple[str, ...]
    ) -> None:
        """Raises UserError: one line for everything in which parts are too small for the episodes."""
        if self.config.train_turns:
            own = tuple(f"{name} turned by {90 * turn}" for name in own for turn in range(TURNS))
        found = [] if shape is None else pools["train"].problems(shape, "train", own, "train-")
        for part in pools.keys() - {"train"}:
            found += pools[part].problems(self.shapes.largest, part, classes)
        if found:
            raise UserError("\n".join(sorted(map(str, found))))

    def _begin(self, own: Data) -> Beginning:
        """The network in front of the head; ``own``: with the training classes alone."""
        c = self.config
        head = in_full(Registry.discover(), "heads", c.classifier, {}) if c.training == "classifier" else LINEAR
        frozen = c.training == "none"
        beginning = begin(c, own, self.services.inputs, head, relabel=False, renormalise=not frozen)
        if not frozen and not any(p.requires_grad for p in beginning.model.backbone.parameters()):
            remedy = "Take it as it is: --training none."
            raise must("the network of --from", "one whose weights can be trained", "one that can only run", remedy)
        if beginning.prepare is not None:
            prepare(beginning.model, own.train, c.seed, beginning.prepare)
        return beginning

    def _cautions(self, data: Data) -> list[Row]:
        """What to know of the data, and of a network that has seen classes to be tested on."""
        found: list[Row] = list(cautions(data))
        if "trained" not in self.services.inputs:
            return found
        made = load_model(self.services.inputs["trained"] / "model")[1]
        tested = {data.classes[label] for label in data.test.labels.unique().tolist()}
        known = tested & {*made.classes, *(name for names in made.meanings for name in names)}
        if known and made.data is not None and made.data.fingerprint == data.fingerprint:
            told = f"{len(known)} of the {len(tested)} test classes were trained on by the network of --from"
            found.append({"caution": f"{told}: their accuracy is not one of new classes."})
        return found

    def _trainer(self, state: EpisodesState, shown: Split, shape: Shape | None) -> Trainer:
        c, model = self.config, state.beginning.model
        if shape is None:
            state.support.to(self.services.device)
            return Trainer(model, state.train, c, self.machine)
        model.head = Through(state.support)
        sampler = EpisodeSampler(state.pools["train"], shape, min(PASS, c.train_episodes), c.train_together)
        objective = Episodic(model, shape, c.train_together, c.label_smoothing, self.services.device)
        options, steps = replace(c, batch_size=sampler.images), -(-c.train_episodes // c.train_together)
        return Trainer(model, shown, options, self.machine, objective, sampler, steps=steps)

    def _works(self, state: EpisodesState) -> list[Work]:
        c, shapes = self.config, self.shapes
        works = [Work(part, shapes, c.episodes) for part in ("test", "validation") if part in state.pools]
        if (
            isinstance(state.support, AdaptingHead)
            or shapes.ways[0] < shapes.ways[1]
            or shapes.shots[0] < shapes.shots[1]
        ):
            return works
        pools = state.pools["test"]
        for shots in SHOTS:
            other = replace(shapes, shots=(shots, shots))
            if other != shapes and not pools.problems(other.largest, "test", state.data.classes):
                works.append(Work("test", other, c.episodes))
        return works

    def step(self, state: EpisodesState) -> bool:
        if state.trainer is not None and not state.trainer.done:
            self._train(state, state.trainer)
        elif (part := next((name for name, table in state.tables.items() if not table.whole), None)) is not None:
            self._fill(state, part)
        elif (work := next((each for each in state.works if each.done < each.count), None)) is not None:
            self._score(state, work)
        return not state.done

    def _train(self, state: EpisodesState, trainer: Trainer) -> None:
        ended = trainer.advance()
        p = trainer.progress
        number = p.step / trainer.steps_per_epoch
        self.services.progress(p.step, trainer.total_steps, f"pass {number:.1f} of the training")
        if ended is not None:
            row = {"pass": number, **ended, **self._validate(state, trainer)}
            state.curves.append(row)
            self.services.log(p.step, {name: value for name, value in row.items() if name != "pass"})

    def _validate(self, state: EpisodesState, trainer: Trainer) -> dict[str, float]:
        """The accuracy on validation episodes, some twenty times in a training."""
        passes = -(-trainer.total_steps // trainer.steps_per_epoch)
        number, every = -(-trainer.step // trainer.steps_per_epoch), max(1, round(passes / VALIDATIONS))
        if state.data.validation is None or trainer.done or number % every:  # afterwards it is measured with the rest
            return {}
        model = state.model
        head = support_of(model, state.support)
        source, count = self._source(state, "validation", model), VALIDATION_EPISODES
        if isinstance(head, AdaptingHead):
            count //= 20
        elif isinstance(head, Centred):  # by some images; afterwards all are looked at
            some = torch.linspace(0, len(state.train) - 1, min(len(state.train), CENTRED_IMAGES)).long()
            head.centre(features_of(model, state.train.select(some), self.services.device))
        found = score_episodes(
            head,
            source,
            state.pools["validation"],
            self.shapes,
            min(count, self.config.episodes),
            self._seed("validation"),
        )
        return {f"validation/{self.measure}": float(found.mean())}

    def _source(self, state: EpisodesState, part: str, model: Classifier) -> Source:
        """What episodes of a part are classified from."""
        split, device = state.split(part), self.services.device
        if isinstance(support_of(model, state.support), AdaptingHead):
            return Pictures(model, split, device)
        table = state.tables[part]
        return table.rows if table.whole else features_of(model, split, device)

    def _seed(self, part: str) -> int:
        return derive(self.config.seed, f"{part} episodes")

    @property
    def measure(self) -> str:
        """What the accuracy is called, which for a transductive head is not to be compared with others'."""
        return "transductive_accuracy" if self.entry.transductive else "accuracy"

    def _fill(self, state: EpisodesState, part: str) -> None:
        """Features of a part; those of a network that is not trained here may be known from another trial."""
        table, model = state.tables[part], state.model
        if state.trainer is None:
            made = (state.beginning.backbone, *state.beginning.adapters)
            kept.fill(table, model, kept.key_of(model, made, state.data, table.split, part), UNIT_SECONDS)
        else:
            table.fill(model, UNIT_SECONDS)
        self.services.progress(table.done, len(table.split), f"features of {part} images")

    def _score(self, state: EpisodesState, work: Work) -> None:
        model = state.model
        head, source = self._centred(state, model), self._source(state, work.part, model)
        chunk = CHUNK // 10 if isinstance(head, AdaptingHead) else CHUNK
        pools, seed = state.pools[work.part], self._seed(work.part)
        began = time.perf_counter()
        while True:
            count = min(chunk, work.count - work.done)
            found = score_episodes(head, source, pools, work.shapes, count, seed, first=work.done)
            work.accuracies = torch.cat((work.accuracies, found))
            if work.done == work.count or time.perf_counter() - began > UNIT_SECONDS:
                break
        work.seconds += time.perf_counter() - began
        self.services.progress(work.done, work.count, f"{work.part} episodes, {said(work.shapes)}")

    def _centred(self, state: EpisodesState, model: Classifier) -> nn.Module:
        """The support head to score with."""
        head = support_of(model, state.support).eval()
        if isinstance(head, Centred) and not state.centred:
            head.centre(state.tables["train"].rows)
            state.centred = True
        return head

    def finish(self, state: EpisodesState) -> Result:
        model, folder = state.model, self.services.trial_dir
        head = self._centred(state, model)
        main, of = state.works[0], self.measure
        mean, half = interval(main.accuracies)
        metrics = {f"test/{of}": mean, f"test/{of}/ci95": half}
        metrics |= {
            f"validation/{of}": interval(work.accuracies).mean for work in state.works if work.part == "validation"
        }
        metrics["episodes_per_second"] = main.count / main.seconds
        metrics["parameters"] = float(sum(p.numel() for p in model.backbone.parameters()))
        rows = [_row(work) for work in state.works]
        looked = figures.of_episodes(
            head,
            self._source(state, "test", model),
            state.data,
            state.pools["test"],
            self.shapes,
            self._seed("test"),
            main.count,
        )
        drawn = {
            **figures.curves(state.curves, of),
            **figures.by_shots(rows),
            **figures.histogram(main.accuracies),
            **looked,
        }
        write_atomically(folder / EPISODES, save({work.name: work.accuracies for work in state.works}))
        artifacts = {"episodes": EPISODES}
        if state.trainer is not None:
            metrics["train_seconds"] = state.trainer.progress.seconds
            self._save(state, model, head, folder)
            artifacts |= {"model": "model/model.safetensors", "manifest": "model/model.json", "support": SUPPORT}
        tables = {"episodes by shape": rows, **({"passes": state.curves} if state.curves else {})}
        if found := self._cautions(state.data):
            tables["cautions"] = found
        return Result(metrics=metrics, tables=tables, figures=drawn, artifacts=artifacts)

    def _save(self, state: EpisodesState, model: Classifier, head: nn.Module, folder: Path) -> None:
        """The network as a classifier of its training classes, and the support head with what it has learned."""
        c, beginning = self.config, state.beginning
        features = state.tables["train"].rows
        labels = state.train.labels.to(features.device)
        with torch.no_grad():
            fitted, named = classifier_of(head, state.head, self.entry.fixed, features, labels)
        save_support(folder, head, state.head)
        ref = reference(c.dataset, c.dataset_options, state.data, c.validation, Named(VIEW, 1, {}))
        made = Made(
            backbone=beginning.backbone,
            adapters=tuple(beginning.adapters),
            head=named,
            classes=beginning.data.classes,
            in_shape=state.data.in_shape,
            data=ref,
            precision=self.machine.precision,
        )
        save_model(
            folder / "model", Classifier(model.backbone, fitted, model.normalise.mean, model.normalise.std), made
        )

    def state_dict(self, state: EpisodesState) -> dict[str, Any]:
        return {
            "trainer": None if state.trainer is None else state.trainer.state_dict(),
            "curves": state.curves,
            "tables": {part: table.state_dict() for part, table in state.tables.items() if table.done},
            "works": [{"accuracies": work.accuracies, "seconds": work.seconds} for work in state.works],
        }

    def load_state_dict(self, state: EpisodesState, saved: Mapping[str, Any]) -> None:
        if state.trainer is not None:
            state.trainer.load_state_dict(saved["trainer"])
        state.curves[:] = saved["curves"]
        for part, rows in saved["tables"].items():
            state.tables[part].load_state_dict(rows)
        for work, known in zip(state.works, saved["works"], strict=True):
            work.accuracies, work.seconds = known["accuracies"], known["seconds"]


def _row(work: Work) -> dict[str, Any]:
    (mean, half), (ways, shots) = interval(work.accuracies), said(work.shapes).split(" ")
    return {
        "part": work.part,
        "ways": ways.removesuffix("-way"),
        "shots": shots.removesuffix("-shot"),
        "queries": work.shapes.queries,
        "episodes": work.count,
        "accuracy": mean,
        "ci95": half,
    }


def _need_columns(names: Sequence[str], split: Split) -> None:
    """Raises UserError: the images have no such column."""
    for name in names:
        if name not in split.columns:
            known = ", ".join(split.columns) or "none"
            raise must("--within", f"a column of the data ({known})", name, "Name one of these, or leave it out.")
