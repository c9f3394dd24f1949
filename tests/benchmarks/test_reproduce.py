"""What a figure of ours says about a published one."""

import json
from types import SimpleNamespace

import pytest

from engram.backbone.contract import Present, Target
from engram.backbone.measures.intervals import Interval
from engram.benchmarks.commands.reproduce import _row, _sources, judged
from engram.benchmarks.driving.setting import Failure


def target(exact=False, metric="test/average_accuracy", **more):
    return Target(
        name="t", experiment="continual.stream", options={}, metric=metric, value=0.5, tolerance=0.1, seeds=(0, 1),
        protocol="p", source="s", minutes=1, exact=exact, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "half", "exact", "verdict", "settled"),
    [
        (0.45, None, False, "reproduced", True),  # one seed
        (0.39, None, False, "missed, worse", True),
        (0.45, 0.09, False, "reproduced", True),  # the mean is known well enough
        (0.39, 0.09, False, "missed, worse", True),
        (0.45, 0.2, False, "reproduced", False),
        (0.39, 0.2, False, "missed, worse", False),
        (0.1, 0.2, False, "missed, worse", True),  # even its best end is
        (0.7, 0.2, False, "reproduced", True),  # even its worst end is
        (0.7, 0.05, True, "missed, better", True),
        (0.7, 0.2, True, "missed, better", False),
        (0.5, 0.2, True, "reproduced", False),
        (0.9, 0.2, True, "missed, better", True),
        (0.7, 0.5, True, "missed, better", False),  # worse at one end and better at the other
    ],
)
def test_an_interval_wider_than_the_tolerance_settles_only_as_a_whole(mean, half, exact, verdict, settled):
    ours = Interval(mean, *((None, None) if half is None else (mean - half, mean + half)), n=2)
    assert judged(target(exact), ours) == (verdict, settled)
    if not exact:
        lower = target(metric="forgetting")  # an older name
        mirrored = Interval(1 - mean, *((None, None) if half is None else (1 - mean - half, 1 - mean + half)), n=2)
        assert judged(lower, mirrored) == (verdict, settled)


@pytest.mark.parametrize(
    ("kinds", "needs_data", "verdict"),
    [
        (["data", "data"], True, "no data"),
        (["needs", "data"], True, "no data"),
        (["data", "user"], True, "failed"),
        (["user", "user"], True, "failed"),
        (["crash"], True, "failed"),
        ([], True, "failed"),  # trials that ended without the figure
        (["data"], False, "failed"),
    ],
)
def test_only_missing_files_are_no_data(tmp_path, kinds, needs_data, verdict):
    failures = [Failure(f"trial{index}", kind, "") for index, kind in enumerate(kinds)]
    outcome, how = SimpleNamespace(failures=failures), SimpleNamespace(out=tmp_path)
    row = _row(target(needs_data=needs_data), ["trial0", "trial1"], outcome, how)
    assert (row["verdict"], row["n"]) == (verdict, 0)


def test_the_present_figure_of_its_maintainers_is_the_one_to_be_judged_by(tmp_path):
    present = Present(value=0.62, source="their list", date="2024")
    old, new = target(exact=True, date="2020"), target(exact=True, date="2020", present=present)
    ours = Interval(0.63, None, None, 1)
    assert judged(old, ours) == ("missed, better", True)
    assert judged(new, ours) == ("reproduced", True)
    assert judged(new, Interval(0.5, None, None, 1)) == ("missed, worse", True)
    row = _row(new, None, SimpleNamespace(failures=[]), SimpleNamespace(out=tmp_path))
    assert (row["published"], row["present"], row["verdict"]) == (0.5, 0.62, "no GPU")
    assert _sources(new) == "0.5 by s (2020); judged by 0.62, by their list (2024); two-sided"
    assert _sources(target()) == "0.5 by s"


def test_our_interval_stays_within_what_the_metric_can_be(tmp_path):
    for trial, value in (("trial0", 0.97), ("trial1", 0.99)):
        folder = tmp_path / "trials" / trial
        folder.mkdir(parents=True)
        said = {"experiment": "e", "trial": trial, "config": {}, "tables": {}, "artifacts": {}}
        (folder / "result.json").write_text(json.dumps({**said, "metrics": {"test/average_accuracy": value}}))
    row = _row(target(), ["trial0", "trial1"], SimpleNamespace(failures=[]), SimpleNamespace(out=tmp_path))
    assert (row["n"], row["ours"]) == (2, 0.98) and 0 < row["low"] < 0.98 < row["high"] < 1
