"""Options of neurons: what is filled in, and what contradicts itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engram.snn.neurons.options import NeuronOptions


def test_values_are_filled_in_for_the_neuron_that_has_them():
    assert NeuronOptions(neuron="if").filled().decay is None
    assert NeuronOptions(neuron="lif").filled().synaptic_decay is None
    adaptive = NeuronOptions(neuron="adaptive-lif", adaptation=0.7, surrogate="sigmoid").filled()
    assert (adaptive.decay, adaptive.adaptation, adaptive.adaptation_decay, adaptive.slope) == (0.5, 0.7, 0.9, 4.0)
    assert adaptive.filled() == adaptive


def test_every_neuron_is_possible_without_options():
    for neuron in ("if", "lif", "plif", "cuba-lif", "adaptive-lif"):
        assert NeuronOptions(neuron=neuron).problems() == []
        assert NeuronOptions(neuron=neuron).filled().problems() == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"neuron": "if", "decay": 0.5}, "decay must be left out for neuron if; got 0.5. Use neuron adaptive-lif or"),
        ({"synaptic_decay": 0.5}, "synaptic_decay must be left out for neuron lif; got 0.5. Use neuron cuba-lif."),
        ({"neuron": "plif", "decay": 1.0}, "decay must be below 1 for neuron plif"),
        (
            {"engine": "snntorch", "neuron": "adaptive-lif"},
            "neuron must be if, lif, plif or cuba-lif for engine snntorch",
        ),
        ({"engine": "snntorch", "refractory": 2}, "refractory must be 0 for engine snntorch; got 2. Use engine fused."),
        (
            {"engine": "norse"},
            "surrogate must be superspike with slope 1 or triangle with slope 1 or sigmoid with slope",
        ),
        (
            {"engine": "norse", "surrogate": "superspike", "slope": 5.0},
            "got superspike with slope 5. Use engine fused.",
        ),
        ({"engine": "norse", "surrogate": "triangle", "neuron": "if"}, "reset must be hard (if) for engine norse"),
        ({"engine": "norse", "surrogate": "triangle", "decay": 1.0}, "decay must be below 1 for engine norse"),
        ({"engine": "norse", "surrogate": "triangle", "refractory": 1}, "refractory must be 0, but for cuba-lif"),
    ],
)
def test_what_cannot_be_is_said(given, says):
    assert any(says in problem for problem in NeuronOptions(**given).problems())


def test_no_torch_is_imported():
    code = "import sys, engram.snn.neurons.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
