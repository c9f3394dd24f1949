"""Training on with the numbers of the chip, so that what rounding cost is learned back."""

from __future__ import annotations

import torch
from torch import nn

from engram.backbone.contract import Objective
from engram.backbone.data.sets import Split
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.snn.loihi.network import ChipNetwork
from engram.snn.loihi.quantiser import Quantised
from engram.snn.loihi.trainable import TrainableChip


def tuning(
    quantised: Quantised, data: Split, options: TrainingOptions, machine: Machine, objective: Objective | None = None
) -> Trainer:
    """A training of a quantised network, from the weights that were rounded.

    Args:
        quantised: the network.
        data: training images.
        options: of the training; a tenth of the rate that the network was trained with is a good one.
        machine: where; whatever its precision, whole numbers are float32.
        objective: what is minimised; None for the cross-entropy.

    Returns: a trainer; call `Trainer.advance` until it is done, then `tuned`.

    Raises:
        UserError: see `TrainableChip` and `Trainer`.
    """
    chip = TrainableChip(quantised.network, quantised.exact)
    channels = chip.in_shape[0]
    model = Classifier(chip, nn.Identity(), torch.zeros(channels), torch.ones(channels))
    return Trainer(model, data, options, Machine(machine.device, "fp32"), objective)


def tuned(trainer: Trainer) -> ChipNetwork:
    """The network in whole numbers as a training has left it."""
    chip = trainer.scored_model.backbone
    assert isinstance(chip, TrainableChip)
    return chip.network()
