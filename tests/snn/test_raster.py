"""Spike times as a figure."""

import torch

from engram.snn.measures.raster import IMAGES, NEURONS, SpikeTimes


def test_times_of_the_first_images_one_after_another():
    times = SpikeTimes()
    spikes = torch.zeros(3, 2, 2, 1, 1)
    spikes[0, 0, 0] = spikes[2, 1, 0] = spikes[1, 1, 1] = 1  # step, image, neuron
    times.add("relu", spikes)
    times.add("relu", torch.ones_like(spikes))  # later images are none of the first
    figure = times.figure()
    assert figure.groups == {"relu": [[1.0, 6.0], [5.0]]}
    assert (figure.start, figure.end) == (0.0, 6.5)


def test_of_many_neurons_and_images_some_are_shown():
    times = SpikeTimes()
    spikes = torch.zeros(1, 20, 100)
    spikes[:, :, 50] = 1
    times.add("wide", spikes)
    trains = times.figure().groups["wide"]
    assert len(trains) == NEURONS
    assert [len(train) for train in trains] == [IMAGES * (100 * place // NEURONS == 50) for place in range(NEURONS)]
