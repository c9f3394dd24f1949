import pytest
import torch
import torch.nn.functional as F

from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import choose_precision, has_bf16
from engram.backbone.measures import scoring as metrics
from engram.backbone.measures.scoring import score
from engram.backbone.nets.making import build


@pytest.fixture
def model():
    return build("lenet5", {"normalisation": "batch"}, (1, 8, 8), 3, torch.tensor([0.4]), torch.tensor([0.3]))


@torch.no_grad()
def test_scores_by_hand_over_several_batches(model, blobs):
    split = blobs(1100)
    got = score(model, split, "cpu")
    assert model.training  # as it was
    model.eval()
    logits = torch.stack([model(image[None])[0] for image in split.images])
    assert got["accuracy"] == pytest.approx((logits.argmax(1) == split.labels).double().mean().item())
    assert got["loss"] == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-5)
    assert got["images"] == 1100.0


def test_scoring_changes_nothing(model, blobs):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    assert score(model, blobs(), "cpu") == score(model, blobs(), "cpu")
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_classes_in_another_order(model, blobs):
    split = blobs(300)
    mapped = score(model, split, "cpu", targets=torch.tensor([2, 0, 1]))
    split.labels.copy_((split.labels + 2) % 3)
    assert score(model, split, "cpu") == mapped


def test_bf16_is_near_fp32(model, blobs):
    exact, rough = score(model, blobs(), "cpu"), score(model, blobs(), "cpu", "bf16")
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.03)
    assert rough["loss"] != exact["loss"]


def test_precision():
    assert choose_precision("fp32", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"
    assert choose_precision("auto", "cpu") == ("bf16" if has_bf16("cpu") else "fp32")


def test_event_frames_are_scored_in_batches_of_as_many_frames(monkeypatch):
    seen = []

    class Brightest(torch.nn.Module):
        backbone = torch.nn.Identity()

        def forward(self, x):
            seen.append(tuple(x.shape))
            return x.float().mean((1, 3, 4))

    images = torch.randint(0, 9, (20, 4, 2, 3, 3), dtype=torch.uint8)
    labels = images.float().mean((1, 3, 4)).argmax(1)
    monkeypatch.setattr(metrics, "SCORING_BATCH", 33)
    scores = metrics.score(Brightest(), MemorySplit(images, labels), "cpu")
    assert (scores["accuracy"], scores["images"]) == (1, 20)
    assert seen == [(8, 4, 2, 3, 3), (8, 4, 2, 3, 3), (4, 4, 2, 3, 3)]
