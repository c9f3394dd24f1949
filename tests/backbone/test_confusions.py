"""What became of every class, against scikit-learn and SciPy."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, recall_score

from engram.backbone.measures.confusions import Confusions, as_picture, wilson


@pytest.fixture
def answered():
    """(counts in batches, images, labels, logits) of 200 images of 5 classes."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 1, 4, 4), dtype=torch.uint8, generator=draws)
    labels = torch.randint(0, 5, (200,), generator=draws)
    logits = 2 * torch.randn(200, 5, generator=draws)
    counts = Confusions([f"class {index}" for index in range(5)], keep=3)
    for part in range(0, 200, 64):
        counts.add(*(each[part : part + 64] for each in (images, labels, logits)))
    return counts, images, labels, logits


def test_counts_and_shares_are_those_of_other_libraries(answered):
    counts, _, labels, logits = answered
    found = counts.figures("test")
    answers = logits.argmax(1)
    assert found["confusion"].counts == confusion_matrix(labels, answers).tolist()
    assert found["accuracy_by_class"].series["accuracy"] == pytest.approx(recall_score(labels, answers, average=None))
    confidence, right = logits.softmax(1).amax(1), answers == labels
    shares, sure = calibration_curve(right, confidence, n_bins=10)
    points = found["reliability"].series["images by confidence"]
    assert [x for x, _ in points] == pytest.approx(list(sure), abs=1e-6)
    assert [y for _, y in points] == pytest.approx(list(shares), abs=1e-6)


def test_the_surest_mistakes_are_kept(answered):
    counts, images, labels, logits = answered
    confidence, answers = logits.softmax(1).max(1)
    order = torch.where(answers == labels, -1.0, confidence).argsort(descending=True)[:3].tolist()
    shown = counts.figures("test")["mistakes"]
    assert [torch.equal(picture, images[i, 0]) for picture, i in zip(shown.pictures, order, strict=True)] == [True] * 3
    first = order[0]
    said = f"class {labels[first]} taken for class {answers[first]}, {confidence[first]:.2f}"
    assert shown.captions[0] == said


@pytest.mark.parametrize(("right", "images"), [(0, 5), (3, 7), (50, 50)])
def test_intervals_are_wilsons(right, images):
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert wilson(right, images) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_what_cannot_be_seen_is_no_figure():
    many = Confusions([str(index) for index in range(51)])
    frames = torch.zeros(2, 3, 2, 4, 4)  # of events
    many.add(frames, torch.tensor([0, 1]), torch.eye(51)[[0, 3]])
    assert set(many.figures("test")) == {"reliability"}
    assert as_picture(torch.full((3, 2, 2), 0.5)).shape == (2, 2, 3)
    assert as_picture(torch.tensor([[[1.0, 2.0]]])).tolist() == [[255, 255]]
