"""Few-shot class-incremental learning: sessions, calibration, figures, and a run of a base session and five more."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.backbone.measures.scoring import score
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import seed_everything
from engram.backbone.testing.experiments import plain_state
from engram.backbone.testing.workshop import Told
from engram.fewshot.episodes import kept
from engram.fewshot.incremental import experiment as module
from engram.fewshot.incremental.configs import IncrementalConfig, SessionOptions
from engram.fewshot.incremental.experiment import Incremental
from engram.fewshot.incremental.measures import Scores, scores, summary
from engram.fewshot.incremental.sessions import Sessions, view
from engram.fewshot.incremental.teen import calibrate, calibrated

MLP = {"dataset": "digits", "backbone": "mlp", "backbone_options": {"units": 64, "depth": 1}, "validation": 0.0}


class Run:
    """A trial that was run to its end in a folder of its own."""

    def __init__(self, folder, config, inputs=()):
        self.services = Told(folder, folder, dict(inputs))
        seed_everything(config.seed)
        self.experiment = Incremental(config, self.services)
        self.state = self.experiment.start()
        while self.experiment.step(self.state):
            pass
        self.result = self.experiment.finish(self.state)

    @property
    def metrics(self):
        return {name: value for name, value in self.result.metrics.items() if name != "train_seconds"}

    def features(self, split):
        return self.state.tables[split].rows


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Five digits from all their images, then one after another from five images each."""
    return Run(tmp_path_factory.mktemp("learned"), IncrementalConfig.resolve({**MLP, "epochs": 6}))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load("digits", {}, root=tmp_path_factory.mktemp("none"), validation=0.0)


def test_figures_of_a_made_up_table():
    base = torch.tensor([0, 1])
    answers, labels = torch.tensor([0, 0, 1, 2, 2, 0, 3, 3]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 2])
    found = scores(answers, labels, base)
    assert (found.accuracy, found.base, found.novel) == (5 / 8, 3 / 4, 2 / 4)
    assert found.harmonic == pytest.approx(0.6)
    assert scores(answers[:3], labels[:3], base).novel is None
    told = summary([Scores(0.95, 0.95, None), Scores(0.85, 0.9, 0.6), found])
    assert told["average_accuracy"] == pytest.approx((0.95 + 0.85 + 0.625) / 3)
    assert told["accuracy_drop"] == pytest.approx(32.5)
    assert {name: told[name] for name in ("accuracy", "base_accuracy", "novel_accuracy")} == {
        "accuracy": 0.625,
        "base_accuracy": 0.75,
        "novel_accuracy": 0.5,
    }


def test_a_classifier_that_forgets_all_new_classes_is_seen_in_the_harmonic_mean():
    labels = torch.arange(6).repeat_interleave(10)
    found = scores(labels.clamp(max=4), labels, torch.arange(5))
    assert (found.accuracy, found.harmonic) == (pytest.approx(50 / 60), 0.0)


def _by_hand(novel, base, share, scale):
    """TEEN, one number at a time."""

    def unit(vector):
        length = math.sqrt(math.fsum(x * x for x in vector))
        return [x / length for x in vector]

    known = [unit(vector) for vector in base]
    for vector in novel:
        new = unit(vector)
        weights = [math.exp(scale * math.fsum(a * b for a, b in zip(new, each, strict=True))) for each in known]
        mixed = [math.fsum(w * each[i] for w, each in zip(weights, known, strict=True)) for i in range(len(new))]
        length = math.sqrt(math.fsum(x * x for x in vector))
        yield [length * ((1 - share) * a + share * b) for a, b in zip(new, unit(mixed), strict=True)]


def test_teen_is_what_its_formula_says():
    random = torch.Generator().manual_seed(0)
    novel, base = (torch.randn(n, 7, generator=random, dtype=torch.float64) for n in (3, 4))
    wanted = torch.tensor(list(_by_hand(novel.tolist(), base.tolist(), 0.3, 16.0)), dtype=torch.float64)
    torch.testing.assert_close(calibrated(novel, base, 0.3, 16.0), wanted)
    torch.testing.assert_close(calibrated(novel, base, 0.0, 16.0), novel)


def test_calibrated_features_have_the_calibrated_means_and_base_ones_stay():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(20, 5, generator=random, dtype=torch.float64)
    labels = torch.tensor([7, 2, 9, 4]).repeat(5)
    base = torch.tensor([2, 9])
    moved = calibrate(features, labels, base, 0.5, 4.0)
    old = torch.isin(labels, base)
    assert torch.equal(moved[old], features[old])
    means = {label: features[labels == label].mean(0) for label in (2, 4, 7, 9)}
    wanted = calibrated(torch.stack([means[4], means[7]]), torch.stack([means[2], means[9]]), 0.5, 4.0)
    torch.testing.assert_close(torch.stack([moved[labels == label].mean(0) for label in (4, 7)]), wanted)
    torch.testing.assert_close(moved[labels == 4] - features[labels == 4], (wanted[0] - means[4]).expand(5, 5))


def test_every_class_comes_once_and_few_images_are_among_more(digits):
    more, fewer = (Sessions(SessionOptions(base_classes=4, ways=2, shots=n, seed=3), digits) for n in (9, 2))
    assert [len(group) for group in more.groups] == [4, 2, 2, 2]
    assert sorted(label for group in more.groups for label in group) == list(range(10))
    assert more.groups == fewer.groups != Sessions(SessionOptions(base_classes=4, ways=2), digits).groups
    assert Sessions(SessionOptions(class_order="sorted"), digits).groups[0] == (0, 1, 2, 3, 4)
    for session, group in enumerate(more.groups):
        labels = digits.train.labels[more.images[session]]
        assert set(labels.tolist()) == set(group)
        wanted = torch.bincount(digits.train.labels)[list(group)].tolist() if not session else [9, 9]
        assert labels.bincount(minlength=10)[list(group)].tolist() == wanted
        assert set(fewer.images[session].tolist()) <= set(more.images[session].tolist())


def test_the_network_sees_nothing_of_later_classes(digits):
    sessions = Sessions(SessionOptions(), digits)
    base = sessions.base()
    assert base.classes == tuple(digits.classes[label] for label in sorted(sessions.groups[0]))
    own = torch.isin(digits.train.labels, torch.tensor(sessions.groups[0]))
    ((images, _, _),) = digits.train.batches(own.nonzero().squeeze(1), 10_000, "cpu")
    ((seen, labels, _),) = base.train.batches(torch.arange(len(base.train)), 10_000, "cpu")
    pixels = images.double() / 255
    torch.testing.assert_close(base.mean.double(), pixels.mean((0, 2, 3)), rtol=1e-5, atol=0)
    assert not torch.equal(base.mean, digits.mean)
    assert torch.equal(seen, images)
    assert labels.unique().tolist() == [0, 1, 2, 3, 4]


def test_a_saved_network_knows_what_it_saw(digits):
    sessions = Sessions(SessionOptions(seed=1), digits)
    seen = view(digits, sessions.reference().options)
    counts, whole = seen.train.labels.bincount(minlength=10), digits.train.labels.bincount(minlength=10)
    assert all(counts[label] == (whole[label] if label in sessions.groups[0] else 5) for label in range(10))
    assert torch.equal(seen.test.labels, digits.test.labels)


def test_new_classes_are_learned_from_five_images(learned):
    rows = learned.result.tables["sessions"]
    assert [row["classes"] for row in rows] == [5, 6, 7, 8, 9, 10]
    assert rows[0]["test/novel_accuracy"] is None
    assert rows[0]["test/accuracy"] == rows[0]["test/base_accuracy"] > 0.9
    assert learned.metrics["test/novel_accuracy"] > 0.4  # chance is a tenth
    assert learned.metrics["test/accuracy"] == rows[-1]["test/accuracy"]
    assert learned.metrics["test/average_accuracy"] == pytest.approx(sum(row["test/accuracy"] for row in rows) / 6)
    confusion = torch.tensor(learned.result.figures["confusion"].counts)
    assert confusion.trace() / confusion.sum() == pytest.approx(learned.metrics["test/accuracy"])


def test_permuted_labels_of_new_images_leave_chance(learned):
    """With prototypes of mixed classes a new image is right by chance: one in five of those taken for a new class."""
    ours, found = learned.experiment, []
    sessions, features = ours.sessions, learned.features("train")
    labels = ours.base.whole.train.labels[sessions.shown]
    new, tested = sessions.session_of > 0, ours.base.whole.test.labels
    for seed in range(10):
        mixed = labels.clone()
        mixed[new] = labels[new][torch.randperm(int(new.sum()), generator=torch.Generator().manual_seed(seed))]
        head = ours.head(5, features, mixed)
        found.append(scores(head(learned.features("test")).argmax(1), tested, sessions.known(0)).novel)
    assert sum(found) / len(found) < 0.25 < learned.metrics["test/novel_accuracy"]


def test_the_saved_classifier_answers_as_it_did(learned, digits):
    model, made = load_model(learned.services.trial_dir / "model")
    assert (made.classes, made.head.name) == (tuple(digits.classes), "fewshot.prototype")
    assert score(model, digits.test, "cpu")["accuracy"] == learned.metrics["test/accuracy"]


def _from(learned, folder, **given):
    trained = {"base_classes": 5, "class_order": "shuffled", **MLP}
    config = IncrementalConfig.resolve({"from_trial": "learned", **given}, {"trained": trained})
    return Run(folder, config, {"trained": learned.services.trial_dir})


def test_a_trained_network_stays_as_it_is(learned, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "recall", lambda key: None)
    again = _from(learned, tmp_path)
    assert again.metrics == {name: value for name, value in learned.metrics.items() if name != "train/loss"}
    assert torch.equal(again.features("test"), learned.features("test"))
    assert not again.services.tables


def test_a_network_that_knows_new_classes_is_cautioned_against(learned, tmp_path):
    ((_, ((caution),)),) = _from(learned, tmp_path, seed=1).services.tables
    assert "trained on 2 of the classes that are new here" in str(caution["caution"])


def test_cosine_with_teen_is_the_published_code(learned, tmp_path):
    """By unit vectors of class means, those of new classes calibrated, and the largest cosine."""
    ours = _from(learned, tmp_path, classifier="cosine", teen=0.5)
    sessions, train = ours.experiment.sessions, ours.features("train")
    labels, base = ours.experiment.base.whole.train.labels[sessions.shown], sessions.known(0)
    means = normalize(torch.stack([train[labels == label].mean(0) for label in range(10)]), dim=1)
    novel = torch.tensor([label for label in range(10) if label not in base.tolist()])
    mixed = normalize((16 * means[novel] @ means[base].T).softmax(1) @ means[base], dim=1)
    means[novel] = 0.5 * means[novel] + 0.5 * mixed
    answers = (normalize(ours.features("test"), dim=1) @ normalize(means, dim=1).T).argmax(1)
    whole = ours.experiment.base.whole
    assert ours.metrics["test/accuracy"] == (answers == whole.test.labels).double().mean().item()
    plain = _from(learned, tmp_path / "plain", classifier="cosine")
    assert ours.metrics["test/novel_accuracy"] != plain.metrics["test/novel_accuracy"]


@pytest.mark.parametrize("classifier", ["fewshot.simpleshot", "fewshot.ridge", "fewshot.matching"])
def test_any_head_with_a_support_set_answers(learned, tmp_path, classifier):
    ours = _from(learned, tmp_path, classifier=classifier)
    assert ours.metrics["test/accuracy"] > 0.5
    model, _ = load_model(tmp_path / "model")
    assert score(model, ours.experiment.base.whole.test, "cpu")["accuracy"] == ours.metrics["test/accuracy"]


def test_it_goes_on_among_features_to_the_last_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "UNIT_SECONDS", 0.0)  # a batch a unit
    monkeypatch.setattr(kept, "recall", lambda key: None)
    config = IncrementalConfig.resolve({**MLP, "epochs": 0, "base_classes": 8})
    whole = Run(tmp_path, config)
    seed_everything(0)
    broken = Incremental(config, Told(tmp_path, tmp_path, {}))
    state = broken.start()
    assert broken.step(state) and not state.tables["train"].whole
    saved = plain_state(broken.state_dict(state), "its state")
    seed_everything(0)
    again = Incremental(config, Told(tmp_path, tmp_path, {}))
    fresh = again.start()
    again.load_state_dict(fresh, saved)
    assert fresh.tables["train"].done == state.tables["train"].done > 0
    while again.step(fresh):
        pass
    assert again.finish(fresh).metrics == whole.result.metrics


def test_recordings_and_spikes(tmp_path):
    """Frames go through as they are, to a network of spiking neurons, which another trial does not adapt again."""
    shapes = {"dataset": "moving-shapes", "dataset_options": {"samples": 90}, "validation": 0.0}
    net = {"backbone": "vgg-tiny", "backbone_options": {"width": 0.25}, "adapter": ("snn.spiking",)}
    net["adapter_options"] = {"spiking.threshold": 0.25}
    sizes = {"base_classes": 4, "ways": 2, "shots": 3}
    run = Run(tmp_path, IncrementalConfig.resolve({**shapes, **net, **sizes, "epochs": 1}))
    assert [row["classes"] for row in run.result.tables["sessions"]] == [4, 6]
    later = IncrementalConfig.resolve({**shapes, **net, **sizes, "epochs": 1, "classifier": "cosine"})
    other = Run(tmp_path / "later", later, {"trained": tmp_path})
    assert torch.equal(other.features("test"), run.features("test"))
    assert [each.name for each in load_model(tmp_path / "later" / "model")[1].adapters] == ["snn.spiking"]
    read = {**shapes, **sizes, "from_trial": "x", "adapter": ("snn.readout",), "backbone": "vgg-tiny"}
    again = Run(tmp_path / "read", IncrementalConfig.resolve(read), {"trained": tmp_path})
    assert [each.name for each in load_model(tmp_path / "read" / "model")[1].adapters] == ["snn.spiking", "snn.readout"]
    assert not torch.equal(again.features("test"), run.features("test"))


def test_what_cannot_be_is_said_at_once(digits):
    def refused(data=digits, **given):
        with pytest.raises(UserError) as found:
            Sessions(SessionOptions(**given), data)
        return str(found.value).splitlines()

    assert refused(base_classes=10)[0].startswith("--base-classes must be less than the 10 classes of digits")
    ways, shots = refused(base_classes=5, ways=2, shots=200)
    assert ways.startswith("--ways must be a divisor of the 5 classes that are left after --base-classes; got 2.")
    assert "got 200, and '0' (142 images), '1' (146 images)" in shots and "and 5 more" in shots
    lacking = replace(digits, test=digits.test.select((digits.test.labels != 7).nonzero().squeeze(1)))
    assert refused(lacking) == ["test images of every class of digits must be there; got none of '7'. Add some."]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"from_trial": "x", "lr": 0.1}, "--lr must be left out where the network is not trained"),
        ({"epochs": 0, "head": "cosine"}, "--head must be left out"),
    ],
)
def test_options_without_a_meaning_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        IncrementalConfig.resolve(given)
    assert IncrementalConfig.resolve({"from_trial": "x", "epochs": 2, "lr": 0.1}).lr == 0.1
    assert "--teen 0.1" in IncrementalConfig.resolve({"teen_scale": 2.0}).problems()[0]


def test_what_differs_after_the_base_session_shares_its_network(learned, tmp_path):
    first = IncrementalConfig.resolve({**MLP, "epochs": 6})
    assert not first.requires()
    later = IncrementalConfig.resolve({**MLP, "epochs": 6, "ways": 5, "shots": 9, "classifier": "cosine", "teen": 0.1})
    needed = later.requires()["trained"]
    assert (needed.experiment, needed.config) == ("fewshot.incremental", first)
    run = Run(tmp_path, later, {"trained": learned.services.trial_dir})
    assert torch.equal(run.features("test"), learned.features("test"))
    assert [row["classes"] for row in run.result.tables["sessions"]] == [5, 10]
    assert not run.services.tables


def test_heads_that_make_no_classifier_are_refused_while_planning():
    for head in ("fewshot.tim", "fewshot.maml"):
        (found,) = IncrementalConfig.resolve({**MLP, "classifier": head}).problems()
        assert found.startswith(
            f"--classifier must be one that makes a classifier of labelled images; got {head}. Use "
        )
        assert "fewshot.prototype" in found and "fewshot.tim" not in found.partition("Use ")[2]
