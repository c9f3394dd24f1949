"""``fewshot.enrol``: which pictures are enrolled and asked about, what is said of them, and what is saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engram.backbone.contract import Named
from engram.backbone.data.load import Data, load, load_disjoint
from engram.backbone.data.sets import MemorySplit
from engram.backbone.data.trained import load_as_trained
from engram.backbone.errors import UserError
from engram.backbone.measures.scoring import score
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import DataRef, Made
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.testing.workshop import Told
from engram.fewshot import enrol
from engram.fewshot.enrolling.answers import Answers
from engram.fewshot.enrolling.configs import EnrolConfig
from engram.fewshot.enrolling.enrolment import enrolment
from engram.fewshot.enrolling.experiment import Enrol
from engram.fewshot.enrolling.rejection import NONE
from engram.fewshot.head_options import PrototypeOptions
from engram.fewshot.heads.prototype import Prototype

GLYPHS = {"classes": 12, "held_out": 5, "drawings": 6, "size": 14}
ROOT = None


def split(labels, writers=None):
    count = len(labels)
    columns = {"original_index": torch.arange(count)} | ({} if writers is None else {"writer": torch.tensor(writers)})
    images = torch.randint(256, (count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return MemorySplit(images, torch.tensor(labels), columns)


def data_of(train, test, **more):
    names = tuple("abcdefgh"[: int(torch.cat([train.labels, test.labels]).max()) + 1])
    return Data("x", train, None, test, names, (1, 6, 6), torch.zeros(1), torch.ones(1), "f" * 64, **more)


def places(split):
    return split.columns["original_index"].tolist()


def test_without_a_test_part_all_others_are_asked_and_more_shots_keep_those_of_fewer():
    whole = split([0, 1] * 6)
    data = data_of(whole.select(torch.arange(9)), whole.select(torch.arange(9, 12)), held_out=True)
    few, more = enrolment(data, 2, seed=1), enrolment(data, 4, seed=1)
    assert sorted(places(few.train) + places(few.test)) == list(range(12))
    assert set(places(few.train)) < set(places(more.train)) and len(more.train) == 8
    assert few.train.labels.bincount().tolist() == [2, 2]
    assert places(enrolment(data, 2, seed=2).train) != places(few.train)


def test_a_test_part_is_what_is_asked():
    data = enrolment(data_of(split([0, 1] * 6), split([0, 1, 1])), 3, seed=0)
    assert len(data.train) == 6 and places(data.test) == [0, 1, 2]


def test_of_classes_of_their_own_those_of_the_test_part_are_enrolled():
    data = enrolment(data_of(split([0, 1] * 4), split([3, 5, 5, 3, 3]), disjoint=True), 1, seed=0)
    assert data.classes == ("d", "f") and data.train.labels.tolist() in ([0, 1], [1, 0])
    assert sorted(places(data.train) + places(data.test)) == list(range(5))


def test_nobody_who_drew_what_is_enrolled_is_asked():
    labels, writers = [0] * 8 + [1] * 8, [1, 1, 1, 2, 2, 3, 3, 4] * 2
    for seed in range(5):
        data = enrolment(data_of(split(labels, writers), split([0, 1], [9, 9]), held_out=True), 3, seed)
        drew, asked = (set(part.columns["writer"].tolist()) for part in (data.train, data.test))
        assert len(data.train) == 6 and not drew & asked
        assert set(places(data.test)) == {i for i, writer in enumerate(writers) if writer not in drew} | (
            {0, 1} if 9 not in drew else set()
        )


@pytest.mark.parametrize(
    ("train", "shots", "said"),
    [
        (split([0, 0, 0, 1, 2, 2]), 2, ["of at least 2 pictures (--shots); got 'b' has 1.", "got 'c' has 0."]),
        (split([0, 0, 0]), 2, ["the classes to enrol must be at least two; got a alone."]),
        (split([0, 0, 1, 1], [1, 1, 1, 1]), 1, ["another writer where writers are known; got 'a' has 0, 'b' has 0."]),
    ],
)
def test_too_few_pictures_are_said_all_at_once(train, shots, said):
    with pytest.raises(UserError) as error:
        enrolment(data_of(train, train.select(torch.arange(0)), held_out=True), shots, 0)
    lines = str(error.value).splitlines()
    assert len(lines) == len(said) and all(each in line for each, line in zip(said, lines, strict=True))


def answers(ways=4, shots=3, asked=30, reject=0.1, seed=0):
    random = torch.Generator().manual_seed(seed)
    means = 1.5 * torch.randn(ways, 5, generator=random)
    known, labels = torch.arange(ways).repeat(shots), torch.arange(asked) % ways
    support, queries = (means[of] + torch.randn(len(of), 5, generator=random) for of in (known, labels))
    return Answers(Prototype(5, 1, PrototypeOptions()), support, known, queries, labels, ways, reject)


def test_the_threshold_knows_no_picture_that_is_asked():
    one = answers()
    assert one.threshold == replace(one, queries=9 * one.queries, labels=one.labels.flip(0)).threshold
    assert one.threshold != replace(one, support=1.5 * one.support).threshold
    assert replace(one, reject=None).rejected is None


def test_margins_rank_what_is_hard_and_say_for_what_it_might_be_taken():
    found = answers()
    assert ((found.margins > 0) == found.right).all() and 0 < found.right.sum() < 30
    assert (found.rivals != found.labels).all()
    assert torch.equal(found.rivals[~found.right], found.logits.argmax(1)[~found.right])
    rows = torch.tensor([3, 11])
    near = found.nearest(rows, found.rivals[rows])
    assert torch.equal(found.known[near], found.rivals[rows])
    for row, place in zip(rows.tolist(), near.tolist(), strict=True):
        far = (found.support - found.queries[row]).norm(dim=1)
        assert far[place] == far[found.known == found.rivals[row]].min()


def test_classes_left_out_in_turn_are_rejected_as_if_nobody_had_enrolled_them():
    found = answers()
    net = nn.Flatten()
    for number, share in enumerate(found.rejected_unknown()):
        stays = found.known != number
        made = enrol(net, found.support[stays][:, :, None, None], found.known[stays].tolist(), reject=0.1)
        said = made.predict(found.queries[found.labels == number][:, :, None, None])
        assert share == pytest.approx(sum(answer == NONE for answer in said) / len(said))
    made = enrol(net, found.support[:, :, None, None], found.known.tolist(), reject=0.1)
    said = made.predict(found.queries[:, :, None, None])
    assert [answer == NONE for answer in said] == found.rejected.tolist()
    assert answers(ways=2).rejected_unknown() == []  # one class alone tells nothing apart


@pytest.fixture
def network(tmp_path):
    """``network(**record)``: the folder of a trial with a small network."""

    def make(folder="trained", **record):
        torch.manual_seed(0)
        model = build("mlp", {"units": 16}, (1, 14, 14), 2, torch.tensor([0.2]), torch.tensor([0.3]))
        registry = Registry.discover()
        made = Made(
            backbone=in_full(registry, "backbones", "mlp", {"units": 16}),
            head=Named("linear", 1, {}),
            classes=("x", "y"),
            in_shape=(1, 14, 14),
            **record,
        )
        save_model(tmp_path / folder / "model", model, made)
        return tmp_path / folder

    return make


@pytest.fixture
def run(tmp_path):
    def whole(trained=None, inherited=None, **given):
        given = {"dataset": "glyphs", "dataset_options": GLYPHS, **given}
        config = EnrolConfig.resolve(
            {**given, **({} if trained is None else {"from_trial": "x"})},
            {} if trained is None else {"trained": inherited or {}},
        )
        assert not config.problems()
        folder = tmp_path / f"trial{len([*tmp_path.glob('trial*')])}"
        folder.mkdir()
        work = Enrol(config, Told(folder, tmp_path, {} if trained is None else {"trained": trained}))
        state = work.start()
        while work.step(state):
            pass
        return work, state, work.finish(state)

    return whole


def test_what_is_saved_is_the_classifier_and_knows_its_pictures(run, network, tmp_path):
    work, state, result = run(network(), shots=2)
    assert len(state.data.classes) == 5 and result.metrics["images"] == len(state.data.test)
    model, made = load_model(work.services.trial_dir / "model")
    assert made.classes == state.data.classes and made.head.name == "fewshot.prototype"
    data, outputs = load_as_trained(made, root=tmp_path, download=False)
    assert outputs.tolist() == list(range(5))
    for part in ("train", "test"):
        ours, again = getattr(state.data, part), getattr(data, part)
        assert torch.equal(ours.labels, again.labels) and places(ours) == places(again)
    assert score(model, data.test, "cpu")["accuracy"] == result.metrics["test/accuracy"] == made.test_accuracy
    images = next(data.test.batches(torch.arange(4), 4, "cpu"))[0]
    python = enrol(
        load_model(network("again") / "model")[0], _pixels(data.train), [made.classes[i] for i in data.train.labels]
    )
    assert torch.allclose(
        python(images), model(images)[:, [made.classes.index(name) for name in python.classes]], atol=1e-3
    )


def _pixels(split):
    return next(split.batches(torch.arange(len(split)), len(split), "cpu"))[0]


def test_classes_dealt_out_in_training_are_those_enrolled(run, network, tmp_path):
    data = load_disjoint("digits", {}, root=tmp_path, validation=0.2)
    ref = DataRef(name="digits", options={}, fingerprint=data.fingerprint, validation=0.2, disjoint=True)
    big = {"dataset": "digits", "dataset_options": {}}
    torch.manual_seed(0)
    registry = Registry.discover()
    model = build("mlp", {"units": 8}, data.in_shape, 2, data.mean, data.std)
    options = in_full(registry, "backbones", "mlp", {"units": 8})
    for name, reference in (("dealt", ref), ("all", replace(ref, disjoint=False))):
        made = Made(
            backbone=options, head=Named("linear", 1, {}), classes=("0", "1"), in_shape=data.in_shape, data=reference
        )
        save_model(tmp_path / name / "model", model, made)
    work, state, _ = run(tmp_path / "dealt", big, **big, shots=3)
    assert [data.classes.index(name) for name in state.data.classes] == data.test.labels.unique().tolist()
    assert not state.cautions
    work, state, _ = run(tmp_path / "all", big, **big, shots=3)
    assert state.data.classes == data.classes
    assert state.cautions[0]["caution"].startswith("The network was trained on pictures of 2 of these classes (0, 1)")
    assert work.services.tables


def test_a_folder_of_the_users_own(run, network, tmp_path):
    noise = np.random.default_rng(0)
    for number in range(24):
        label = number % 3
        pixels = noise.integers(0, 60, (14, 14), dtype=np.uint8)
        pixels[4 * label : 4 * label + 4] += 150
        path = tmp_path / "mine" / f"kind{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    mine = {"dataset": f"folder:{tmp_path / 'mine'}", "dataset_options": {"columns": "file_name"}}
    _, _, result = run(network(), **mine, shots=3)
    assert result.metrics["test/accuracy"] == 1.0 and result.metrics["images"] == 15
    assert [row["class"] for row in result.tables["classes"]] == ["kind0", "kind1", "kind2"]
    assert all(row["picture"].endswith(".png") for row in result.tables["hard pictures"])
    assert result.figures["hard"].pictures[0].shape == (14, 3 * 14 + 2 * 4)
    assert result.figures["confusion"].counts == [[5, 0, 0], [0, 5, 0], [0, 0, 5]]
    assert set(result.metrics) >= {"test/known_rejected", "test/unknown_rejected"}
    _, _, alone = run(network(), **mine, shots=1)
    assert "test/known_rejected" not in alone.metrics and "none of these" not in alone.tables
    with pytest.raises(UserError, match=r"images of folder:.* must be 1x14x14 like those trained on; got 1x8x8. Pass"):
        run(network(), dataset=mine["dataset"], dataset_options={"size": 8})


def test_weights_from_a_file(run, tmp_path, monkeypatch):
    code = tmp_path / "mine.py"
    code.write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(196, 8), nn.ReLU(), nn.Linear(8, 7))\n"
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(196, 8), nn.ReLU(), nn.Linear(8, 7))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    monkeypatch.setenv("ENGRAM_WEIGHTS", str(tmp_path / "net.pt"))
    monkeypatch.setenv("ENGRAM_CODE", f"{code}:Net")
    from engram.backbone.weights import WEIGHTS

    given = {"backbone": f"{code}:Net", "weights": WEIGHTS.known_as(str(tmp_path / "net.pt"))}
    _, state, _ = run(**given, shots=2)
    assert torch.equal(state.network.model.backbone.net[1].weight, net[1].weight)
    assert state.tables["queries"].rows.shape == (len(state.data.test), 8)


def test_killed_after_any_unit_it_comes_to_the_same(run, network, tmp_path, monkeypatch):
    monkeypatch.setattr("engram.fewshot.enrolling.experiment.UNIT_SECONDS", 0.0)
    monkeypatch.setattr("engram.backbone.measures.scoring.SCORING_BATCH", 7)
    work, whole, result = run(network())
    state = work.start()
    work.step(state)
    work.step(state)
    saved, again = work.state_dict(state), work.start()
    work.load_state_dict(again, saved)
    assert again.tables["support"].done == 14
    while work.step(again):
        pass
    assert work.finish(again).metrics == result.metrics and torch.equal(
        again.tables["queries"].rows, whole.tables["queries"].rows
    )


def test_a_head_that_centres_features_sees_those_of_the_training_images(run, network, tmp_path):
    data = load("digits", {}, root=tmp_path)
    torch.manual_seed(0)
    model = build("mlp", {"units": 8}, data.in_shape, 10, data.mean, data.std)
    options = in_full(Registry.discover(), "backbones", "mlp", {"units": 8})
    head = Named("linear", 1, {})
    ref = DataRef(name="digits", options={}, fingerprint=data.fingerprint, validation=0.1)
    made = Made(backbone=options, head=head, classes=data.classes, in_shape=data.in_shape, data=ref)
    save_model(tmp_path / "t" / "model", model, made)
    digits = {"dataset": "digits", "dataset_options": {}}
    work, _, _ = run(tmp_path / "t", digits, **digits, head="fewshot.simpleshot")
    kept = load_model(work.services.trial_dir / "model")[0]
    wanted = model.eval().backbone(model.normalise(_pixels(data.train))).mean(0)
    assert torch.allclose(kept.head.base_mean, wanted, atol=1e-5)
    with pytest.raises(UserError, match=r"fewshot\.simpleshot must be told the mean feature of the training classes"):
        run(network(), head="fewshot.simpleshot")  # nobody knows what that one was trained on


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "--from must be a trained trial, or --backbone with --weights; got nothing."),
        ({"backbone": "mlp"}, "--weights must be given beside --backbone; got nothing."),
        ({"from_trial": "x", "shots": 1, "reject": 0.1}, "--reject must be left out with --shots 1"),
        ({"from_trial": "x", "head": "fewshot.maml"}, "--head must be one that makes a classifier of labelled images"),
    ],
)
def test_options_that_do_not_go_together(given, said):
    problems = EnrolConfig.resolve(given).problems()
    assert len(problems) == 1 and problems[0].startswith(said)
    with pytest.raises(UserError, match="--weights must be left out beside --from"):
        EnrolConfig.resolve({"from_trial": "x", "weights": "y"}, {"trained": {"backbone": "mlp"}})
