"""``fewshot.one-shot-runs``: within-alphabet classification as people and Bayesian program learning were tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import AdaptingHead, Centred, Result, Services
from engram.backbone.data.load import open_source
from engram.backbone.data.sets import Source, Split
from engram.backbone.errors import must
from engram.fewshot.episodes.features import Table
from engram.fewshot.episodes.sampling import Drawn
from engram.fewshot.episodes.scoring import Pictures, episode_logits
from engram.fewshot.episodes.scoring import Source as Seen
from engram.fewshot.frozen import Frozen, Learner, frozen
from engram.fewshot.oneshot.building import Runs, built, published
from engram.fewshot.oneshot.configs import OneShotConfig
from engram.fewshot.oneshot.report import report
from engram.fewshot.oneshot.source import RUN

UNIT_SECONDS = 2.0
AT_ONCE = 50
"""Runs classified between two looks at the clock; of heads that adapt a network, one."""


@dataclass
class OneShotState:
    """Where a trial is.

    Attributes:
        runs: rows of ``images``.
        images: all pictures of the runs, each once.
        network, learner: as they are.
        tables: features of the training images, where the head wants to see them, and of ``images``.
        answers: [runs done, classes], the class that each picture was taken for.
    """

    runs: Runs
    images: Split
    network: Frozen
    learner: Learner
    tables: dict[str, Table]
    answers: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.int64))
    centred: bool = False


class OneShot:
    """Units of work are a few seconds of computing features or of classifying runs."""

    def __init__(self, config: OneShotConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> OneShotState:
        c, s = self.config, self.services
        source = open_source(c.dataset, c.dataset_options, root=s.data_root, download=s.download)
        runs, images = self._runs(source)
        runs, images = _each_once(runs, images)
        network = frozen(c, images.select(runs.drawn.support.flatten().unique()), s.inputs, c.dataset)
        learner = network.support_head(c.head, c.head_options, runs.drawn.shape.ways)
        known = {} if network.made is None else {"model_sha256": network.made.sha256}
        s.provenance(data_sha256=source.fingerprint, protocol=runs.protocol, **known)
        network.model.to(s.device)
        learner.head.to(s.device)
        splits: dict[str, Split | None] = {
            "training": network.to_centre(learner, root=s.data_root, download=s.download),
            "runs": None if isinstance(learner.head, AdaptingHead) else images,
        }
        tables = {name: Table(split, s.device) for name, split in splits.items() if split is not None}
        return OneShotState(runs, images, network, learner, tables)

    def _runs(self, source: Source) -> tuple[Runs, Split]:
        """The runs, and the split whose rows they are."""
        c = self.config
        if c.runs is None:
            assert source.test is not None and RUN in source.train.columns  # the configuration was checked
            return published(source.train), source.train.and_also(source.test)
        split = source.parts.get(c.split)
        if split is None:
            known = " or ".join(f"--split {name}" for name in source.parts if name != "train") or "another --dataset"
            raise must(f"the {c.split} part of {c.dataset!r}", "there, to build runs from", "none", f"Use {known}.")
        return built(split, c.runs, c.seed), split

    def step(self, state: OneShotState) -> bool:
        total, model = len(state.runs.drawn), state.network.model
        table = next((table for table in state.tables.values() if not table.whole), None)
        if table is not None:
            table.fill(model, UNIT_SECONDS)
            self.services.progress(table.done, len(table.split), f"features of {table.done:,} pictures")
            return True
        if "training" in state.tables and not state.centred and isinstance(state.learner.head, Centred):
            state.learner.head.centre(state.tables["training"].rows)
            state.centred = True
        some = state.runs.drawn
        first = len(state.answers)
        last = min(first + (1 if "runs" not in state.tables else AT_ONCE), total)
        chosen = Drawn(some.classes[first:last], some.support[first:last], some.queries[first:last])
        found = self._answers(state, chosen)
        state.answers = found if not first else torch.cat((state.answers, found))
        self.services.progress(last, total, f"run {last:,} of {total:,}")
        return last < total

    def _answers(self, state: OneShotState, drawn: Drawn) -> Tensor:
        """[E, N] of E runs."""
        device = self.services.device
        if "runs" in state.tables:
            source: Seen = state.tables["runs"].rows
        else:
            source = Pictures(state.network.model, state.images, device)
        with torch.inference_mode("runs" in state.tables):  # a head that adapts needs gradients
            return episode_logits(state.learner.head, source, drawn).argmax(-1).cpu().clone()

    def finish(self, state: OneShotState) -> Result:
        return report(self.config.split, state.runs, state.answers, state.images)

    def state_dict(self, state: OneShotState) -> dict[str, Any]:
        tables = {name: table.state_dict() for name, table in state.tables.items() if table.done}
        return {"tables": tables, "answers": state.answers}

    def load_state_dict(self, state: OneShotState, saved: Mapping[str, Any]) -> None:
        for name, rows in saved["tables"].items():
            state.tables[name].load_state_dict(rows)
        state.answers = saved["answers"]


def _each_once(runs: Runs, split: Split) -> tuple[Runs, Split]:
    """The pictures that runs show, each once, and the runs as rows of these."""
    drawn = runs.drawn
    used, rows = torch.cat((drawn.support, drawn.queries), 2).unique(return_inverse=True)
    support, queries = rows.split([drawn.support.shape[2], drawn.queries.shape[2]], 2)
    return Runs(runs.protocol, Drawn(drawn.classes, support, queries), runs.names), split.select(used)
