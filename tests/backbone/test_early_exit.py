import subprocess
import sys

import pytest
import torch

from engram.backbone.errors import UserError
from engram.backbone.measures.anytime import StepScores
from engram.backbone.measures.early_exit import CONFIDENCES, ExitScores, figure


def logits_of(probabilities):
    return torch.tensor(probabilities).log()


def brute_force(logits, labels, steps, confidence):
    """(correct, steps used, stopped early), image by image."""
    correct = used = early = 0
    for image, label in enumerate(labels.tolist()):
        for place, step in enumerate(steps):
            p = torch.softmax(logits[place, image].double(), 0)
            if float(p.max()) >= confidence or step == steps[-1]:
                correct += int(p.argmax()) == label
                used += step
                early += step != steps[-1]
                break
    return correct, used, early


def test_stops_at_the_first_step_that_is_sure_even_when_a_later_one_is_right():
    logits = logits_of([[[0.6, 0.4], [0.85, 0.15]], [[0.95, 0.05], [0.3, 0.7]], [[0.5, 0.5], [0.01, 0.99]]])
    scores = ExitScores([1, 4, 8], [0.8, 0.97])
    scores.add(logits, torch.tensor([0, 1]))
    rash, sure = scores.rows()
    # image 0 stops at 4 and is right; image 1 stops at 1 and is wrong, though it would have been right at 4
    assert rash == {"confidence": 0.8, "accuracy": 0.5, "mean_steps": 2.5, "share_stopped_early": 1.0}
    # neither is sure before 8, and reaching the confidence at the last step is not stopping early
    assert sure == {"confidence": 0.97, "accuracy": 1.0, "mean_steps": 8.0, "share_stopped_early": 0.0}


def test_steps_beforehand_are_steps_of_every_image():
    logits, labels = torch.randn(2, 20, 3), torch.zeros(20, dtype=torch.int64)
    plain, after = ExitScores([1, 4], [0.5, 0.9]), ExitScores([1, 4], [0.5, 0.9], beforehand=32)
    plain.add(logits, labels)
    after.add(logits, labels)
    assert [row | {"mean_steps": row["mean_steps"] + 32} for row in plain.rows()] == after.rows()


def test_against_a_loop_over_images():
    generator = torch.Generator().manual_seed(0)
    steps = [1, 2, 4, 8]
    logits = torch.randn(4, 200, 5, generator=generator) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(-1, 1, 1)
    labels = torch.randint(0, 5, (200,), generator=generator)
    scores = ExitScores(steps)
    scores.add(logits, labels)
    for place, confidence in enumerate(CONFIDENCES):
        counted = (scores.correct[place], scores.used[place], scores.early[place])
        assert counted == brute_force(logits, labels, steps, confidence)
    means = [row["mean_steps"] for row in scores.rows()]
    assert means == sorted(means)
    assert means[0] < means[-1]  # asking for more confidence costs steps


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
    scores = ExitScores([1], [0.5])
    scores.add(logits, labels)
    (row,) = scores.rows()
    assert (row["mean_steps"], row["share_stopped_early"]) == (1.0, 0.0)


def test_logits_that_are_not_numbers_run_to_the_end():
    scores = ExitScores([1, 2], [0.5])
    scores.add(torch.full((2, 3, 4), torch.nan), torch.zeros(3, dtype=torch.int64))
    assert scores.rows()[0]["mean_steps"] == 2.0


@pytest.mark.parametrize("steps", [[], [0, 1], [2, 1], [1, 1]])
def test_steps_that_cannot_be(steps):
    with pytest.raises(UserError, match="steps must be ascending"):
        ExitScores(steps)


@pytest.mark.parametrize("confidences", [[], [0.0], [1.01], [float("nan")]])
def test_confidences_that_cannot_be(confidences):
    with pytest.raises(UserError, match="confidences must be in"):
        ExitScores([1], confidences)


def test_logits_at_other_steps_are_refused():
    with pytest.raises(UserError, match="given at all of the 2 steps; got 3"):
        ExitScores([1, 2]).add(torch.zeros(3, 1, 2), torch.zeros(1, dtype=torch.int64))


def test_figure_has_both_ways_of_stopping_from_left_to_right():
    logits, labels = torch.randn(2, 20, 3), torch.randint(0, 3, (20,))
    exits, fixed = ExitScores([1, 4], [0.9, 0.4]), StepScores([1, 4])
    exits.add(logits, labels)
    fixed.add(logits, labels)
    drawn = figure(exits.rows(), fixed.rows())
    quick, slow = drawn.series["stops when confident"]
    assert quick[0] <= slow[0]
    assert [x for x, _ in drawn.series["stops every image at the same step"]] == [1.0, 4.0]
    assert list(figure(exits.rows()).series) == ["stops when confident"]


def test_the_confidences_come_without_torch():
    code = "import sys, engram.backbone.measures.early_exit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
