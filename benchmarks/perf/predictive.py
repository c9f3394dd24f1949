"""Steps of predictive coding against the same steps by autograd, and against predify where it is installed.

The network is the shallow one of Alamia et al. 2023 on pictures of CIFAR-10's size. Each peer computes the same
features, which is checked: autograd takes the gradient of the mean squared error of every prediction in every step, as
published code does. predify (GPL-3) is not among the extras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.benchmarks.perf.harness import Row, interleaved
from engram.feedback.adapters.predictive import Predictive, predictive
from engram.feedback.nets.alamia import alamia
from engram.feedback.nets.options import AlamiaOptions
from engram.feedback.options import PredictiveOptions

SHAPE, IMAGES, STEPS, KERNEL, ROUNDS = (3, 32, 32), 64, 5, 5, 9
FEEDFORWARD, FEEDBACK, CORRECTION = 0.3, 0.2, 0.1


def network(corrections: Sequence[float] = (CORRECTION,)) -> Predictive:
    torch.manual_seed(0)
    options = PredictiveOptions(
        steps=STEPS,
        kernel=KERNEL,
        feedforward=str(FEEDFORWARD),
        feedback=str(FEEDBACK),
        correction=",".join(map(str, corrections)),
    )
    made = predictive(alamia(SHAPE, AlamiaOptions()).eval(), options).requires_grad_(False)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def by_autograd(net: Predictive, x: Tensor, graph: bool) -> Tensor:
    """Features of all steps, [STEPS, B, D], with gradients of the errors by autograd."""
    with torch.no_grad():
        stages = net.inner.image_stages(x)
    found = [net.inner.apply_tail(stages[-1])]
    for _ in range(STEPS - 1):
        leaves = [stage if graph and stage.requires_grad else stage.detach().requires_grad_() for stage in stages]
        with torch.enable_grad():
            guesses = [guess(leaf) for guess, leaf in zip(net.predictions, leaves, strict=True)]
            errors = [F.mse_loss(*pair) for pair in zip(guesses, [x, *leaves[:-1]], strict=True)]
            grads = [torch.autograd.grad(*each, create_graph=graph)[0] for each in zip(errors, leaves, strict=True)]
        with torch.set_grad_enabled(graph):
            drive, after = x, list[Tensor]()
            for stage, leaf in enumerate(leaves):
                back = FEEDBACK * (guesses[stage + 1] - leaf) if stage + 1 < len(leaves) else 0.0
                scale = CORRECTION * net.predictions[stage].scale / 2 * guesses[stage].numel()
                drive = net.inner.apply_stage(stage, drive)
                drive = leaf + FEEDFORWARD * (drive - leaf) + back - scale * grads[stage]
                after.append(drive)
            stages = after
            found.append(net.inner.apply_tail(stages[-1]))
    return torch.stack(found)


def by_predify(net: Predictive, coders: Sequence[Any], x: Tensor) -> Tensor:
    """Features of all steps, [STEPS, B, D], by predify's PCoderN, one for each stage."""
    found = []
    for coder in coders:
        coder.reset()
    for _ in range(STEPS):
        drive, predicted = x, [coder.prd for coder in coders]
        for stage, coder in enumerate(coders):
            above = predicted[stage + 1] if stage + 1 < len(coders) else None
            given = {"ffm": FEEDFORWARD, "fbm": FEEDBACK, "erm": CORRECTION}
            with torch.no_grad():
                drive, _ = coder(net.inner.apply_stage(stage, drive), above, drive, **given)
        found.append(net.inner.apply_tail(drive))
    return torch.stack(found)


def compared(name: str, peer_name: str, ours: Callable[[], Tensor], peer: Callable[[], Tensor], rounds: int) -> Row:
    torch.testing.assert_close(ours(), peer(), rtol=1e-4, atol=1e-5)
    mine, theirs = interleaved(ours, peer, rounds)
    facts: dict[str, Any] = {"unit": "s", "higher_is_better": False, "n": rounds}
    return Row(name=f"{name}, {STEPS} steps of {IMAGES} images", ours=mine, peer=theirs, peer_name=peer_name, **facts)


def measure(rounds: int = ROUNDS) -> list[Row]:
    net = network()
    x = torch.randn(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)

    def run(graph: bool) -> Tensor:
        with torch.inference_mode(not graph):
            return net.forward_steps(x)

    def trained(features: Callable[[], Tensor]) -> Tensor:
        """The gradients of the predictions, in a row."""
        weights = list(net.predictors().parameters())
        net.predictors().requires_grad_(True)
        grads = torch.autograd.grad(features().square().sum(), weights)
        net.predictors().requires_grad_(False)
        return torch.cat([grad.flatten() for grad in grads])

    rows = [
        compared(
            "predictive coding",
            "autograd.grad",
            lambda: run(False),
            lambda: by_autograd(net, x, False).detach(),
            rounds,
        ),
        compared(
            "predictive coding, trained",
            "autograd.grad, create_graph",
            lambda: trained(lambda: run(True)),
            lambda: trained(lambda: by_autograd(net, x, True)),
            rounds,
        ),
    ]
    return rows + _against_predify(net, x, rounds)


def _against_predify(net: Predictive, x: Tensor, rounds: int) -> list[Row]:
    try:
        modules: Any = import_module("predify.modules")
    except ImportError:
        return []
    last = len(net.predictions) - 1
    coders = [modules.PCoderN(guess, stage < last, False) for stage, guess in enumerate(net.predictions)]
    by_predify(net, coders, x)  # which measures its C, that of the middle cell
    same = network(
        [CORRECTION * 2 / guess.scale / float(c.C_sqrt) for guess, c in zip(net.predictions, coders, strict=True)]
    )
    same.load_state_dict(net.state_dict())

    def ours() -> Tensor:
        with torch.inference_mode():
            return same.forward_steps(x)

    return [compared("predictive coding", "predify", ours, lambda: by_predify(net, coders, x), rounds)]
