"""What bits of weights cost, layer by layer."""

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.quantiser import quantise
from engram.snn.loihi.sensitivity import Sensitivity
from engram.snn.lowering.network import Cells, Connection, Lowered, Population
from engram.snn.lowering.running import run


@pytest.fixture(scope="module")
def sensitivity():
    """A network whose first layer has the weights of a code that 2 bits hold, and whose second one needs more."""
    torch.manual_seed(0)
    first, second = nn.Linear(16, 12), nn.Linear(12, 4)
    first.weight.data = torch.randint(-1, 2, (12, 16)).float() / 2
    populations = (
        Population(
            name="a",
            shape=(12,),
            cells=Cells(kind="spiking", reset="hard"),
            connections=(Connection(source="input", layers=nn.Sequential(nn.Flatten(), first)),),
        ),
        Population(
            name="out",
            shape=(4,),
            cells=Cells(kind="integrator"),
            connections=(Connection(source="a", layers=nn.Sequential(second)),),
        ),
    )
    lowered = Lowered(in_shape=(1, 4, 4), populations=populations, steps=5)
    images = torch.randint(0, 256, (200, 1, 4, 4)) / 255
    second.bias.data -= run(lowered, images).mean((0, 1))  # every class has its images
    labels = run(lowered, images).mean(0).argmax(1)
    return Sensitivity(lowered, QuantiseOptions(), images[:20], images, labels)


def test_each_layer_alone(sensitivity):
    rows = sensitivity.table()
    assert [(row["layer"], row["bits"]) for row in rows] == [
        ("", 8),
        *(("a", bits) for bits in (6, 4, 2)),
        *(("out", bits) for bits in (6, 4, 2)),
    ]
    assert [row["weights"] for row in rows[:2]] == [240, 192]
    two = {row["layer"]: row for row in rows if row["bits"] == 2}
    assert len(sensitivity.labels.unique()) == 4
    assert float(two["a"]["accuracy"]) > float(two["out"]["accuracy"]) and float(rows[0]["accuracy"]) > 0.9
    lowered = sensitivity.quantiser.lowered
    alone = quantise(lowered, QuantiseOptions(), sensitivity.images[:20], {"out": 4}).network
    assert sensitivity.score(alone) == sensitivity.single["out", 4]


def test_bits_go_where_they_cost_least(sensitivity):
    within = sensitivity.allocate(mean_bits=4.5)
    assert within.mean_bits <= 4.5 and within.bits["a"] < within.bits["out"]
    careful = sensitivity.allocate(most_lost=0.02)
    assert careful.score.accuracy >= sensitivity.begin.accuracy - 0.02
    assert careful.bits["a"] == 2
    assert sensitivity.allocate(mean_bits=2).bits == {"a": 2, "out": 2}


def test_what_cannot_be_allocated(sensitivity):
    with pytest.raises(UserError, match="neither"):
        sensitivity.allocate()
    with pytest.raises(UserError, match="The fewest are 2"):
        sensitivity.allocate(mean_bits=1)
