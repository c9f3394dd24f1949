"""Published figures this package is held to: ``engram reproduce fewshot/...``."""

from __future__ import annotations

from engram.backbone.contract import Target

_SOURCE = (
    "the code of Snell et al. 2017 (arXiv 1703.05175), as its users report in issue 2 of jakesnell/"
    "prototypical-networks; the paper has {paper}"
)


def _omniglot(ways: int, shots: int, percent: float, paper: float) -> Target:
    """Prototypical networks; theirs is of one run."""
    return Target(
        name=f"fewshot/omniglot/{ways}-way-{shots}-shot",
        experiment="fewshot.episodes",
        options={
            "dataset": "omniglot",
            "dataset.split": "vinyals",
            "dataset.size": 28,
            "backbone": "conv4",
            "head": "fewshot.prototype",
            "ways": str(ways),
            "shots": str(shots),
            "validation": 0.0,
            "train_ways": 60,
            "train_episodes": 6_000,
        },
        metric="test/accuracy",
        value=round(percent / 100, 4),
        tolerance=0.005,
        seeds=(0, 1, 2),
        protocol="Vinyals' split with quarter turns as classes, trained on training and validation classes together, "
        "60-way episodes with the test's shots and 5 queries; 1,000 test episodes of 15 queries",
        source=_SOURCE.format(paper=paper),
        date="2017",
        minutes=12,
        needs_gpu=True,
    )


TARGETS = (
    _omniglot(5, 1, 98.4, 98.8),
    _omniglot(5, 5, 99.6, 99.7),
    _omniglot(20, 1, 94.9, 96.0),
    _omniglot(20, 5, 98.6, 98.9),
)
