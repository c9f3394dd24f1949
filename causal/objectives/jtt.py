"""The objective ``jtt``: what a first network gets wrong counts more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs, Row
from engram.backbone.errors import must
from engram.backbone.objectives.cross_entropy import cross_entropies
from engram.causal.objectives.reference import answers_of
from engram.causal.objectives.reference_options import JTTOptions


class JTT(Objective):
    """Just train twice: the cross-entropy, in which what the reference network gets wrong counts more.

        L = sum_i w_i CE_i / n,    w_i = u N / (N + (u - 1) E) for the E errors among N images, 1 / u of that for others

    Over all images the weights have mean 1. In expectation it is the loss of the paper, which shows each error u times.

    Args:
        wrong: [N] bool, the reference's errors among the training images.
        upweight: u.
        label_smoothing: share of the target that is spread over all classes.

    Attributes:
        weights: [N] float32.

    Raises:
        UserError: there are no errors, or nothing but errors.

    Source: Liu et al. 2021 (arXiv 2107.09044), algorithm 1.
    """

    by_rows = True

    def __init__(self, wrong: Tensor, upweight: float, label_smoothing: float = 0.0) -> None:
        self.wrong, self.label_smoothing = wrong, label_smoothing
        errors, images = int(wrong.sum()), len(wrong)
        if errors in (0, images):
            rule, got = "right on some training images and wrong on others", f"{errors} of {images} wrong"
            remedy = "Train it for fewer epochs, or for more: --reference-epochs"
            raise must("the reference network of jtt", rule, got, remedy)
        weights = wrong.float() * (upweight - 1) + 1
        self.weights = weights / weights.mean()

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        weights = self.weights[batch.indices.to(self.weights.device, non_blocking=True)]
        weights = weights.repeat(len(batch.labels) // len(weights))  # rows may be those of several steps
        losses = cross_entropies(outputs.logits, batch.labels, self.label_smoothing, outputs.offered)
        batch.losses = weights * losses
        return batch.losses.mean()

    def tables(self) -> Mapping[str, Sequence[Row]]:
        both = {"wrong": self.wrong, "right": ~self.wrong}
        return {
            "reference": [
                {"answer": name, "images": int(those.sum()), "weight": float(self.weights[those][0])}
                for name, those in both.items()
            ]
        }


def jtt(options: JTTOptions, setting: ObjectiveSetting) -> JTT:
    """The objective, of the errors that a reference network makes on the training images as they are."""
    wrong = answers_of(setting).argmax(1) != setting.data.labels.to(setting.device)
    return JTT(wrong, options.upweight, setting.label_smoothing)
