"""Images as whole numbers of a network's input."""

import torch

from engram.snn.loihi.network import Input


def test_images_become_whole_numbers_of_so_many_bits():
    given = Input(shape=(1, 1, 4), gain=255.0)
    assert given.whole(torch.tensor([0.0, 0.5, 1.0, 1.5])).tolist() == [0, 128, 255, 255]
    signed = Input(shape=(1, 1, 4), bits=4, signed=True, gain=6.0, offset=-1.0)
    assert signed.whole(torch.tensor([-2.0, 0.25, 1.0, 3.0])).tolist() == [-8, 0, 5, 7]
