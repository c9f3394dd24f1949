import pytest
import torch
from torch import nn

from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.measures.answers import Answers, answers
from engram.backbone.measures.anytime import StepScores, accuracy_vs_steps, logits_at
from engram.backbone.measures.early_exit import REPORTED
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.nets.readout import read_out


class Ramp(nn.Module):
    """Gives the image's mean times the step number, so that read-outs can be told by hand."""

    in_shape, feature_dim, stage_channels, steps = (1, 2, 2), 1, (1,), 4

    def __init__(self, readout):
        super().__init__()
        self.readout = readout

    def forward_steps(self, x):
        return torch.stack([x.mean((1, 2, 3)).unsqueeze(1) * t for t in range(1, 5)])


FEATURES = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0))


def test_mean_is_that_of_the_steps_so_far():
    got = read_out(FEATURES, [1, 3, 6], "mean")
    for place, steps in enumerate((1, 3, 6)):
        torch.testing.assert_close(got[place], FEATURES[:steps].mean(0))


def test_last_is_the_step_itself():
    assert torch.equal(read_out(FEATURES, [1, 3, 6], "last"), FEATURES[[0, 2, 5]])


def test_a_delay_leaves_the_first_steps_out_and_until_they_are_over_a_step_stands_alone():
    got = read_out(FEATURES, [1, 2, 3, 6], "mean", delay=2)
    for place, steps in enumerate((slice(0, 1), slice(1, 2), slice(2, 3), slice(2, 6))):
        torch.testing.assert_close(got[place], FEATURES[steps].mean(0))
    assert torch.equal(read_out(FEATURES, [3], "last", delay=2), FEATURES[[2]])


@pytest.mark.parametrize("steps", [[], [0], [7], [1, 7]])
def test_steps_the_network_does_not_have(steps):
    with pytest.raises(UserError, match="steps must be between 1 and the network's 6"):
        read_out(FEATURES, steps, "mean")


@pytest.mark.parametrize(("readout", "factors"), [("mean", [1.0, 2.5]), ("last", [1.0, 4.0])])
def test_logits_follow_the_networks_own_read_out(readout, factors):
    model = Classifier(Ramp(readout), nn.Linear(1, 2), torch.zeros(1), torch.ones(1))
    x = torch.rand(3, 1, 2, 2)
    logits = logits_at(model, model.backbone.forward_steps(x), [1, 4])
    for got, factor in zip(logits, factors, strict=True):
        torch.testing.assert_close(got, model.head(x.mean((1, 2, 3)).unsqueeze(1) * factor))


def test_logits_follow_the_networks_own_delay():
    model = Classifier(Ramp("mean"), nn.Linear(1, 2), torch.zeros(1), torch.ones(1))
    model.backbone.delay = 2
    x = torch.rand(3, 1, 2, 2)
    (logits,) = logits_at(model, model.backbone.forward_steps(x), [4])
    torch.testing.assert_close(logits, model.head(x.mean((1, 2, 3)).unsqueeze(1) * 3.5))


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (37, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return MemorySplit(images, torch.randint(0, 3, (37,), generator=generator))


@torch.no_grad()
def test_rows_are_those_of_scoring_by_hand(split):
    torch.manual_seed(0)
    model = build("mlp", {}, (1, 8, 8), 3, torch.tensor([0.5]), torch.tensor([0.3])).eval()
    (row,) = accuracy_vs_steps(model, split, [1], "cpu", 10)
    logits = model(split.images)
    assert row["steps"] == 1
    assert row["accuracy"] == pytest.approx((logits.argmax(1) == split.labels).float().mean().item())
    assert row["loss"] == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-5)


def test_scores_do_not_depend_on_the_batches_and_survive_a_round_trip():
    logits, labels = torch.randn(2, 20, 4), torch.randint(0, 4, (20,))
    whole, parts = StepScores([1, 2]), StepScores([1, 2])
    whole.add(logits, labels)
    parts.add(logits[:, :7], labels[:7])
    resumed = StepScores([1, 2])
    resumed.load_state_dict(parts.state_dict())
    resumed.add(logits[:, 7:], labels[7:])
    assert torch.equal(resumed.correct, whole.correct)
    torch.testing.assert_close(resumed.loss, whole.loss)
    assert resumed.images == whole.images == 20
    assert [row["steps"] for row in whole.rows()] == [1, 2]


@torch.no_grad()
def test_one_run_gives_the_curve_and_the_exits_of_any_network_with_steps():
    """A network that is not spiking, scored step by step by hand; and what was held out stands beside."""
    torch.manual_seed(0)
    model = Classifier(Ramp("last"), nn.Linear(1, 3), torch.zeros(1), torch.ones(1)).eval()
    images, labels = torch.randint(0, 256, (40, 1, 2, 2), dtype=torch.uint8), torch.randint(0, 3, (40,))
    test, held = (MemorySplit(images[part], labels[part]) for part in (slice(0, 30), slice(30, 40)))
    found, targets = answers(model, test, "cpu"), torch.tensor([1, 2, 0])
    beside = answers(model, held, "cpu")
    tables = found.tables(beside)
    rows = tables["accuracy_vs_steps"]
    assert [row["steps"] for row in rows] == [1, 2, 4]
    for row in rows:
        for column, split in (("accuracy", test), ("validation_accuracy", held)):
            features = model.backbone.forward_steps(model.normalise(split.images))[row["steps"] - 1]
            right = (model.head(features).argmax(1) == split.labels).float().mean().item()
            assert row[column] == pytest.approx(right)
    stops = tables["early_exit"]
    assert found.exits.steps == [1, 2, 3, 4] and stops[-1]["accuracy"] == rows[-1]["accuracy"]  # never so sure
    assert {"validation_accuracy", "validation_mean_steps"} <= set(stops[0])
    quickest, alone = tables["fewest_steps"][0], answers(model, test, "cpu", targets)
    assert found.metrics(beside) == {f"test/early_exit_{name}": quickest[name] for name in REPORTED}
    assert list(found.metrics(beside, "snn")) == [f"snn/test/early_exit_{name}" for name in REPORTED]
    assert "validation_accuracy" not in alone.tables()["early_exit"][0]
    assert "fewest_steps" not in alone.tables() and alone.metrics(None) == {}  # nothing to choose by
    other = MemorySplit(test.images, targets[test.labels])
    assert answers(model, test, "cpu", targets).tables() == answers(model, other, "cpu").tables()


def test_steps_beforehand_count_as_steps_of_every_image():
    model = Classifier(Ramp("last"), nn.Linear(1, 2), torch.zeros(1), torch.ones(1))
    model.backbone.pre_simulation = 7
    found, features = Answers(model, 4), torch.randn(4, 5, 1)
    found.add(features, torch.zeros(5, dtype=torch.int64))
    assert [x for x, _ in found.figures()["early_exit"].series["stops every image at the same step"]] == [8, 9, 11]
    assert all(8 <= row["mean_steps"] <= 11 for row in found.tables()["early_exit"])
    again = Answers(model, 4)
    again.load_state_dict(found.state_dict())
    assert again.tables() == found.tables()


@pytest.mark.parametrize(("delay", "stops"), [(0, [1, 2, 3, 4]), (2, [3, 4]), (4, [4])])
def test_it_stops_at_no_step_that_the_read_out_leaves_out(delay, stops):
    """Until the image has come through they are all the same, and so would be sure of themselves."""
    model = Classifier(Ramp("last"), nn.Linear(1, 2), torch.zeros(1), torch.ones(1))
    model.backbone.delay = delay
    assert Answers(model, 4).exits.steps == stops
