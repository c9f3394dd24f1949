"""Few-shot experiments run in this process: whole, or broken off anywhere and resumed from what a checkpoint holds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from engram.backbone.options import Checker
from engram.backbone.registry import Registry
from engram.backbone.seeding import seed_everything
from engram.fewshot.episodes.configs import EpisodesConfig
from engram.fewshot.episodes.experiment import Episodes


class Services:
    """What the runner offers, gathered instead of written."""

    download, device = False, "cpu"

    def __init__(self, folder: Path, inputs: dict[str, Path]) -> None:
        self.trial_dir, self.data_root, self.inputs = folder, folder / "none", inputs
        self.logged, self.tables, self.facts = [], [], {}
        folder.mkdir(parents=True, exist_ok=True)

    def log(self, step, metrics):
        self.logged.append((step, dict(metrics)))

    def progress(self, done, total, text=""):
        assert 0 <= done <= total

    def provenance(self, **facts):
        self.facts |= facts

    def table(self, title, rows):
        self.tables.append((title, rows))


SMALL = {
    "dataset_options": {"classes": 60, "held_out": 10, "drawings": 12, "size": 14},
    "backbone_options": {"width": 0.25},
    "queries": 4,
    "episodes": 60,
    "train_ways": 8,
    "train_episodes": 20,
    "lr": 5e-3,
}
UNTRAINED = {name: value for name, value in SMALL.items() if name != "lr" and not name.startswith("train_")}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """Features are kept where no other test finds them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "engram" / "features"


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """``episodes(**options)``: the experiment on small glyphs; ``trained``: the folder of a trial to start from."""

    def make(trained=None, inherited=None, **options):
        small = UNTRAINED if "training" in options or trained else SMALL
        checker = Checker(Registry.discover(), lambda name: f"--{name}", "")
        given = checker.check(EpisodesConfig, {**small, **options})
        checker.require()
        if trained is not None:
            given["from_trial"] = str(trained)
        config = EpisodesConfig.resolve(given, {} if trained is None else {"trained": inherited or {}})
        assert not config.problems()
        seed_everything(config.seed)
        folder = tmp_path_factory.mktemp("trial")
        return Episodes(config, Services(folder, {} if trained is None else {"trained": trained}))

    return make


@pytest.fixture(scope="module")
def run(episodes):
    """As ``episodes``, run to its end: the experiment, its state and its result."""

    def whole(**options):
        ours = episodes(**options)
        state = ours.start()
        while ours.step(state):
            pass
        return ours, state, ours.finish(state)

    return whole


@pytest.fixture(scope="module")
def resume(episodes):
    """As ``run``, but killed after so many units of work and gone on with."""

    def broken(units, **options):
        first = episodes(**options)
        state = first.start()
        for _ in range(units):
            first.step(state)
        file = io.BytesIO()
        torch.save(first.state_dict(state), file)
        file.seek(0)
        second = episodes(**options)
        torch.manual_seed(999)  # what a fresh process has drawn must not matter
        state = second.start()
        second.load_state_dict(state, torch.load(file, weights_only=True))
        while second.step(state):
            pass
        return second.finish(state)

    return broken
