"""Figures of episodes: what is counted and shown, on features whose mistakes are known."""

import torch

from engram.backbone.data.load import Data
from engram.backbone.data.sets import MemorySplit
from engram.backbone.nets.making import build_head
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.fewshot.episodes import figures
from engram.fewshot.episodes.sampling import Pools, Shapes


def data_of(labels, alphabets):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    split = MemorySplit(images, labels, {"alphabet": tuple(alphabets)})
    one = torch.ones(1)
    return Data("x", split, None, split, tuple("abcdef"), (1, 4, 4), one, one, "0" * 64)


def test_what_is_taken_for_what():
    """Six classes of two alphabets; one image of each lies where another class of the same alphabet does."""
    labels = torch.arange(6).repeat_interleave(4)
    centres = torch.eye(6) * 9
    table = centres[labels].clone()
    strays = {3: 1, 7: 0, 11: 2, 15: 4, 19: 3, 23: 5}  # the last image of each class, and where it lies
    for place, other in strays.items():
        table[place] = centres[other]
    data = data_of(labels, ["greek" if label < 3 else "latin" for label in labels.tolist()])
    head = build_head(in_full(Registry.discover(), "heads", "fewshot.prototype", {}), 6, 6).eval()
    pools = Pools.of(data.test)
    found = figures.of_episodes(head, table, data, pools, Shapes((6, 6), (3, 3), 1), seed=0, count=50)
    counts = found["alphabets"].counts
    assert found["alphabets"].classes == ("greek", "latin") and counts[0][1] == counts[1][0] == 0
    assert counts[0][0] > 10 and counts[1][1] > 5
    shown = found["hardest"]
    first, second = shown.captions[:2]
    place = int(shown.pictures[0][0, 0])
    query, taken = data.classes[labels[place]], data.classes[strays[place]]
    assert first.startswith(f"{query} (") and second == f"as {taken}"
    points = found["features"].series
    assert set(points) == {*"abcdef", "means of the support"} and all(len(points[name]) == 4 for name in "abcdef")


def test_curves_are_drawn_where_there_is_one():
    rows = [{"part": "test", "ways": "5", "shots": shots, "accuracy": 0.5, "ci95": 0.1} for shots in ("5", "1")]
    (figure,) = figures.by_shots(rows).values()
    assert [x for x, _ in figure.series["5-way"]] == [1.0, 5.0] and figure.y_ranges["5-way"][0] == (0.4, 0.6)
    assert figures.by_shots(rows[:1]) == {} == figures.curves([], "accuracy")
    shares = figures.histogram(torch.tensor([0.0, 0.35, 0.99, 1.0]))["episodes"].series["test episodes"]
    assert shares == [0.25, 0, 0, 0.25, 0, 0, 0, 0, 0, 0.5]
