"""Claims this package is held to, published ones and our own: ``engram reproduce feedback/...``."""

from __future__ import annotations

from itertools import chain

from engram.backbone.contract import Scalar, Target

CIFAR10: dict[str, Scalar] = {
    "dataset": "cifar10",
    "backbone": "airnet",
    "backbone.width": 0.35,
    "epochs": 6,
    "tune": 1,
    "train-seed": 0,
    "steps": 3,
    "images": 500,
    "severities": "1,3,5",
}
"""As in ``benchmarks/suites/feedback-cifar10.toml``."""


def _pays(adapter: str, minutes: float = 50, **options: Scalar) -> tuple[Target, ...]:
    """A kind of feedback beside each of its controls; the trials are the same."""
    return tuple(
        Target(
            name=f"feedback/cifar10/{adapter}/{control}",
            experiment="feedback.robustness",
            options={**CIFAR10, "adapter": f"feedback.{adapter}", **options},
            metric=f"test/gain/{control}",
            value=0.0,
            tolerance=0.0,
            seeds=(0, 1, 2),
            protocol="engram-robustness/1: one network of 6 epochs, trained on with the adapter for one; controls "
            "alike; 500 test pictures under 13 corruptions of severity 1, 3 and 5. Far fewer epochs than published "
            "networks have. All seeds go on from one trunk, so that their interval is of the last epoch alone",
            source="a sign alone, 0 points or more, and no published figure: networks with lateral and top-down "
            "connections (BLT) recognise cluttered and noisy digits better than feed-forward controls with about as "
            "many parameters, Spoerer et al. 2017 (doi 10.3389/fpsyg.2017.01551), abstract. That it holds for other "
            "kinds of feedback, for CIFAR-10 and beside as many operations is a question of our own",
            date="2017",
            minutes=minutes,
        )
        for control in ("parameters", "flops")
    )


def _mixing(noise: str, minutes: float) -> Target:
    """Predictive coding on the shallow network, its shares trained anew for each level of noise."""
    return Target(
        name=f"feedback/mixing/{noise}",
        experiment="feedback.mixing",
        options={"dataset": "cifar10", "noise": noise},
        metric="feedback_share/rise",
        value=0.0,
        tolerance=0.0,
        seeds=(0, 1, 2, 3, 4),
        protocol="the shallow network of 6 epochs and predictions of one (published: 25 and 20), 40 updates of 32 "
        "images a level (3,900 of 128 at a hundredth of the rate)",
        source="feedback contributes more the noisier the pictures are, Alamia et al. 2023 (Neural Networks 157, 280; "
        "arXiv 2106.04225), abstract: a sign alone, no figure",
        date="2023",
        minutes=minutes,
    )


EARLY_EXIT = Target(
    name="feedback/early-exit/digits",
    experiment="backbone.train",
    options={"dataset": "digits", "backbone": "vgg-tiny", "adapter": "feedback.gated", "discount": 0.8},
    metric="test/early_exit_share_of_steps",
    value=0.6,
    tolerance=0.0,
    seeds=(0, 1, 2, 3, 4),
    protocol="4 steps; the criterion and threshold with the fewest mean steps that keep 99 % of the accuracy of all "
    "steps, chosen on validation images. One step is nearly enough for these digits: an easy case",
    source="an acceptance figure of our own: at most 60 % of the steps; nobody has published it",
    minutes=6,
    needs_data=False,
)

TARGETS = (
    *chain.from_iterable(map(_pays, ("gated", "additive", "blt", "lateral", "generative"))),
    *_pays("predictive", **{"adapter.kernel": 1}),
    *_pays("equilibrium", 200, steps=12),  # with 3 neither the search nor the gradient's equation arrives
    EARLY_EXIT,
    _mixing("gaussian", 45),
    _mixing("salt-and-pepper", 45),
)
