"""A training step of an equilibrium: ours against torchdeq's on the same function; part of ``feedback``.

    conv 16 - pool - conv 32 - pool - conv 64 - pool, the last stage a gain on the two before

Both look for the fixed point of the same code with Anderson's mixing of five points, until the relative residual of
every image is at most 1e-3 or 30 evaluations are done, and solve the implicit function's equation for the gradient in
the same way. torchdeq stops both at what the whole batch has, and computes one step more in a pass.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from engram.backbone.nets.options import ConvOptions
from engram.backbone.nets.vgg import vgg_tiny
from engram.benchmarks.perf.harness import Row, interleaved
from engram.feedback.adapters.equilibrium import Equilibrium, EquilibriumStep, equilibrium
from engram.feedback.options import EquilibriumOptions

SHAPE, BATCH, STEPS, TOLERANCE, MEMORY = (3, 32, 32), 32, 30, 1e-3, 5
STRENGTH = 0.03
"""Deviation of the paths' weights: a search takes about ten evaluations."""
ROUNDS = 7


def rows() -> list[Row]:
    """The comparison; none where torchdeq is not installed."""
    if find_spec("torchdeq") is None:
        return []
    torch.manual_seed(0)
    options = EquilibriumOptions(steps=STEPS, tolerance=TOLERANCE, jacobian_penalty=0.0)
    net = equilibrium(vgg_tiny(SHAPE, ConvOptions()), options)
    for path in net.paths:
        torch.nn.init.normal_(path.conv.weight, std=STRENGTH)  # type: ignore[union-attr]
    net.eval()  # BatchNorm with fixed statistics: torchdeq would count every evaluation
    x = torch.randn(BATCH, *SHAPE)
    theirs = _torchdeq(net)
    _need_same(net, x, theirs)
    ours, peer = interleaved(lambda: _pass(net, net(x)), lambda: _pass(net, theirs(x)), ROUNDS)
    name = f"equilibrium: a training pass, {BATCH} images of {SHAPE[1]}x{SHAPE[2]}, Anderson, implicit gradient"
    return [Row(name=name, ours=ours, peer=peer, peer_name="torchdeq", unit="s", higher_is_better=False, n=ROUNDS)]


def _pass(net: Equilibrium, features: Tensor) -> None:
    net.zero_grad()
    features.square().sum().backward()


def _torchdeq(net: Equilibrium) -> Any:
    """The features of the fixed point that torchdeq finds, as its documentation recommends."""
    from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

    solver: dict[str, Any] = {"f_max_iter": STEPS, "b_max_iter": STEPS, "f_tol": TOLERANCE, "b_tol": TOLERANCE}
    modes = {"f_stop_mode": "rel", "b_stop_mode": "rel", "f_solver": "anderson", "b_solver": "anderson"}
    core = get_deq(core="sliced", ift=True, m=MEMORY, **solver, **modes)

    def features(x: Tensor) -> Tensor:
        step = EquilibriumStep(net, x, None, False)
        with torch.no_grad():
            _, z = step.begin()
        found, _ = core(lambda z: step(z)[1], z)
        return step(found[-1])[0]

    return features


def _need_same(net: Equilibrium, x: Tensor, theirs: Any) -> None:
    """The two must find the same point and the same gradients before their times mean anything."""
    found = []
    for features in (net(x), theirs(x)):
        _pass(net, features)
        found.append([features.detach(), *(path.conv.weight.grad.clone() for path in net.paths)])  # type: ignore[union-attr]
    for ours, peer in zip(*found, strict=True):
        far = ((ours - peer).norm() / peer.norm()).item()
        assert far < 20 * TOLERANCE, f"ours and torchdeq's differ by {far:.1e}"
