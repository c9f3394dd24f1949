import copy
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.recompute import recomputed
from engram.backbone.saved.states import load_latest, save_state
from engram.backbone.seeding import generator
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions

ALL = {
    **{"flip": "random", "translate": 1, "cutout": 3, "occlude": 0.3, "noise": 0.1, "randaugment": 1},
    **{"ema": 0.8, "clip": 0.5, "label_smoothing": 0.1, "l2": 0.01},
}


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# --- the loop against one written out by hand ------------------------------------------------------------------------


def test_a_run_by_hand(trainer, train):
    ours = trainer(label_smoothing=0.2, momentum=0.0, weight_decay=0.0, warmup=0.5)
    model, split = copy.deepcopy(ours.progress.model), ours.data
    rows, step = [], 0
    for epoch in range(2):
        order, losses = torch.randperm(50, generator=generator(5, "order", epoch)), []
        for start in (0, 16, 32, 48):  # 50 images are four batches; the last one holds two
            chosen = order[start : start + 16]
            logits = model(split.images[chosen].contiguous(memory_format=torch.channels_last))
            target = F.one_hot(split.labels[chosen], 3) * 0.8 + 0.2 / 3
            loss = -(target * logits.log_softmax(1)).sum(1).mean()
            done = (step + 1) / 9
            rate = 0.05 * (done / 0.5 if done < 0.5 else (1 - done) / 0.5)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for p, g in zip(model.parameters(), gradients, strict=True):
                    p -= rate * g
            step += 1
            losses.append(loss.item() * len(chosen))
        rows.append((sum(losses) / 50, rate))
    for got, (loss, rate) in zip(train(ours), rows, strict=True):
        assert got["train/loss"] == pytest.approx(loss, rel=1e-4)
        assert got["lr"] == pytest.approx(rate)
    for p, q in zip(ours.progress.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_the_average_by_hand(trainer):
    ours, want = trainer(ema=0.7, options={"normalisation": "batch"}), None
    while not ours.done:
        ours.advance(0)
        now = weights(ours.progress.model)
        want = (
            now if want is None else {n: w.lerp(now[n], 0.3) if w.is_floating_point() else w for n, w in want.items()}
        )
    got = ours.scored_model.state_dict()
    assert any(not torch.equal(got[name], value) for name, value in ours.progress.model.state_dict().items())
    for name, value in want.items():
        if value.is_floating_point():
            torch.testing.assert_close(got[name], value, msg=name)


def test_without_an_average_the_model_itself_is_scored(trainer):
    ours = trainer()
    assert ours.scored_model is ours.progress.model


def test_a_training_lowers_the_loss(trainer, train):
    rows = train(trainer(epochs=15, optimizer="adamw", lr=0.01))
    assert rows[-1]["train/loss"] < 0.1 < rows[0]["train/loss"]
    assert len(rows) == 15


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_same_seed_same_numbers_other_seed_others(trainer, optimizer, train):
    ends = [trainer(optimizer=optimizer, seed=seed, **ALL) for seed in (1, 1, 2)]
    rows = [train(each) for each in ends]
    assert rows[0] == rows[1] != rows[2]
    same(*(weights(each.scored_model) for each in ends[:2]))


def test_the_global_random_state_before_does_not_matter(trainer, train):
    ends = []
    for seed in (3, 4):
        each = trainer("mlp", {"dropout": 0.5}, **ALL)
        torch.manual_seed(seed)
        train(each)
        ends.append(weights(each.scored_model))
    same(*ends)


@pytest.mark.parametrize(
    "change",
    [
        {"flip": "alternate"}, {"flip": "random"}, {"translate": 2}, {"translate": 2, "border": "black"},
        {"affine": 0.3}, {"elastic": 1.0}, {"cutout": 4}, {"noise": 0.2}, {"occlude": 0.3}, {"randaugment": 2},
        {"clip": 0.01}, {"l2": 0.01},
        {"label_smoothing": 0.1}, {"schedule": "cosine"}, {"schedule": "constant"}, {"warmup": 0.5}, {"lr": 0.01},
        {"momentum": 0.5}, {"weight_decay": 0.1}, {"optimizer": "adamw"}, {"optimizer": "muon"}, {"batch_size": 8},
        {"epochs": 3}, {"ema": 0.9}, {"seed": 6},
    ],
)  # fmt: skip
def test_every_value_of_the_recipe_changes_the_result(trainer, change, train):
    plain, changed = trainer(), trainer(**change)
    train(plain)
    train(changed)
    ours, theirs = weights(plain.scored_model), weights(changed.scored_model)
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())


def test_beyond_a_black_border_is_what_black_is_to_the_network(trainer):
    white = torch.full((40, 1, 10, 10), 255, dtype=torch.uint8)
    reflected, black = (trainer(translate=3, border=border).augmented(white, "") for border in ("reflect", "black"))
    whiter, darker = (1 - 0.35) / 0.2, (0 - 0.35) / 0.2  # mean and deviation of the fixture
    torch.testing.assert_close(reflected, torch.full_like(reflected, whiter))
    assert black.unique().tolist() == pytest.approx([darker, whiter])
    frames = trainer(translate=3, border="black")._grey(torch.zeros(2, 5, 1, 10, 10, dtype=torch.uint8), 0)
    torch.testing.assert_close(frames, torch.full((5,), darker))


def test_what_hides_is_grey_and_noise_ends_at_black_and_white(trainer):
    white = torch.full((40, 1, 10, 10), 255, dtype=torch.uint8)
    hidden = trainer(occlude=0.9).augmented(white, "")
    whiter, grey, darker = ((level / 255 - 0.35) / 0.2 for level in (255, 128, 0))  # of the fixture
    assert hidden.unique().tolist() == pytest.approx([grey, whiter])
    noisy = trainer(noise=1.0).augmented(white // 2, "")
    assert (noisy.min().item(), noisy.max().item()) == pytest.approx((darker, whiter))


def test_every_field_of_the_recipe_was_changed_above():
    marks = test_every_value_of_the_recipe_changes_the_result.pytestmark[0].args[1]
    names = {name for change in marks for name in change}
    recordings = {"event_drop", "time_shift", "time_jitter"}  # in test_event_augment
    others = {"gradient_checkpointing", "precision"} | recordings
    assert names == {field.name for field in fields(TrainingOptions)} - others


def test_clipping_bounds_the_step(trainer):
    ours = trainer(clip=1e-3, momentum=0.0, weight_decay=0.0, lr=1.0, schedule="constant", warmup=0.0)
    before = weights(ours.progress.model)
    ours.advance(0)
    after = ours.progress.model.state_dict()
    moved = torch.sqrt(sum(((after[name] - value) ** 2).sum() for name, value in before.items()))
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_an_epoch_shows_every_image_once(trainer, monkeypatch):
    seen = []
    step = Trainer._step

    def watched(self, model, raw, labels, indices, epoch):
        seen.append(indices)
        return step(self, model, raw, labels, indices, epoch)

    monkeypatch.setattr(Trainer, "_step", watched)
    ours = trainer(batch_size=16)
    while not ours.done:
        ours.advance(0)
    for epoch in (seen[:4], seen[4:]):
        assert [len(each) for each in epoch] == [16, 16, 16, 2]
        assert sorted(torch.cat(epoch).tolist()) == list(range(50))
    assert [ours.shown(steps) for steps in (0, 1, 3, 4, 5, 8)] == [0, 16, 48, 50, 66, 100]


@pytest.mark.parametrize(("normalisation", "steps", "images"), [("none", 5, 49), ("batch", 4, 48)])
def test_one_image_left_over_is_left_out_where_it_cannot_be_normalised(trainer, train, normalisation, steps, images):
    ours = trainer("mlp", {"width": 0.1, "normalisation": normalisation}, count=49, batch_size=12, epochs=2)
    assert (ours.steps_per_epoch, ours.shown(ours.total_steps)) == (steps, 2 * images)
    assert len(train(ours)) == 2


def test_fewer_images_than_a_batch(trainer, train):
    ours = trainer(count=10, batch_size=64)
    assert (ours.batch_size, ours.steps_per_epoch, ours.total_steps) == (10, 1, 2)
    assert len(train(ours)) == 2


def test_bf16_trains_nearly_as_fp32(trainer, train):
    exact, rough = (train(trainer(epochs=4, precision=precision)) for precision in ("fp32", "bf16"))
    assert rough != exact
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=0.1)


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
@pytest.mark.parametrize(
    ("net", "options", "recipe"),
    [
        ("mlp", {"dropout": 0.3, "width": 0.1, "normalisation": "batch"}, {"optimizer": "sgd", **ALL}),
        ("vgg-tiny", {"width": 0.2}, {"optimizer": "adamw", **ALL, "gradient_checkpointing": True}),
        ("airnet", {"width": 0.1}, {"optimizer": "muon", **ALL, "flip": "alternate"}),
    ],
)
def test_resuming_repeats_the_uninterrupted_run_bit_for_bit(trainer, tmp_path, stop, net, options, recipe, train):
    whole = trainer(net, options, **recipe)
    wanted = train(whole)  # four steps an epoch: stops are in the first epoch, between the two, and in the second
    first, rows = trainer(net, options, **recipe), []
    while first.progress.step < stop:
        rows.append(first.advance(0))
    save_state(tmp_path, stop, first.state_dict())
    second = trainer(net, options, **recipe)
    with torch.no_grad():  # what the new process begins with must not matter
        for value in second.progress.model.state_dict().values():
            value.zero_()
    second.load_state_dict(load_latest(tmp_path)[1])
    assert second.progress.step == stop and second.progress.seconds == first.progress.seconds
    rows = [row for row in rows if row is not None] + train(second, seconds=0)
    assert rows == wanted
    same(weights(second.progress.model), weights(whole.progress.model))
    same(weights(second.scored_model), weights(whole.scored_model))


def test_a_state_can_be_loaded_twice(trainer, train):
    first = trainer(ema=0.9, optimizer="adamw")
    first.advance(0)
    saved, ends = copy.deepcopy(first.state_dict()), []
    for _ in range(2):
        again = trainer(ema=0.9, optimizer="adamw")
        again.load_state_dict(saved)
        ends.append((train(again), weights(again.scored_model)))
    assert ends[0][0] == ends[1][0]
    same(ends[0][1], ends[1][1])


def test_nothing_happens_after_the_end(trainer, train):
    ours = trainer()
    train(ours)
    before, seconds = weights(ours.progress.model), ours.progress.seconds
    assert ours.advance() is None
    same(before, weights(ours.progress.model))
    assert (ours.progress.step, ours.progress.seconds) == (ours.total_steps, seconds)
    again = trainer()
    again.load_state_dict(ours.state_dict())
    assert again.done and again.advance() is None


def test_units_of_work_end_with_the_epoch(trainer):
    ours = trainer()
    assert ours.advance(1e9) is not None and ours.progress.step == 4
    assert ours.advance(0) is None and ours.progress.step == 5


# --- gradient checkpointing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["mlp", "lenet5", "vgg-small", "resnet-tiny", "airnet"])
def test_gradient_checkpointing_changes_no_number(trainer, net, train):
    options = {"width": 0.25, "normalisation": "batch"}
    kept, again = (trainer(net, options, gradient_checkpointing=on) for on in (False, True))
    assert train(kept) == train(again)
    same(weights(kept.progress.model), weights(again.progress.model))


def test_recomputation_leaves_statistics_and_random_numbers_alone():
    torch.manual_seed(0)
    block = nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.Dropout(0.5),
        nn.BatchNorm1d(6, momentum=None),
        nn.ReLU(),
        nn.Linear(6, 2),
    )
    other, x = copy.deepcopy(block), torch.randn(8, 4)
    torch.manual_seed(1)
    block(x).square().sum().backward()
    torch.manual_seed(1)
    recomputed(other, x).square().sum().backward()
    same(weights(block), weights(other))
    assert other[1].num_batches_tracked == 1 and other[1].momentum == 0.1 and other[3].momentum is None
    for p, q in zip(block.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_gradient_checkpointing_keeps_less(trainer):
    def kept(on):
        """Bytes held between forward and backward pass, counted by whole storages."""
        ours, held, known = trainer("vgg-small", gradient_checkpointing=on), {}, set()
        known = {p.untyped_storage().data_ptr() for p in ours.progress.model.parameters()}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                held[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        x = torch.randn(16, 1, 10, 10)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            ours.progress.model.train().forward_normalised(x)
        return sum(size for size, _ in held.values())

    assert kept(True) < 0.6 * kept(False)


def test_gradient_checkpointing_of_a_network_that_cannot(blobs, plain_options):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    model = Classifier(net, nn.Linear(4, 3), torch.zeros(1), torch.ones(1))
    with pytest.raises(UserError, match="--gradient-checkpointing must be left out for this network"):
        Trainer(model, blobs(), replace(plain_options, gradient_checkpointing=True), Machine("cpu"))
