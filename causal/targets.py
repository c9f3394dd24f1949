"""Claims this package is held to, published ones and our own: ``engram reproduce causal/...``."""

from __future__ import annotations

from engram.backbone.contract import Scalar, Target

ORACLE = "oracle selection: its hyper-parameters were chosen on the test images"
_IRM_PROTOCOL: dict[str, Scalar] = {
    **{"dataset": "coloured-mnist:irm", "validation": 0.0, "oracle-share": 0.0, "selection": "oracle"},
    **{"backbone": "mlp", "backbone.initialisation": "glorot", "backbone.raw": True, "head": "logistic"},
    **{"batch-size": 50_000, "epochs": 501, "schedule": "constant", "warmup": 0.0, "weight-decay": 0.0},
    **{"precision": "fp32", "evaluations": 5},
}
"""Coloured MNIST as Arjovsky et al. 2019 train on it: two hidden layers, one logit, all images in every step, Adam at
one rate, the last of 501 steps."""
_ANNEALED: dict[str, Scalar] = {"objective.restart": False}
_SOURCES = {
    "irm": "Arjovsky et al. 2019 (arXiv 1907.02893), table 2, and published code (reproduce_paper_results.sh)",
    "rex": "Krueger et al. 2021 (arXiv 2003.00688), table 1, and published code (colored_mnist/main.py)",
}


def _coloured(
    name: str,
    value: float,
    minutes: float,
    options: dict[str, Scalar],
    *,
    tolerance: float,
    source: str = "irm",
    exact: bool = False,
    note: str = ORACLE,
) -> Target:
    """A method on Coloured MNIST by IRM's protocol; ten restarts, as published."""
    return Target(
        name=f"causal/coloured-mnist/{name}",
        experiment="causal.shift",
        options={**_IRM_PROTOCOL, **options},
        metric="test/accuracy",
        value=value,
        tolerance=tolerance,
        seeds=tuple(range(10)),
        protocol="IRM's Coloured MNIST: 50,000 images in two environments (colour wrong for 20 and 10 %), 10,000 of a "
        "third (90 %) to test on, labels wrong for 25 %; 10 restarts, which differ in initial weights alone",
        source=_SOURCES[source],
        date="2019" if source == "irm" else "2021",
        minutes=minutes,
        exact=exact,
        note=note,
    )


def _adjusting(estimator: str, distance: float, claim: str) -> Target:
    """A head on pictures whose causes are known."""
    return Target(
        name=f"causal/scm/{estimator}",
        experiment="causal.scm",
        options={"estimator": estimator, "backbone.width": 0.5},
        metric="test/distance_to_do",
        value=distance,
        tolerance=0.0,
        seeds=(0, 1, 2, 3, 4),
        protocol="shapes-scm: 40,000 pictures, vgg-tiny of half the width, 4 epochs; total variation between the mean "
        "answer to all test pictures of a shape and the exact "
        "P(y | do(shape)), mean over the three shapes; P(y | shape) is 0.244 away, 0.225 for the nearest shape",
        source=f"an acceptance figure of our own: {claim}",
        minutes=3,
        needs_data=False,
    )


TARGETS = (
    _coloured("erm", 0.171, 80, {"backbone.units": 256, "l2": 0.001, "lr": 0.001}, tolerance=0.02, exact=True, note=""),
    _coloured(
        "irm",
        0.669,
        150,
        {
            **{"objective": "irm", "objective.penalty": 91257.18613115903, "objective.anneal": 190, **_ANNEALED},
            **{"objective.estimate": "square", "backbone.units": 390},
            **{"l2": 0.00110794568, "lr": 0.0004898536566546834},
        },
        tolerance=0.025,
    ),
    _coloured(
        "vrex",
        0.687,
        80,
        {
            **{"objective": "vrex", "objective.penalty": 20_000.0, "objective.anneal": 100, **_ANNEALED},
            **{"backbone.units": 256, "l2": 0.0005, "lr": 0.001},
        },
        tolerance=0.02,
        source="rex",
        note=f"{ORACLE}. Their loss is the sum of two risks, their penalty 10,000 times the squared difference of "
        "these and their decay 0.001, twice what the mean of the risks, 20,000 times their variance and half the decay "
        "are. Before step 100 their variance counts twice and ours once, and afterwards Adam's eps is four times as "
        "large beside our gradients",
    ),
    _coloured(
        "grey",
        0.73,
        4,
        {
            **{"dataset.grey": True, "backbone.units": 83, "epochs": 101},
            **{"l2": 0.0008602868865288383, "lr": 0.0028171488133821726},
        },
        tolerance=0.01,
        note=f"{ORACLE}. The grey digit is in both channels, where theirs has one",
    ),
    _adjusting("exact", 0.02, "the exact back-door head is within 0.02 of P(y | do(x))"),
    _adjusting("frontdoor", 0.02, "so is the front-door head where the confounder is not told"),
)
