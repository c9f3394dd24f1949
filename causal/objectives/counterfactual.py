"""The objective ``counterfactual``: what attention adds to the logits has to tell the classes apart by itself."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import Batch, Counterfactual, Objective, ObjectiveSetting, Outputs, Training, Wanted
from engram.backbone.errors import must
from engram.backbone.objectives.cross_entropy import cross_entropies
from engram.causal.objectives.attention_options import EffectOfAttentionOptions


class EffectOfAttention(Objective):
    """Mean over rows of ``w CE(Y(A), y) + v CE(Y(A) - Y(A_cf), y)``.

    Y(A) are the logits, Y(A_cf) those with other attention maps: their difference is the effect of the maps on the
    logits, with the values of the last stage held. The gradient reaches both.

    Args:
        options: w and v.
        label_smoothing: share of the target that is spread over all classes.

    Source: Rao, Chen, Lu and Zhou 2021 (arXiv 2108.08728), equation 8. They train two more terms, which are left out:
    the cross-entropy of pictures cropped and erased by the maps (their augmentation, weight 2/3), and a centre loss.
    """

    wants: tuple[Wanted, ...] = ("counterfactual",)
    by_rows = True

    def __init__(self, options: EffectOfAttentionOptions, label_smoothing: float = 0.0) -> None:
        self.options, self.label_smoothing = options, label_smoothing

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        assert outputs.counterfactual is not None  # wanted
        each = [
            weight * cross_entropies(logits, batch.labels, self.label_smoothing, outputs.offered)
            for weight, logits in (
                (self.options.label, outputs.logits),
                (self.options.effect, outputs.logits - outputs.counterfactual),
            )
        ]
        batch.losses = each[0] + each[1]
        return batch.losses.mean()

    def begin(self, training: Training) -> None:
        """Look at the network.

        Raises:
            UserError: it has no such attention.
        """
        net = training.model.backbone
        if not isinstance(net, Counterfactual):
            remedy = "Use --adapter causal.counterfactual-attention, behind all others."
            raise must("the network for the objective counterfactual", "Counterfactual", type(net).__name__, remedy)


def counterfactual(options: EffectOfAttentionOptions, setting: ObjectiveSetting) -> EffectOfAttention:
    """The objective, with the label smoothing that the options of the training have."""
    return EffectOfAttention(options, setting.label_smoothing)
