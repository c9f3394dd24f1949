"""Lava computes what our simulator computes, bit for bit: random networks of every kind, in Lava where it is found."""

import pytest

from engram.backbone.errors import UserError
from engram.snn.loihi.lava.driver import Job, agreements
from engram.snn.loihi.lava.environment import find
from engram.snn.loihi.network import chip_delay


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


@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 60), marks=pytest.mark.slow)])
def test_every_membrane_and_message_of_every_step_is_lavas(drawn, seeds):
    made = jobs(drawn, seeds)
    assert len(made) > 0.7 * len(seeds)
    found = agreements(made)
    assert [each.first for each in found] == [None] * len(made)
    assert min(each.share for each in found) == 1
