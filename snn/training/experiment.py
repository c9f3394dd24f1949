"""Experiment ``snn.train``: train a spiking network, and measure what its spikes cost."""

from __future__ import annotations

import torch

from engram.backbone.contract import Result, Services
from engram.backbone.data.load import Data
from engram.backbone.errors import must
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.experiments.train import Train
from engram.backbone.measures.answers import answers, steps_taken
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.heads import as_linear
from engram.snn.training.configs import SpikingTrainConfig
from engram.snn.training.network import SpikingNetwork
from engram.snn.training.survey import Survey

SCORING_FRAMES = 512
"""Images, or frames of them, at once."""


class SpikingTrain(Train):
    """`engram.backbone.experiments.train.Train` of a network with spiking neurons."""

    def __init__(self, config: SpikingTrainConfig, services: Services) -> None:
        super().__init__(config, services)
        self.config: SpikingTrainConfig = config
        self.neurons = config.neurons()

    def begin(self, data: Data) -> Beginning:
        beginning = super().begin(data)
        if isinstance(beginning.model.backbone, SpikingNetwork):
            remedy = "Train it on with: backbone.train --from."
            raise must("the network for snn.train", "one without neurons so far", "a spiking one", remedy)
        as_linear(beginning.model.head, "snn.train")  # what its spikes cause there is counted
        beginning.add("snn.spiking", self.neurons)
        return beginning

    def measure(self, model: Classifier, data: Data) -> Result:
        """Test accuracy after every number of steps, spikes and synaptic operations."""
        assert isinstance(model.backbone, SpikingNetwork)  # the last adapter made it one
        frames = data.frames or 1
        survey = Survey(model, steps_taken(model, data.test))
        everything, size = torch.arange(len(data.test)), max(SCORING_FRAMES // frames, 1)
        for images, labels, _ in data.test.batches(everything, size, self.services.device):
            survey.add(images, labels)
            self.services.progress(survey.answers.images, len(data.test), "counting spikes")
        held = None if data.validation is None else answers(model, data.validation, self.services.device)
        tables, structure = survey.tables(held), survey.structure
        last = {name: float(value or 0) for name, value in tables["accuracy_vs_steps"][-1].items()}
        return Result(
            metrics={
                "test/accuracy": last["accuracy"],
                "test/loss": last["loss"],
                "spikes_per_neuron_per_step": last["spikes_per_neuron_per_step"],
                "spikes_per_image": last["spikes"],
                "synaptic_operations": last["synaptic_operations"],
                "analog_macs": float(structure.analog_macs * survey.passes),
                "macs": float(structure.macs * survey.passes),
                **survey.answers.metrics(held),
            },
            tables=tables,
            figures=survey.figures(),
        )
