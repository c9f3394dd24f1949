"""Paired intervals against theory."""

import torch

from engram.backbone.measures.bootstrap import paired_bootstrap


def test_intervals_are_those_of_theory_where_means_are_normal():
    differences = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    differences[:, 1] = 0.5 + 3 * differences[:, 1]
    mean, low, high = paired_bootstrap(differences)
    torch.testing.assert_close(mean, differences.mean(0))
    expected = 1.96 * differences.std(0) / 20
    torch.testing.assert_close((high - low) / 2, expected, rtol=0.06, atol=0)
    again = paired_bootstrap(differences)
    assert all(torch.equal(a, b) for a, b in zip((mean, low, high), again, strict=True))


def test_what_two_networks_find_hard_in_common_widens_nothing():
    random = torch.Generator().manual_seed(1)
    hard = torch.rand(500, 1, generator=random)
    first, second = (torch.rand(500, 1, generator=random) < hard for _ in range(2))
    same = (first.float() - first.float(), first.float() - second.float())
    mean, low, high = paired_bootstrap(torch.cat(same, 1))
    assert (mean[0], low[0], high[0]) == (0, 0, 0)
    apart = torch.cat([first.float(), -second.float()], 1)  # as if they had seen different pictures
    _, below, above = paired_bootstrap(apart)
    unpaired = ((above - below).square().sum()).sqrt()
    assert float(high[1] - low[1]) < 0.9 * float(unpaired)


def test_the_truth_lies_in_nineteen_intervals_of_twenty():
    random = torch.Generator().manual_seed(2)
    drawn = torch.rand(80, 300, generator=random)  # columns are experiments: +1, 0 or -1 with mean 0.15
    _, low, high = paired_bootstrap((drawn < 0.35).double() - (drawn > 0.80).double())
    inside = float(((low <= 0.15) & (high >= 0.15)).double().mean())
    assert 0.91 <= inside <= 0.98
