"""A training pass of an equilibrium against one through all steps, and against torchdeq's where that is installed.

    conv 16 - pool - conv 32 - pool - conv 64 - pool, the last stage a gain on the two before

Ours and torchdeq's look for the fixed point of the same code with Anderson's mixing of five points, until the relative
residual of every image is at most 1e-3 or 30 evaluations are done, and solve the implicit function's equation for the
gradient in the same way, which is checked. torchdeq goes on with all images until the last has arrived; it computes
one step more in a pass. The pass through all steps is that of ``feedback.gated`` with as many as the search has taken.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

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


def network(gradient: Literal["implicit", "unrolled"], steps: int) -> Equilibrium:
    """Always of the same weights. BatchNorm has fixed statistics: torchdeq would count every evaluation."""
    torch.manual_seed(0)
    options = EquilibriumOptions(steps=steps, tolerance=TOLERANCE, gradient=gradient, jacobian_penalty=0.0)
    net = equilibrium(vgg_tiny(SHAPE, ConvOptions()), options)
    for path in net.paths:
        torch.nn.init.normal_(path.conv.weight, std=STRENGTH)  # type: ignore[union-attr]
    return net.eval()


def measure() -> list[Row]:
    """Rows against the pass through all steps, and against torchdeq where it is installed."""
    net, x = network("implicit", STEPS), torch.randn(BATCH, *SHAPE)
    taken = int((net.residuals(x) > TOLERANCE).any(1).sum()) + 3  # the first, that which has arrived, the last
    unrolled = network("unrolled", taken)
    peers: dict[str, Callable[[], None]] = {f"back through {taken} steps": lambda: _pass(unrolled, unrolled(x))}
    if find_spec("torchdeq") is not None:
        theirs = _torchdeq(net)
        _need_same(net, x, theirs)
        peers["torchdeq"] = lambda: _pass(net, theirs(x))
    name = f"equilibrium: a training pass, {BATCH} images of {SHAPE[1]}x{SHAPE[2]}, Anderson, implicit gradient"
    found = []
    for peer, work in peers.items():
        ours, took = interleaved(lambda: _pass(net, net(x)), work, ROUNDS)
        found.append(Row(name=name, ours=ours, peer=took, peer_name=peer, unit="s", higher_is_better=False, n=ROUNDS))
    return found


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
