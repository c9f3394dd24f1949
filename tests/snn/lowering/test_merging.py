"""The layers between two populations as one."""

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.snn.lowering.merging import merged
from engram.snn.lowering.network import Connection

POOL, FLAT = nn.AvgPool2d, nn.Flatten


def conv(*args, **kwargs):
    return nn.Conv2d(*args, **kwargs)


CHAINS = {
    "nothing": ((3, 4, 5), [], "conv"),
    "pool alone": ((3, 6, 6), [POOL(2)], "conv"),
    "pool and convolution": ((4, 8, 8), [POOL(2), conv(4, 6, 3, padding=1)], "conv"),
    "a pool with a rest": ((4, 9, 9), [POOL(2), conv(4, 6, 3, padding=1)], "dense"),
    "a pool with a rest, no padding": ((4, 9, 9), [POOL(2), conv(4, 6, 3)], "conv"),
    "a pool with a rest that is not reached": ((4, 9, 9), [POOL(2), conv(4, 6, 3, stride=2, padding=1)], "conv"),
    "groups": (
        (4, 8, 8),
        [conv(4, 8, 3, padding=1, groups=2), conv(8, 8, 3, groups=4), conv(8, 4, 1, groups=2)],
        "conv",
    ),
    "dilation": ((2, 12, 12), [conv(2, 4, 2, dilation=2), conv(4, 2, 2, dilation=3, stride=2)], "conv"),
    "padding between": ((2, 7, 7), [conv(2, 3, 3, padding=1), conv(3, 4, 3, padding=1)], "dense"),
    "normalisation": ((2, 7, 7), [conv(2, 2, 1, groups=2), conv(2, 4, 3, padding=1)], "conv"),
    "padded pool": ((2, 7, 7), [POOL(3, 2, 1), conv(2, 4, 3)], "conv"),
    "pool that counts no padding": ((2, 7, 7), [POOL(3, 2, 1, count_include_pad=False)], "dense"),
    "divisor": ((2, 6, 6), [POOL(3, 3, divisor_override=1)], "conv"),
    "ceil": ((2, 7, 7), [POOL(2, ceil_mode=True)], "dense"),
    "circular": ((2, 5, 5), [conv(2, 4, 3, padding=1, padding_mode="circular")], "dense"),
    "global pool and head": ((4, 6, 6), [conv(4, 5, 3), POOL(4), FLAT(), nn.Linear(5, 3)], "dense"),
    "flatten": ((2, 3, 4), [FLAT(), nn.Linear(24, 5), nn.Linear(5, 2)], "dense"),
    "flatten alone": ((2, 3, 4), [FLAT()], "dense"),
    "one row": ((3, 8, 7), [POOL((2, 1)), conv(3, 4, (1, 3), padding=(0, 1), stride=(1, 2))], "conv"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_merged_layers_compute_what_the_layers_do(name):
    torch.manual_seed(0)
    shape, layers, kind = CHAINS[name]
    chain = nn.Sequential(*layers).double()
    one = merged(Connection(source="input", layers=chain), shape)
    x = torch.randn(3, *shape, dtype=torch.float64)
    torch.testing.assert_close(one.apply(x) + one.biases(), chain(x).detach(), rtol=1e-12, atol=1e-12)
    assert (one.kind, one.out_shape) == (kind, tuple(chain(x).shape[1:]))


def test_a_normalisation_in_front_of_a_border_gives_each_neuron_its_bias():
    one = merged(Connection(source="input", layers=nn.Sequential(*CHAINS["normalisation"][1])), (2, 7, 7))
    assert one.bias.shape == (4, 7, 7) and one.bias[:, 0, 0].ne(one.bias[:, 3, 3]).all()
    assert merged(Connection(source="input", layers=nn.Sequential(nn.Conv2d(2, 4, 3))), (2, 7, 7)).bias.shape == (4,)


def test_what_would_be_too_large_a_matrix_is_refused(monkeypatch):
    monkeypatch.setattr("engram.snn.lowering.merging.LARGEST", 1000)
    shape, layers, _ = CHAINS["ceil"]
    with pytest.raises(UserError, match="at most 1,000 weights; got 3,136"):
        merged(Connection(source="input", layers=nn.Sequential(*layers)), shape)
