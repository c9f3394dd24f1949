"""Networks written for torch's own memory layout learn streams, under strategies that run them in ways of their own."""

import pytest
import torch
from torch import nn

from engram.backbone.nets.classifier import Classifier

WRITTEN = ["view(x.size(0), -1)", "reshape(n, -1) of the images"]


@pytest.mark.parametrize("flattening", WRITTEN, indirect=True)
@pytest.mark.parametrize(
    ("strategies", "options"),
    [
        (("er", "lwf"), {}),
        (("icarl",), {}),
        (("si",), {"adapter": "snn.qcfs"}),
        (("derpp",), {"adapter": "snn.spiking", "adapter_options": {"steps": 2}}),
    ],
    ids=["er and lwf", "icarl", "quantised", "spiking"],
)
def test_a_stream_is_learned(strategies, options, stranger, learn, monkeypatch):
    def build(name, given, in_shape, outputs, mean, std, head):
        stranger.in_shape, stranger.conv1 = in_shape, nn.Conv2d(1, 6, 3, padding=1)
        return Classifier(stranger, nn.Linear(12, outputs), mean, std)

    monkeypatch.setattr("engram.backbone.experiments.beginning.build", build)
    done = learn(*strategies, backbone_options={}, tasks=2, epochs=1, head="single", **options)
    assert done.state.learner.task == 1 and torch.isfinite(done.weights()).all()
    assert 0 < done.metrics["test/task_aware_accuracy"] <= 1
