import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from engram.backbone.errors import UserError
from engram.backbone.measures.anytime import StepScores
from engram.backbone.measures.early_exit import KEPT, THRESHOLDS, ExitScores, fewest_steps, figure

CRITERIA = list(THRESHOLDS)


def confidences(*values):
    return {"confidence": values}


def logits_of(probabilities):
    return torch.tensor(probabilities).log()


def is_sure(criterion, threshold, before, now):
    """Whether to stop, from the definitions; ``before`` and ``now`` are probabilities, ``before`` None at first."""
    p, q = now.tolist(), None if before is None else before.tolist()
    if criterion == "confidence":
        return max(p) >= threshold
    if criterion == "entropy":
        return -sum(x * math.log(x) for x in p if x) <= threshold
    return q is not None and sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x) <= threshold


def brute_force(logits, labels, steps, criterion, threshold):
    """(correct, steps used, stopped early), image by image."""
    correct = used = early = 0
    for image, label in enumerate(labels.tolist()):
        before = None
        for place, step in enumerate(steps):
            p = torch.softmax(logits[place, image].double(), 0)
            if is_sure(criterion, threshold, before, p) or step == steps[-1]:
                correct += int(p.argmax()) == label
                used += step
                early += step != steps[-1]
                break
            before = p
    return correct, used, early


def settling(images=200, classes=5):
    """Answers that settle from step to step, and labels that they are right about ever more often."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (images,), generator=generator)
    truth = torch.nn.functional.one_hot(labels, classes) * torch.tensor([1.0, 3.0, 6.0, 12.0]).view(-1, 1, 1)
    noise = torch.randn(4, images, classes, generator=generator) * torch.tensor([0.8, 0.3, 0.1, 0.02]).view(-1, 1, 1)
    return truth + noise.cumsum(0), labels


def test_stops_at_the_first_step_that_is_sure_even_when_a_later_one_is_right():
    logits = logits_of([[[0.6, 0.4], [0.85, 0.15]], [[0.95, 0.05], [0.3, 0.7]], [[0.5, 0.5], [0.01, 0.99]]])
    scores = ExitScores([1, 4, 8], confidences(0.8, 0.97))
    scores.add(logits, torch.tensor([0, 1]))
    rash, sure = scores.rows()
    about = {"criterion": "confidence", "accuracy": 0.5}
    # image 0 stops at 4 and is right; image 1 stops at 1 and is wrong, though it would have been right at 4
    assert rash == {**about, "threshold": 0.8, "mean_steps": 2.5, "share_stopped_early": 1.0}
    # neither is sure before 8, and reaching the confidence at the last step is not stopping early
    assert sure == {**about, "threshold": 0.97, "accuracy": 1.0, "mean_steps": 8.0, "share_stopped_early": 0.0}


def test_an_answer_that_stays_stops_by_divergence_at_the_second_step_whatever_its_entropy():
    same = logits_of([[[0.5, 0.5]]] * 4)
    scores = ExitScores([1, 2, 3, 8], {"divergence": [1e-9], "entropy": [math.log(2) - 1e-6, math.log(2) + 1e-6]})
    scores.add(same, torch.tensor([0]))
    assert [row["mean_steps"] for row in scores.rows()] == [2.0, 8.0, 1.0]


def test_classes_that_are_switched_off_have_no_part_in_entropy_and_divergence():
    logits = torch.tensor([[[0.0, 1.0]], [[0.5, 1.0]]])
    off = torch.cat([logits, torch.full((2, 1, 1), -math.inf)], -1)
    plain, masked = ExitScores([1, 2]), ExitScores([1, 2])
    plain.add(logits, torch.tensor([1]))
    masked.add(off, torch.tensor([1]))
    assert plain.rows() == masked.rows()


def test_steps_beforehand_are_steps_of_every_image():
    logits, labels = torch.randn(2, 20, 3), torch.zeros(20, dtype=torch.int64)
    plain, after = (ExitScores([1, 4], beforehand=steps) for steps in (0, 32))
    plain.add(logits, labels)
    after.add(logits, labels)
    assert [row | {"mean_steps": row["mean_steps"] + 32} for row in plain.rows()] == after.rows()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_against_a_loop_over_images(criterion):
    steps, (logits, labels) = [1, 2, 4, 8], settling()
    scores = ExitScores(steps)
    scores.add(logits, labels)
    for place, threshold in enumerate(THRESHOLDS[criterion]):
        counted = tuple(counts[criterion][place] for counts in (scores.correct, scores.used, scores.early))
        assert counted == brute_force(logits, labels, steps, criterion, threshold)
    means = [row["mean_steps"] for row in scores.rows() if row["criterion"] == criterion]
    assert all(a <= b for a, b in pairwise(means))
    assert means[0] < means[-1]  # to be surer costs steps


def test_counts_do_not_depend_on_the_batches_and_survive_a_round_trip():
    logits, labels = torch.randn(3, 50, 4), torch.randint(0, 4, (50,))
    whole, parts = ExitScores([1, 2, 3]), ExitScores([1, 2, 3])
    whole.add(logits, labels)
    parts.add(logits[:, :7], labels[:7])
    resumed = ExitScores([1, 2, 3])
    resumed.load_state_dict(parts.state_dict())
    resumed.add(logits[:, 7:8], labels[7:8])
    resumed.add(logits[:, 8:], labels[8:])
    assert resumed.state_dict() == whole.state_dict()
    assert parts.images == 7  # loading copied the counts


def test_a_network_with_one_step_never_stops_early():
    logits, labels = 100 * torch.randn(1, 9, 3), torch.randint(0, 3, (9,))
    scores = ExitScores([1])
    scores.add(logits, labels)
    assert {(row["mean_steps"], row["share_stopped_early"]) for row in scores.rows()} == {(1.0, 0.0)}


def test_logits_that_are_not_numbers_run_to_the_end():
    scores = ExitScores([1, 2])
    scores.add(torch.full((2, 3, 4), torch.nan), torch.zeros(3, dtype=torch.int64))
    assert {row["mean_steps"] for row in scores.rows()} == {2.0}


@pytest.mark.parametrize("steps", [[], [0, 1], [2, 1], [1, 1]])
def test_steps_that_cannot_be(steps):
    with pytest.raises(UserError, match="steps must be ascending"):
        ExitScores(steps)


@pytest.mark.parametrize(
    ("criterion", "values", "rule"),
    [
        *(("confidence", values, r"in \(0, 1\]") for values in ([], [0.0], [1.01], [math.nan])),
        *(
            (criterion, values, "finite")
            for criterion in CRITERIA[1:]
            for values in ([], [0.0], [math.inf], [math.nan])
        ),
    ],
)
def test_thresholds_that_cannot_be(criterion, values, rule):
    with pytest.raises(UserError, match=f"thresholds of {criterion} must be {rule}"):
        ExitScores([1], {criterion: values})


def test_logits_at_other_steps_are_refused():
    with pytest.raises(UserError, match="given at all of the 2 steps; got 3"):
        ExitScores([1, 2]).add(torch.zeros(3, 1, 2), torch.zeros(1, dtype=torch.int64))


def test_figure_has_every_way_of_stopping_from_left_to_right():
    logits, labels = torch.randn(2, 20, 3), torch.randint(0, 3, (20,))
    exits, fixed = ExitScores([1, 4], {"confidence": [0.9, 0.4], "divergence": [0.1]}), StepScores([1, 4])
    exits.add(logits, labels)
    fixed.add(logits, labels)
    drawn = figure(exits.rows(), fixed.rows())
    quick, slow = drawn.series["stops by confidence"]
    assert quick[0] <= slow[0]
    assert [x for x, _ in drawn.series["stops every image at the same step"]] == [1.0, 4.0]
    assert list(figure(exits.rows()).series) == ["stops by confidence", "stops by divergence"]


def test_the_fewest_steps_are_chosen_on_the_images_held_out_alone():
    """By hand: the threshold is the quickest that keeps 99 % there, whatever it does to the images reported on."""
    (logits, labels), steps = settling(), [1, 2, 4, 8]
    held, scored = ExitScores(steps), ExitScores(steps)
    held.add(logits[:, :150], labels[:150])
    scored.add(logits[:, 150:], labels[150:])
    rows = fewest_steps(held, scored)
    assert sorted(row["criterion"] for row in rows) == sorted(CRITERIA)
    assert [row["validation_mean_steps"] for row in rows] == sorted(row["validation_mean_steps"] for row in rows)
    full = [
        float((logits[-1, part].argmax(1) == labels[part]).float().mean()) for part in (slice(150), slice(150, 200))
    ]
    for row in rows:
        mine = [each for each in held.rows() if each["criterion"] == row["criterion"]]
        keeping = [each for each in mine if each["accuracy"] >= KEPT * full[0]]
        best = min(keeping, key=lambda each: each["mean_steps"])
        assert (row["threshold"], row["validation_mean_steps"]) == (best["threshold"], best["mean_steps"])
        assert row["mean_steps"] < 8
        (same,) = (r for r in scored.rows() if (r["criterion"], r["threshold"]) == (row["criterion"], row["threshold"]))
        assert (row["accuracy"], row["mean_steps"]) == (same["accuracy"], same["mean_steps"])
        assert row["share_of_steps"] == row["mean_steps"] / 8
        assert row["accuracy_kept"] == pytest.approx(row["accuracy"] / full[1])


def test_where_no_threshold_keeps_the_accuracy_every_image_takes_all_steps():
    wrong, right = [[0.01, 0.99]] * 9, [[0.9, 0.1]] * 9
    scores = ExitScores([1, 2], confidences(0.5, 0.95), beforehand=3)
    scores.add(logits_of([wrong, right]), torch.zeros(9, dtype=torch.int64))
    (row,) = fewest_steps(scores, scores)
    assert row == {
        **{"criterion": "confidence", "threshold": None, "accuracy": 1.0, "accuracy_kept": 1.0},
        **{"mean_steps": 5.0, "share_of_steps": 1.0, "validation_accuracy": 1.0, "validation_mean_steps": 5.0},
    }


def test_the_thresholds_come_without_torch():
    code = "import sys, engram.backbone.measures.early_exit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
