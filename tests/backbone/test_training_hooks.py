"""What others hook into the training loop: strategies, initialisation from data, teachers, recordings; and failures."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import Batch, Hook, Outputs
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import TrialError, UserError
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.objectives.distillation import Distillation
from engram.backbone.seeding import derive
from engram.backbone.training.loop import Trainer
from engram.backbone.training.preparing import prepare

# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_rate_and_advice(trainer, bad, train):
    ours = trainer(schedule="constant", warmup=0.0, lr=0.3)
    ours.advance(0)
    with torch.no_grad():
        ours.progress.model.head.bias.fill_(bad)
    with pytest.raises(TrialError) as error:
        train(ours, seconds=0)
    assert str(error.value) == (
        "the training loss must be finite; got nan or inf by step 2 of 8, at learning rate 0.3. "
        "Try --lr 0.1, --clip 1 or --precision fp32."
    )


def test_divergence_at_the_end_names_the_rate_that_was_used(trainer):
    ours = trainer(count=16, epochs=1, warmup=0.0)
    with torch.no_grad():
        ours.progress.model.head.bias.fill_(math.nan)
    with pytest.raises(TrialError, match=r"by step 1 of 1, at learning rate 0\.025\."):
        ours.advance()


# --- strategies -------------------------------------------------------------------------------------------------------


class Pull(Hook):
    """Pulls the weights to zero through the loss, and counts its calls."""

    def __init__(self, strength):
        self.strength, self.calls = strength, []

    def before_forward(self, learner, batch):
        assert batch.images.shape == (16, 1, 10, 10) and batch.raw.dtype == torch.uint8
        self.calls.append("before_forward")

    def loss(self, learner, batch, loss):
        assert batch.logits.shape == (16, 3) and batch.labels.shape == (16,) and batch.own == 16
        self.calls.append("loss")
        return loss + self.strength * sum(p.square().sum() for p in learner.progress.model.parameters())

    def after_backward(self, learner, batch):
        assert all(p.grad is not None for p in learner.progress.model.parameters())
        self.calls.append("after_backward")

    def after_step(self, learner, batch):
        assert all(p.grad is None for p in learner.progress.model.parameters())
        self.calls.append("after_step")

    def state_dict(self):
        return {"calls": len(self.calls)}

    def load_state_dict(self, saved):
        self.calls = ["loss"] * saved["calls"]


def test_strategies_are_called_in_order_and_change_the_result(trainer, train):
    norms = {}
    for strength in (0.0, 0.1):
        strategy = Pull(strength)
        ours = trainer(hooks=[strategy], count=48)
        train(ours)
        assert strategy.calls == ["before_forward", "loss", "after_backward", "after_step"] * 6
        norms[strength] = sum(p.square().sum().item() for p in ours.progress.model.parameters())
    plain = trainer(count=48)
    train(plain)
    assert norms[0.0] == sum(p.square().sum().item() for p in plain.progress.model.parameters())
    assert norms[0.1] < 0.9 * norms[0.0]


def test_the_state_of_strategies_is_saved_and_restored(trainer):
    first, second = trainer(hooks=[Pull(0.1)]), trainer(hooks=[Pull(0.1)])
    first.advance(0)
    second.load_state_dict(first.state_dict())
    assert len(second.hooks[0].calls) == 4


def test_the_average_includes_what_a_strategy_does_to_the_weights(trainer):
    class Freeze(Pull):
        def after_step(self, learner, batch):
            with torch.no_grad():
                learner.progress.model.head.bias.fill_(7.0)

    ours = trainer(hooks=[Freeze(0.0)], ema=0.5)
    ours.advance(0)
    assert (ours.scored_model.head.bias == 7).all()


def test_a_strategy_may_add_rows_that_are_augmented_like_the_others(trainer, train):
    class Replay(Pull):
        def before_forward(self, learner, batch):
            again = learner.augmented(batch.raw[:4], "replay")
            batch.images = torch.cat((batch.images, again))
            batch.labels = torch.cat((batch.labels, batch.labels[:4]))

        def loss(self, learner, batch, loss):
            assert batch.logits.shape == (20, 3) and batch.own == 16
            return loss

    ours = trainer(hooks=[Replay(0.0)], count=48, translate=2, flip="alternate")
    train(ours)
    assert ours.done


# --- preparation ------------------------------------------------------------------------------------------------------


def test_prepare_gets_normalised_training_images(blobs, plain_options):
    class Asks(nn.Sequential):
        in_shape = (1, 8, 8)

        def prepare(self, images):
            self.images = images

    split = blobs(40)
    model = Classifier(Asks(nn.Flatten(), nn.Linear(64, 3)), nn.Identity(), torch.tensor([0.3]), torch.tensor([0.1]))
    prepare(model, split, plain_options.seed)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(derive(5, "prepare")))
    torch.testing.assert_close(model.backbone.images, (split.images[order] / 255 - 0.3) / 0.1)


def test_large_images_are_prepared_from_fewer(blobs, monkeypatch, plain_options):
    monkeypatch.setattr("engram.backbone.training.preparing.PREPARE_VALUES", 64 * 12)
    seen = []

    class Asks(nn.Linear):
        in_shape = (1, 8, 8)

        def prepare(self, images):
            seen.append(len(images))

    model = Classifier(Asks(8, 3), nn.Identity(), torch.zeros(1), torch.ones(1))
    prepare(model, blobs(40), plain_options.seed)
    assert seen == [12]


def test_a_batch_of_one_image_cannot_be_normalised(trainer):
    with pytest.raises(UserError, match=r"--batch-size must be at least 2 .*; got 1\. Raise it, or"):
        trainer(options={"normalisation": "batch"}, batch_size=1)
    assert trainer(options={"normalisation": "none"}, batch_size=1, count=3).advance() is not None


@pytest.mark.parametrize(("method", "called"), [("prepare", "prepare"), ("calibrate", "calibrate")])
def test_a_trained_network_is_not_initialised_again(blobs, plain_options, method, called):
    class Asks(nn.Linear):
        in_shape = (1, 8, 8)
        seen = None

        def prepare(self, images):
            self.seen = "prepare"

        def calibrate(self, images):
            self.seen = "calibrate"

    model = Classifier(Asks(8, 3), nn.Identity(), torch.zeros(1), torch.ones(1))
    prepare(model, blobs(40), plain_options.seed, method)
    assert model.backbone.seen == called


# --- teachers ---------------------------------------------------------------------------------------------------------


def network(seed, mean=0.35, std=0.2):
    torch.manual_seed(seed)
    options = {"width": 0.5}
    return build("lenet5", options, (1, 10, 10), 3, torch.tensor([mean]), torch.tensor([std]))


def distillation(teacher, student, weight, temperature):
    return Distillation(
        CrossEntropy(), teacher, torch.arange(3), student.normalise, weight, temperature, Machine("cpu")
    )


def test_the_loss_with_a_teacher_by_hand():
    teacher, student = network(1), network(2)
    x, labels = torch.randn(5, 1, 10, 10), torch.tensor([0, 1, 2, 0, 1])
    ours = distillation(teacher, student, 0.3, 2.0)
    logits = student.forward_normalised(x)
    p, q = (teacher.forward_normalised(x) / 2).softmax(1), (logits / 2).softmax(1)
    difference = (p * (p.log() - q.log())).sum(1).mean()
    plain = F.cross_entropy(logits, labels)
    got = ours(Outputs(logits), Batch(x, x, labels, torch.arange(5)), 0)
    torch.testing.assert_close(got, 0.7 * plain + 0.3 * 4 * difference)
    got.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_a_teacher_sees_the_pictures_normalised_its_own_way():
    teacher, student = network(1, 0.1, 0.5), network(2)
    images = torch.randint(0, 256, (4, 1, 10, 10), dtype=torch.uint8)
    targets = distillation(teacher, student, 0.5, 1.0).targets(student.normalise(images))
    torch.testing.assert_close(targets, teacher(images))


def test_a_network_learns_from_a_teacher_alone(blobs, plain_options, train):
    split = blobs(48, (1, 10, 10))
    recipe = replace(plain_options, epochs=15, optimizer="adamw", lr=0.01)
    trained = Trainer(network(1), split, recipe, Machine("cpu"))
    train(trained)
    teacher = trained.progress.model
    student = network(2)
    mixed = distillation(copy.deepcopy(teacher), student, 1.0, 1.0)
    wrong = MemorySplit(split.images, (split.labels + 1) % 3)  # labels count for nothing at weight 1
    ours = Trainer(student, wrong, recipe, Machine("cpu"), mixed)
    train(ours)
    agree = ours.progress.model.eval()(split.images).argmax(1) == teacher.eval()(split.images).argmax(1)
    assert agree.float().mean() > 0.9


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"flip": "random"}, {"flip": "alternate"}, {"translate": 2}, {"cutout": 4}])
def test_all_frames_of_a_recording_are_augmented_alike(blobs, plain_options, change):
    """A recording of one frame repeated stays one, and its frames are those of the still image."""
    stills = blobs(32, (1, 10, 10))
    frames = MemorySplit(stills.images[:, None].expand(-1, 4, -1, -1, -1).contiguous(), stills.labels)
    seen = []
    for split in (stills, frames):
        trainer = Trainer(network(0), split, replace(plain_options, **change), Machine("cpu"))
        model, order = trainer.progress.model, torch.arange(32)
        seen.append(trainer._images(model, split.images, order, 1))
    assert seen[1].shape == (32, 4, 1, 10, 10)
    for t in range(4):
        assert torch.equal(seen[1][:, t], seen[0])
    assert not torch.equal(seen[0], network(0).normalise(stills.images))


def test_randaugment_does_the_same_to_every_frame(blobs, plain_options):
    stills = blobs(16, (1, 10, 10))
    frames = MemorySplit(stills.images[:, None].expand(-1, 3, -1, -1, -1).contiguous(), stills.labels)
    trainer = Trainer(network(0), frames, replace(plain_options, randaugment=2), Machine("cpu"))
    out = trainer._images(trainer.progress.model, frames.images, torch.arange(16), 0)
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 0], out[:, 2])
    polarities = MemorySplit(torch.zeros(16, 3, 2, 10, 10, dtype=torch.uint8), stills.labels)
    with pytest.raises(UserError, match="--randaugment must be 0 for images of neither 1 nor 3 channels"):
        trainer._images(trainer.progress.model, polarities.images, torch.arange(16), 0)


def test_recordings_are_trained_and_prepared_from_their_frames(plain_options, train):
    images = torch.randint(0, 256, (32, 5, 1, 10, 10), dtype=torch.uint8)
    seen, model = [], network(0)
    model.backbone.prepare = lambda frames: seen.append(frames.shape)
    split = MemorySplit(images, torch.arange(32) % 3)
    prepare(model, split, plain_options.seed)
    trainer = Trainer(model, split, plain_options, Machine("cpu"))
    assert seen == [(160, 1, 10, 10)]
    assert all(math.isfinite(row["train/loss"]) for row in train(trainer))
