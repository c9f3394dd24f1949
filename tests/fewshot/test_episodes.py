"""The experiment: training helps, a killed trial goes on to the same bits, and what it keeps is what others need."""

import pytest
import torch
from safetensors.torch import load_file

from engram.backbone.contract import Bars, Figure, Pictures, Scatter
from engram.backbone.data.trained import load_as_trained
from engram.backbone.errors import UserError
from engram.backbone.measures.features import features_of
from engram.backbone.measures.scoring import score
from engram.backbone.nets.heads import linear_form
from engram.backbone.nets.making import LINEAR
from engram.backbone.saved.model import load_model
from engram.fewshot.episodes import experiment as module
from engram.fewshot.episodes import kept
from engram.fewshot.episodes.configs import EpisodesConfig
from engram.fewshot.episodes.features import Table
from engram.fewshot.episodes.scoring import interval


@pytest.fixture(scope="module")
def trained(run):
    return run()


def test_training_helps_on_classes_never_seen(trained, run):
    ours, state, result = trained
    _, _, untrained = run(training="none")
    assert result.metrics["test/accuracy"] > untrained.metrics["test/accuracy"] + 0.05 > 0.25
    classes = [set(split.labels.tolist()) for split in (state.data.train, state.data.validation, state.data.test)]
    assert not classes[0] & classes[1] and not classes[2] & (classes[0] | classes[1])
    assert result.metrics["validation/accuracy"] > 0.4 and result.metrics["episodes_per_second"] > 0
    each = load_file(ours.services.trial_dir / result.artifacts["episodes"])
    mean, half = interval(each["test/5-way 1-shot"])
    assert (mean, half) == (result.metrics["test/accuracy"], result.metrics["test/accuracy/ci95"])
    rows = {(row["part"], row["shots"]): row for row in result.tables["episodes by shape"]}
    assert [*rows] == [("test", "1"), ("validation", "1"), ("test", "2"), ("test", "5")]  # of 12 images and 4 queries
    assert rows["test", "5"]["accuracy"] > rows["test", "1"]["accuracy"]


def test_what_is_drawn(trained):
    _, _, result = trained
    kinds = {name: type(figure) for name, figure in result.figures.items()}
    assert kinds == {"loss": Figure, "shots": Scatter, "episodes": Bars, "features": Scatter, "hardest": Pictures}
    assert sum(result.figures["episodes"].series["test episodes"]) == pytest.approx(1)
    assert len(result.figures["features"].series["means of the support"]) == 5
    hardest = result.figures["hardest"]
    assert len(hardest.pictures) == len(hardest.captions) == 16 and hardest.captions[1].startswith("as ")


@pytest.mark.parametrize("units", [8, 25])  # within the training, and among episodes behind three tables
def test_a_killed_trial_goes_on_to_the_same_bits(trained, resume, units, monkeypatch):
    _, _, whole = trained
    monkeypatch.setattr(module.Trainer.advance, "__defaults__", (0.0,))
    monkeypatch.setattr(module, "UNIT_SECONDS", 0.0)
    monkeypatch.setattr(module, "CHUNK", 20)
    again = resume(units)
    for name in ("test/accuracy", "test/accuracy/ci95", "validation/accuracy"):
        assert again.metrics[name] == whole.metrics[name]
    assert again.tables["passes"] == whole.tables["passes"]


def test_the_saved_network_is_a_classifier_of_its_training_classes(trained):
    ours, state, _ = trained
    model, made = load_model(ours.services.trial_dir / "model")
    assert made.head.name == "fewshot.prototype" and linear_form(model.head) is not None
    assert len(made.classes) == 60 and made.data.disjoint
    data, outputs = load_as_trained(made, root=ours.services.data_root, download=False)
    assert outputs.tolist() == [*range(60)] and data.classes == made.classes and "trained on" in data.cautions[-1]
    assert len(data.train) + len(data.test) == 60 * 12 and data.validation is None
    assert score(model, data.test, "cpu")["accuracy"] > 0.4  # chance: 1 of 60
    features = features_of(model, state.train, "cpu")
    means = torch.stack([features[state.train.labels == label].mean(0) for label in range(60)])
    torch.testing.assert_close(model.head.prototypes, means)


def test_another_trial_starts_from_it(trained, run, own_cache):
    ours, _, result = trained
    folder = ours.services.trial_dir
    inherited = {"backbone": "conv4", "backbone_options": ours.config.backbone_options, "dataset": "glyphs"}
    inherited["dataset_options"] = ours.config.dataset_options
    frozen, _, again = run(trained=folder, inherited=inherited)
    assert frozen.config.training == "none" and "model" not in again.artifacts
    assert again.metrics["test/accuracy"] == result.metrics["test/accuracy"]  # the same episodes of the same network
    known = {*own_cache.iterdir()}
    run(trained=folder, inherited=inherited, head="fewshot.simpleshot")  # that wants to see the training classes too
    assert len({*own_cache.iterdir()} - known) == 1


def test_a_classifier_of_all_training_classes(run):
    _, state, result = run(training="classifier", classifier="cosine", epochs=3, batch_size=32)
    assert result.metrics["test/accuracy"] > 0.3
    assert state.model.head.weight.shape[0] == 60


def test_features_do_not_depend_on_their_batch(trained):
    _, state, _ = trained
    split, model = state.data.test, state.model
    alone = features_of(model, split.select(torch.tensor([7])), "cpu")
    torch.testing.assert_close(features_of(model, split, "cpu")[7:8], alone)
    table = Table(split, "cpu")
    while not table.whole:
        table.fill(model, 0.0)
    assert torch.equal(table.rows, features_of(model, split, "cpu"))


def test_kept_features_are_made_again_where_they_are_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    kept.keep("a" * 64, rows)
    assert torch.equal(kept.recall("a" * 64), rows) and kept.recall("b" * 64) is None
    (file,) = (tmp_path / "engram" / "features").iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-4] + b"\0\0\0\0", whole[:20], b""):
        file.write_bytes(damaged)
        assert kept.recall("a" * 64) is None
    monkeypatch.setattr(kept, "MOST_BYTES", 4 * len(whole))
    for number in range(9):
        kept.keep(f"{number:064}", rows)
    assert kept.recall("a" * 64) is None
    assert sum(each.stat().st_size for each in file.parent.iterdir()) <= 4 * len(whole)
    monkeypatch.setattr(kept, "kept_in", lambda what: None)
    kept.keep("c" * 64, rows)
    assert kept.recall("c" * 64) is None


def test_what_features_depend_on(trained):
    _, state, _ = trained
    key = kept.key_of(state.model, (), state.data, state.data.test, "test")
    assert key == kept.key_of(state.model, (), state.data, state.data.test, "test")
    others = [
        kept.key_of(state.model, (LINEAR,), state.data, state.data.test, "test"),
        kept.key_of(state.model, (), state.data, state.data.test, "validation"),
        kept.key_of(state.model, (), state.data, state.data.test.select(torch.arange(5)), "test"),
    ]
    with torch.no_grad():
        next(state.model.backbone.parameters()).mul_(2)
    others.append(kept.key_of(state.model, (), state.data, state.data.test, "test"))
    assert len({key, *others}) == 5


def test_problems_are_named_at_once_before_any_work(episodes):
    with pytest.raises(UserError) as refused:
        episodes(ways=12, shots=9, train_ways=70).start()
    lines = str(refused.value).splitlines()
    assert len(lines) == 6  # of each part: too few classes, too few images
    assert any(
        "the ways of train episodes must be at most its 60 classes; got 70. Lower --train-ways" in each
        for each in lines
    )
    assert any(
        "every class of the test part must be of at least 13 images (9 shots and 4 queries)" in each for each in lines
    )


def test_the_head_is_that_of_the_trial_where_it_takes_a_support_set():
    def resolved(before, **given):
        trained = {"backbone": "mlp", "dataset": "digits", "head": before, "head_options": {"scale": 3.0}}
        return EpisodesConfig.resolve({"from_trial": "x", **given}, {"trained": trained})

    found = resolved("fewshot.matching", head_options={"learn_scale": True})
    assert (found.head, found.head_options) == ("fewshot.matching", {"scale": 3.0, "learn_scale": True})
    assert resolved("linear").head == "fewshot.prototype" and not resolved("linear").head_options
    assert resolved("fewshot.matching", head="fewshot.ridge").head_options == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ways": "20-5"}, "--ways must be a whole number of at least 2, or two such as 2-17; got 20-5."),
        ({"shots": 0}, "--shots must be a whole number of at least 1, or two such as 1-16; got 0."),
        ({"training": "none", "lr": 0.1}, "--lr must be left out with --training none; got 0.1."),
    ],
)
def test_options_that_cannot_be(episodes, options, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(".", r"\.")):
        episodes(**options)


def test_episodes_within_an_alphabet_show_one_quarter_turn(run):
    _, state, result = run(within="alphabet", train_turns=True, ways="2", train_ways=3, train_episodes=4, lr=1e-3)
    sampler, split = state.trainer.sampler, state.trainer.data
    assert len(split) == 4 * len(state.train) and result.metrics["test/accuracy"] > 0.4
    for row in sampler.order(split, 0, 0).reshape(4, -1):
        assert len({(split.columns["alphabet"][place], int(split.columns["turn"][place])) for place in row}) == 1
        assert len(split.labels[row].unique()) == 3
    with pytest.raises(UserError, match=r"--within must be a column of the data .*; got script"):
        run(within="script")
