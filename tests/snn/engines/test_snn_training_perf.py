"""The speed comparison: that all libraries compute the same network, and one small run of its rows."""

from __future__ import annotations

import pytest
import torch

from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.benchmarks.perf import snn_peers, snn_training


def frames(steps=6, images=3):
    return (torch.rand(steps, images, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.3).float()


@pytest.mark.parametrize("name", ["Norse", "SpikingJelly", "sinabs"])
def test_the_peer_computes_what_we_compute(name):
    pytest.importorskip(name.lower())
    ours, peer = snn_peers.build("ours")(frames()), snn_peers.build(name)(frames())
    assert ours.sum() > 0
    assert (ours - peer).abs().mean() < 0.05  # a sum in another order may move a spike


def test_snntorch_resets_a_step_late_and_has_the_same_weights():
    ours, peer = snn_peers.build("ours"), snn_peers.build("snnTorch")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), peer.parameters(), strict=True))
    first = frames(1)
    assert torch.equal(ours(first), peer(first))
    assert not torch.equal(ours(frames()), peer(frames()))


def test_a_run_in_pieces_has_the_same_gradients():
    gradients = []
    for pieces in (1, 3):
        net = snn_peers.build("ours")
        net.pieces = pieces
        net(frames()).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_the_rows_of_one_comparison(monkeypatch):
    for name, value in {"BATCH": 2, "STEPS": 3, "ROUNDS": 1, "PEERS": ("snnTorch",)}.items():
        monkeypatch.setattr(snn_training, name, value)
    rows = snn_training._speed("fp32")
    names = ["train/snnTorch", "infer/snnTorch", "train/floor", "infer/floor"]
    assert [row.name for row in rows] == [f"snn-training/fp32/{name}" for name in names]
    assert all(row.unit == "s" and not row.higher_is_better and row.ours > 0 for row in rows)
    assert rows[0].peer_name == "snnTorch, fp32"


def test_accuracies_are_compared_by_seed(monkeypatch, tmp_path):
    monkeypatch.setattr(snn_training, "_data", lambda: load("digits", {}, root=tmp_path))
    monkeypatch.setattr(
        snn_training, "score", lambda name, _precision, seed, _data: 0.9 + 0.01 * seed + (name == "ours") * 0.02
    )
    monkeypatch.setattr(snn_training, "PEERS", ("Norse",))
    (row,) = snn_training._accuracy("fp32")
    assert (row.unit, row.n, row.higher_is_better) == ("fraction", 3, True)
    assert row.peer_name == "Norse, fp32: difference +0.0200 (+0.0200 to +0.0200, 95 %)"


def test_the_short_training_learns(monkeypatch, tmp_path):
    monkeypatch.setattr(snn_training, "TRAINING_STEPS", 25)
    monkeypatch.setattr(snn_training, "TRAINING_T", 3)
    monkeypatch.setattr(snn_training, "SCORED", 100)
    assert snn_training.score("ours", "fp32", 0, load("digits", {}, root=tmp_path)) > 0.3


def test_a_missing_library_is_named(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'sinabs'", name="sinabs")

    monkeypatch.setitem(snn_peers.NETWORKS, "sinabs", missing)
    with pytest.raises(UserError, match="sinabs must be installed for this comparison"):
        snn_peers.build("sinabs")
