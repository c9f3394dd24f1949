import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.snn.graph.pooling import running

POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, 1, dilation=2),
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.AdaptiveMaxPool2d(3),
]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_sum_over_time_is_the_maximum_of_the_sums_at_every_step(pool, layout):
    drive = torch.randn(7, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    drive = drive.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, (7, 3))
    pooled = running(pool).along_time(drive)[0]
    for t in range(1, 8):
        torch.testing.assert_close(pooled[:t].sum(0), pool(drive[:t].sum(0)), rtol=1e-5, atol=1e-5)
    assert pooled.flatten(0, 1).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_a_constant_is_pooled_as_always(pool):
    x = torch.randint(-8, 9, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float() / 8
    assert torch.equal(running(pool)(x), pool(x))
    for pooled in running(pool).along_time(x.expand(4, *x.shape))[0]:
        assert torch.equal(pooled, pool(x))


def test_spikes_of_one_threshold_come_out_as_spikes():
    spikes = 0.5 * (torch.rand(20, 2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.4)
    pooled = running(nn.MaxPool2d(2)).along_time(spikes)[0]
    assert set(pooled.unique().tolist()) == {0.0, 0.5}
    assert torch.equal(pooled.sum(0), F.max_pool2d(spikes.sum(0), 2))
    assert float(F.max_pool2d(spikes.flatten(0, 1), 2).mean()) > 1.2 * float(pooled.mean())  # what every step would say


def test_gradients_pass():
    drive = torch.randn(3, 1, 1, 4, 4, requires_grad=True)
    running(nn.MaxPool2d(2)).along_time(drive)[0].sum().backward()
    assert drive.grad is not None
    assert float(drive.grad.sum()) == pytest.approx(3 * 4)
