"""Published claims this package is held to: ``engram reproduce feedback/...``."""

from __future__ import annotations

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


def _pays(adapter: str, **options: Scalar) -> Target:
    """A kind of feedback beside the control with as many parameters."""
    return Target(
        name=f"feedback/cifar10/{adapter}",
        experiment="feedback.robustness",
        options={**CIFAR10, "adapter": f"feedback.{adapter}", **options},
        metric="test/gain/parameters",
        value=0.0,
        tolerance=0.5,
        seeds=(0, 1, 2),
        protocol="engram-robustness/1: one network of 6 epochs, trained on with the adapter for one; controls alike; "
        "500 test pictures under 13 corruptions of severity 1, 3 and 5. Far fewer epochs than published networks have",
        source="recurrent networks recognise occluded and noisy digits better than feed-forward controls with about as "
        "many parameters, Spoerer et al. 2017 (doi 10.3389/fpsyg.2017.01551), abstract: a sign alone, 0 points or more",
        date="2017",
        minutes=50,
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


TARGETS = (
    *map(_pays, ("gated", "additive", "blt", "lateral", "equilibrium", "generative")),
    _pays("predictive", **{"adapter.kernel": 1}),
    _mixing("gaussian", 45),
    _mixing("salt-and-pepper", 45),
)
