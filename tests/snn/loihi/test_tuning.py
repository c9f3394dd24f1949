"""Training with the numbers of the chip."""

from pathlib import Path

import torch

from engram.backbone.data.load import load
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.training.options import TrainingOptions
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.quantiser import quantise
from engram.snn.loihi.simulator import Simulator
from engram.snn.loihi.tuning import tuned, tuning
from engram.snn.lowering.lower import lower
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions


def test_a_network_of_two_bits_is_trained_by_the_trunks_loop(tmp_path: Path):
    torch.manual_seed(0)
    data = load("digits", {}, root=tmp_path)
    plain = build("mlp", {"depth": 1, "units": 32}, data.in_shape, 10, data.mean, data.std)
    net = spiking(plain.backbone, SpikingOptions(steps=3, reset="hard", threshold=0.5))
    model = Classifier(net, plain.head, data.mean, data.std).eval()
    images, labels, _ = next(data.test.batches(torch.arange(200), 200, "cpu"))
    rounded = quantise(lower(model), QuantiseOptions(weight_bits=2), images)

    def accuracy(network):
        given = network.input.whole(images.double() / 255)
        return float((Simulator(network).run(given).logits[-1].argmax(1) == labels).double().mean())

    trainer = tuning(rounded, data.train, TrainingOptions(epochs=2, lr=0.02, batch_size=64), Machine("cpu", "fp32"))
    assert accuracy(tuned(trainer)) == accuracy(rounded.network) < 0.3
    while not trainer.done:
        trainer.advance()
    assert accuracy(tuned(trainer)) > 0.6
    trainer.model.eval()
    with torch.no_grad():
        assert float((trainer.model(images).argmax(1) == labels).double().mean()) == accuracy(tuned(trainer))
