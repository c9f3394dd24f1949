"""Lava computes what our simulator computes, bit for bit: random networks of every kind, in Lava where it is found."""

import pytest

from engram.backbone.errors import UserError
from engram.snn.loihi.lava.driver import Job, agreements
from engram.snn.loihi.lava.environment import find
from engram.snn.loihi.network import chip_delay

LARGEST = 2**23
"""No message of the chip is larger. Circles of sigma-delta neurons send larger ones, whose sums leave 32 bits: Lava's
Dense and DelayDense cut those at different places."""


@pytest.fixture(scope="module", autouse=True)
def lava():
    try:
        return find()
    except UserError as error:
        pytest.skip(str(error))


def jobs(drawn, seeds):
    made = []
    for seed in seeds:
        draw = drawn(seed, extreme=seed % 3 == 2)
        network = draw.network("sigma-delta" if seed % 2 else "lif", frames=seed % 5 == 0, circle=seed % 4 == 3)
        ways = [(one, each.name) for each in network.populations for one in each.synapses]
        if all(chip_delay(network, one, name) > 0 for one, name in ways):  # every way takes a step in Lava
            made.append(Job(network, draw.images(network)))
    return made


@pytest.mark.parametrize(
    ("seeds", "how"),
    [
        (range(30), "models"),
        (range(3, 4), "runtime"),
        pytest.param(range(30, 1000), "models", marks=pytest.mark.slow),
        pytest.param(range(4, 60), "runtime", marks=pytest.mark.slow),
    ],
)
def test_every_membrane_and_message_of_every_step_is_lavas(drawn, seeds, how):
    made = jobs(drawn, seeds)
    assert len(made) > 0.7 * len(seeds)
    equal = 0
    for begin in range(0, len(made), 200):
        for found in agreements(made[begin : begin + 200], how):
            assert found.first is None or found.largest >= LARGEST
            equal += found.share == 1
    assert equal > 0.9 * len(made)
