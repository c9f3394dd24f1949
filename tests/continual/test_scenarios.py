"""Streams: which images make up which task, under which labels, and nothing of it by chance from outside."""

import re
from dataclasses import replace

import pytest
import torch

from engram.backbone.data.load import load
from engram.backbone.data.sets import MemorySplit
from engram.backbone.data.views import in_pass
from engram.backbone.errors import UserError
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.stream import Stream, blurred, faded
from engram.continual.tasks.transforms import noisy

FREE = {"scenario": "task-free", "strategies": ("continual.er",)}
SCENARIOS = ["task", "domain", "class", "online", "blurry", "task-free", "permuted", "rotated", "coloured", "noisy"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load("digits", {}, root=tmp_path_factory.mktemp("none"), validation=0.1)


@pytest.fixture
def stream(digits):
    return lambda scenario, tasks=3, **options: Stream(
        StreamConfig.resolve({"scenario": scenario, "tasks": tasks, **options}), digits, "cpu"
    )


def images_of(split):
    return next(split.batches(torch.arange(len(split)), len(split), "cpu"))[:2]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_makes_a_stream_and_the_global_random_state_has_no_part_in_it(stream, scenario):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [images_of(stream(scenario).task(index).train) for index in range(3)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again = [images_of(stream(scenario).task(index).train) for index in (2, 1, 0)][::-1]
    other = [images_of(stream(scenario, seed=7).task(index).train) for index in range(3)]
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS[:6])
def test_every_image_and_class_comes_exactly_once(stream, digits, scenario):
    ours = stream(scenario)
    for part in ("train", "validation", "test"):
        held = getattr(digits, part)
        splits = [ours.part(index, part) for index in range(3)]
        assert sum(map(len, splits)) == len(held)
        assert [split.columns["task"].unique().tolist() for split in splits] == [[0], [1], [2]]
        places = torch.cat([split.columns["original_index"] for split in splits]).sort().values
        assert torch.equal(places, held.columns["original_index"].sort().values)
        together = torch.cat([images_of(split)[0] for split in splits]).flatten(1).sum(1).sort().values
        assert torch.equal(together, images_of(held)[0].flatten(1).sum(1).sort().values)
    assert [len(group) for group in ours.groups] == [4, 3, 3]  # the remainder is kept
    assert sorted(sum(ours.groups, ())) == list(range(10))


@pytest.mark.parametrize(
    ("scenario", "head", "width", "last"),
    [
        ("task", None, 10, None),
        ("class", None, 10, None),
        ("domain", None, 4, (0, 1, 2)),
        ("domain", "multi", 10, (7, 8, 9)),
        ("permuted", None, 10, tuple(range(10))),
        ("permuted", "multi", 30, tuple(range(20, 30))),
    ],
)
def test_outputs_and_labels(stream, scenario, head, width, last):
    ours = stream(scenario, head=head)
    assert ours.width == len(ours.names) == len(set(ours.names)) == width
    assert ours.task(2).outputs == (last or ours.groups[2])
    assert set(ours.task(2).test.labels.tolist()) == set(ours.task(2).outputs)


def test_labels_follow_the_images(stream, digits):
    ours = stream("class", class_order="sorted")
    images, labels = images_of(digits.test)
    mine, theirs = images_of(ours.task(1).test), (labels >= 4) & (labels < 7)
    assert torch.equal(mine[0], images[theirs]) and torch.equal(mine[1], labels[theirs])


def test_a_permutation_moves_pixels_and_keeps_them(stream):
    plain, moved = (images_of(stream("permuted").task(index).train)[0].flatten(1) for index in (0, 1))
    assert not torch.equal(plain, moved)
    assert torch.equal(plain.sort(1).values, moved.sort(1).values)


def test_pictures_are_tinted_in_three_channels(stream):
    ours = stream("coloured")
    assert ours.in_shape == ours.task(0).train.in_shape == (3, 8, 8)
    shares = [images_of(ours.task(i).test)[0].double().mean((0, 2, 3)) for i in range(3)]
    assert all(float(each.max() / each.min()) > 2 for each in shares)
    assert len({tuple((each / each.max()).round(decimals=1).tolist()) for each in shares}) == 3


def test_noise_is_for_grey_levels_and_not_for_counts_of_events(digits):
    with pytest.raises(UserError, match="--scenario noisy must be of grey levels or colours; got counts of events"):
        Stream(StreamConfig.resolve({"scenario": "noisy"}), replace(digits, frames=4), "cpu")


@pytest.mark.parametrize("refused", ["noisy", "coloured"])
def test_a_remedy_for_events_is_not_refused_itself(digits, refused):
    images = digits.train.images[:, None].expand(-1, 4, 2, -1, -1)  # recordings of two polarities
    split = MemorySplit(images, digits.train.labels)
    events = replace(digits, train=split, validation=None, test=split, in_shape=(2, 8, 8), frames=4)
    with pytest.raises(UserError) as error:
        Stream(StreamConfig.resolve({"scenario": refused}), events, "cpu")
    (advised,) = re.findall(r"such as (\w+)", str(error.value))
    assert Stream(StreamConfig.resolve({"scenario": advised}), events, "cpu").task(1).train.labels.numel()


@pytest.mark.parametrize(("part", "remedy"), [("test", "fewer --tasks"), ("validation", "Raise --validation")])
def test_a_task_without_images_to_test_is_refused(digits, part, remedy):
    split = getattr(digits, part)
    lacking = replace(digits, **{part: split.select((split.labels != 3).nonzero().squeeze(1))})
    with pytest.raises(UserError, match=f"{part} images of task 4, 3, must be at least one; got none. .*{remedy}"):
        Stream(StreamConfig.resolve({"tasks": 10, "class_order": "sorted"}), lacking, "cpu")
    assert len(Stream(StreamConfig.resolve({"tasks": 5, "class_order": "sorted"}), lacking, "cpu")) == 5


PARTS = ("train", "validation", "test")


def test_noise_grows_from_task_to_task():
    grey, places = torch.full((200, 1, 8, 8), 128, dtype=torch.uint8), torch.arange(200)
    for part in PARTS:
        spread = [(noisy(0, task, 5, part)(grey, places).float() - 128).std().item() for task in range(5)]
        assert spread[0] == 0 and spread[1] == pytest.approx(255 / 8, rel=0.02)
        assert spread[1] < spread[2] < spread[3] < spread[4] < 128  # black and white are the ends
    assert torch.equal(noisy(0, 0, 1, "train")(grey, places), grey)


def test_no_two_pictures_have_the_same_noise_whichever_part_they_are_of(digits):
    """With 64 patterns a task for all its pictures, a network learns the patterns and recognises them in tests."""
    grey = MemorySplit(torch.full((100, 1, 8, 8), 128, dtype=torch.uint8), torch.zeros(100, dtype=torch.long))
    ours = Stream(
        StreamConfig.resolve({"scenario": "noisy", "tasks": 3}), replace(digits, **dict.fromkeys(PARTS, grey)), "cpu"
    )
    looks = [in_pass(ours.part(index, "train"), draw) for index in (1, 2) for draw in (0, 1, 7)]
    looks += [ours.part(index, part) for index in (1, 2) for part in ("validation", "test")]
    noise = torch.stack([images_of(split)[0].float().flatten(1) - 128 for split in looks])
    likeness = noise.flatten(0, 1).corrcoef().fill_diagonal_(0)  # of any two of the 1,000 pictures
    assert likeness.abs().max() < 0.7 and likeness.square().mean() == pytest.approx(1 / 64, rel=0.1)
    common = noise.mean(1).std(1) / noise.flatten(1).std(1)  # what the pictures of a look have in common
    assert (common < 0.13).all()


def test_noise_of_tests_stays_however_they_are_read_and_that_of_training_changes_with_the_pass(digits):
    ours, again = (Stream(StreamConfig.resolve({"scenario": "noisy", "tasks": 3}), digits, "cpu") for _ in range(2))
    tests = images_of(ours.tests(2))[0]
    for split in (again.tests(2), again.shown(2, "test")):
        one_by_one = torch.cat([x for x, _, _ in split.batches(torch.arange(len(split)), 7, "cpu")])
        assert torch.equal(one_by_one, tests)
    chosen = torch.tensor([30, 2, 17])
    assert torch.equal(images_of(again.shown(2, "test").select(chosen))[0], tests[chosen])
    first, second = (in_pass(ours.task(2).train, draw) for draw in (0, 1))
    assert not torch.equal(images_of(first)[0], images_of(second)[0])
    assert torch.equal(images_of(first)[0], images_of(in_pass(again.task(2).train, 0))[0])
    assert all(in_pass(split, 3) is split for split in (ours.tests(2), digits.train))


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each != "noisy"])
def test_what_a_task_looks_like_is_the_same_in_training_and_in_tests(digits, scenario):
    """An order of pixels, an angle, a tint is the task itself; only noise is of a picture and an exposure."""
    picture = digits.train.images[:1]
    labels = {part: getattr(digits, part).labels for part in PARTS}
    same = {part: MemorySplit(picture.expand(len(each), -1, -1, -1), each) for part, each in labels.items()}
    ours = Stream(StreamConfig.resolve({"scenario": scenario, "tasks": 3}), replace(digits, **same), "cpu")
    for index in range(3):
        looks = [images_of(ours.part(index, part))[0] for part in PARTS]
        assert all(torch.equal(images, looks[0][:1].expand_as(images)) for images in looks)


def test_tests_under_noise_measure_what_new_exposures_would(learn):
    ours = learn("finetune", scenario="noisy", tasks=2, epochs=6)
    test, loudest = ours.state.stream.data.test, ours.state.matrices.accuracy[-1][1]
    drawn = torch.randn((20, *test.images.shape), generator=torch.Generator().manual_seed(9)) * 127.5
    with torch.no_grad():
        seen = [(test.images + noise).round().clamp(0, 255).to(torch.uint8) for noise in drawn]
        new = [(ours.model.eval()(x).argmax(1) == test.labels).float().mean().item() for x in seen]
    center, spread = torch.tensor(new).mean().item(), torch.tensor(new).std().item()
    assert loudest == pytest.approx(center, abs=3 * spread) and spread < 0.03


@pytest.mark.parametrize("strategy", ["finetune", "joint", "icarl"])
def test_noise_of_a_run_that_was_broken_off(learn, resume, strategy):
    options = {"scenario": "noisy", "head": "multi", "epochs": 2, "tasks": 2}
    assert torch.equal(learn(strategy, **options).weights(), resume(60, strategy, **options).weights())


def test_blurry_shares():
    owner = torch.arange(3).repeat_interleave(2000)
    parts = blurred(owner, 3, 0.3, torch.Generator().manual_seed(0))
    for index, part in enumerate(parts):
        shares = torch.bincount(owner[part], minlength=3) / len(part)
        assert shares[index] == pytest.approx(0.7, abs=0.03)
        assert shares.sum() - shares[index] == pytest.approx(0.3, abs=0.03) and shares.min() > 0.12


def test_tasks_fade_into_each_other_linearly():
    owner = torch.arange(3).repeat_interleave(20_000)
    order = torch.cat(faded(owner, 3, 0.4, torch.Generator().manual_seed(0)))
    came = owner[order].double()
    ramp = came[16_000:24_000] > 0.5  # 0.4 of a task around the first boundary
    quarters = [float(part.double().mean()) for part in ramp.split(2000)]
    assert quarters == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8], abs=0.03)
    assert (came[:16_000] == 0).all() and (came[24_000:36_000] == 1).all()


def test_images_beyond_the_ends_of_a_fading_stream_come_in_no_order():
    parts = faded(torch.arange(3).repeat_interleave(2000), 3, 0.9, torch.Generator().manual_seed(0))
    for beginning in (parts[0], parts[-1].flip(0)):
        assert 20 < int((beginning[:50].diff() > 0).sum()) < 35


def test_a_fading_stream_of_one_task_is_shuffled_all_the_same(stream, digits):
    labels = stream("task-free", tasks=1, strategies=("continual.er",)).task(0).train.labels
    assert not torch.equal(labels, digits.train.labels)
    assert torch.equal(labels.bincount(), digits.train.labels.bincount())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scenario": "class", "tasks": 11}, "--tasks must be at most 10 for 10 classes; got 11."),
        ({"scenario": "task", "tasks": 6}, "--tasks must be at most 5 for 10 classes, two for each; got 6."),
    ],
)
def test_too_many_tasks(stream, options, said):
    with pytest.raises(UserError) as error:
        stream(**options)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"iterations": 5, "epochs": 5}, "--epochs must be left out beside --iterations; got 5."),
        ({"ema": 0.9, "strategies": ("continual.hat",), "scenario": "task"}, "--ema must be 0 for hat, which computes"),
        ({"ema": 0.9, "head": "prototype"}, "--ema must be 0 for --head prototype, whose answers"),
        ({"ema": 0.9, "connectivity": 3}, "--ema must be 0 for --connectivity"),
        ({"label_smoothing": 0.1, "strategies": ("continual.icarl",)}, "--label-smoothing must be left out for icarl"),
        (
            {"label_smoothing": 0.1, "strategies": ("avalanche:Replay",)},
            "--label-smoothing must be left out",
        ),
        ({"optimizer": "muon", "strategies": ("avalanche:Replay",)}, "--optimizer must be adamw or sgd for avalanche"),
        ({"from_trial": "x", "normalise": False}, "--normalise must be left out beside --from"),
        ({"scenario": "online", "epochs": 2}, "a single pass must be what --scenario online makes; got --epochs 2."),
        ({"strategies": ("continual.xdg",)}, "--head must be multi for xdg"),
        ({"strategies": ("continual.joint", "continual.si")}, "--strategies must leave joint alone; got joint, si."),
        ({"strategies": ("continual.si",), "scenario": "task-free"}, "without task boundaries"),
        ({"strategies": ("continual.xdg", "continual.er"), "scenario": "task"}, "must not mix xdg"),
        ({"scenario": "blurry", "head": "multi"}, "--head must be another one for --scenario blurry"),
        ({"scenario": "task-free", "head": "growing"}, "--head must be another one for --scenario task-free"),
        ({"scenario": "domain", "head": "growing"}, "--head must be single or multi for --scenario domain"),
        ({"scenario": "rotated", "head": "prototype"}, "--head must be single or multi for --scenario rotated"),
        ({"strategies": ("avalanche:PackNet",)}, "--head must be multi for avalanche:PackNet"),
        (
            {
                "scenario": "task-free",
                "strategies": ("continual.er",),
                "strategies_options": {"er.selection": "herding"},
            },
            "--strategies.er.selection must do without task boundaries for --scenario task-free; got herding.",
        ),
        (
            {**FREE, "strategies_options": {"er.weighting": "tasks"}},
            "--strategies.er.weighting must do without task boundaries for --scenario task-free; got tasks.",
        ),
        (
            {"connectivity": 5, "head": "prototype"},
            "--connectivity must be 0 where answers do not follow",
        ),
        ({"connectivity": 5, "strategies": ("continual.icarl",)}, "from the weights alone; got icarl."),
        ({"strategies": ("avalanche:Naive",), "reset_optimizer": True}, "--reset-optimizer must be left out for avala"),
        (
            {"strategies": ("avalanche:Replay",), "flip": "random"},
            "--flip must be none for avalanche:Replay; got random.",
        ),
        (
            {"strategies": ("avalanche:Replay",), "head": "prototype"},
            "--head must be single or multi or growing for avalanche:Replay",
        ),
        ({"strategies": ("avalanche:DER",), "scenario": "task"}, "got multi. Use continual.der, or --head single."),
        ({"strategies": ("avalanche:DER",), "head": "growing"}, "--head must be single for avalanche:DER"),
        ({"strategies": ("avalanche:Replay",), "weight_decay": 0.1}, "--weight-decay must be left out for avalanche"),
        ({"strategies": ("avalanche:ICaRL",), "scenario": "task"}, "got multi. Use continual.icarl, or --head single."),
        (
            {"strategies": ("avalanche:GSS_greedy",), "scenario": "task"},
            "got multi. Use continual.er, or --head single.",
        ),
        (
            {"strategies": ("avalanche:PackNet",), "scenario": "task", "iterations": 5},
            "--iterations must be left out for avalanche:PackNet",
        ),
        (
            {"strategies": ("continual.agem",), "buffer": 4},
            "--buffer must be at least 5 for agem, one for each task; got 4.",
        ),
        (
            {"strategies": ("continual.lwf", "continual.er-ace")},
            "weighs the loss of the task anew; got lwf and er-ace.",
        ),
        ({"strategies": ("continual.lwf", "continual.hat"), "scenario": "task"}, "with such a copy; got lwf"),
        ({"strategies": ("continual.icarl",), "scenario": "permuted"}, "--scenario must bring new classes for icarl"),
        ({"strategies": ("continual.icarl",), "scenario": "blurry"}, "--scenario must bring new classes for icarl"),
        ({"scenario": "task-free", "head": "prototype"}, "--head prototype must be left out for --scenario task-free"),
        (
            {"scenario": "task-free", "reset_optimizer": True},
            "--reset-optimizer must be left out for --scenario task-free",
        ),
        *[
            (
                {"strategies": (f"continual.{name}",), "strategies_options": options, "objective": "irm"},
                f"--objective must be a mean over rows for {name}, which weighs them; got irm. Use cross-entropy, or "
                "another strategy.",
            )
            for name, options in (("er-ace", {}), ("er", {"er.weighting": "tasks"}), ("dgr", {}), ("bi-r", {}))
        ],
        ({"strategies": ()}, "--strategies must be at least one; got none."),
    ],
)
def test_combinations_that_make_no_sense(options, said):
    with pytest.raises(UserError) as caught:
        raise UserError("\n".join(StreamConfig.resolve(options).problems()))
    assert said in str(caught.value)


def test_what_has_no_meaning_makes_no_other_configuration():
    plain = StreamConfig.resolve({"scenario": "permuted"})
    assert StreamConfig.resolve({"scenario": "permuted", "buffer": 500, "blur": 0.5, "class_order": "sorted"}) == plain
    for options in ({"buffer": 500}, {"blur": 0.5}, {"class_order": "sorted"}):
        blurry = {"scenario": "blurry", "strategies": ("continual.er",)}
        assert StreamConfig.resolve({**blurry, **options}) != StreamConfig.resolve(blurry)


def test_a_head_that_is_not_told_the_task_is_pointed_out():
    (caution,) = StreamConfig.resolve({"scenario": "task", "head": "single"}).cautions()
    assert caution.startswith("--head single has nothing to tell it an image's task with")
    _, more = StreamConfig.resolve({"scenario": "task", "head": "growing", "strategies": ("continual.si",)}).cautions()
    assert more.startswith("si is known to fail")


def test_what_is_known_to_fail_is_said_and_not_refused():
    config = StreamConfig.resolve({"strategies": ("continual.ewc",), "scenario": "class"})
    assert not config.problems()
    assert config.cautions()[0].startswith("ewc is known to fail when classes are new")
    reference = StreamConfig.resolve({"strategies": ("avalanche:EWC",), "scenario": "class"})
    assert reference.cautions()[0].startswith("avalanche:EWC is known to fail when classes are new")
    assert not StreamConfig.resolve({"strategies": ("avalanche:Replay",), "scenario": "class"}).cautions()
    assert not StreamConfig.resolve({"strategies": ("continual.ewc",), "scenario": "task"}).cautions()
    assert not StreamConfig.resolve({"strategies": ("continual.si", "continual.er"), "scenario": "class"}).cautions()
