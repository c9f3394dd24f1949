"""Training steps with the penalty of invariant risk minimisation, against those with the cross-entropy and against the
same penalty by gradients of gradients.

The peers train the same network on the same batches in the same loop: that of the published coloured MNIST (two
environments of 25,000 pictures, all of them in a batch), and a small convolutional one in batches of 128. The penalty
by gradients is written as in published code: a factor of 1 in front of the logits of each environment, and the square
of the slope in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs
from engram.backbone.data.columns import ENVIRONMENT
from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import build
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.benchmarks.perf.harness import Row, interleaved
from engram.causal.objectives.environment_options import IRMOptions
from engram.causal.objectives.irm import IRM

PENALTY, STEPS, ENVIRONMENTS = 1000.0, 10_000, 2
OPTIONS = TrainingOptions(epochs=STEPS, optimizer="adamw", weight_decay=0.0, schedule="constant", warmup=0.0)


class ByGradients(Objective):
    """The same loss as `IRM` from its first step on, by gradients of gradients and a loop over environments."""

    columns = (ENVIRONMENT,)
    recordable = False

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        risks, slopes = [], []
        for each in range(ENVIRONMENTS):
            rows = batch.columns[ENVIRONMENT] == each
            scale = torch.ones((), requires_grad=True)
            risks.append(F.cross_entropy(scale * outputs.logits[rows], batch.labels[rows]))
            slopes.append(torch.autograd.grad(risks[-1], scale, create_graph=True)[0])
        return torch.stack(risks).mean() + PENALTY * torch.stack(slopes).square().mean()

    def divisor(self, step: int) -> float:
        return PENALTY


@dataclass(frozen=True)
class Setup:
    """Of a comparison: pictures [C, H, W], how many there are and in a batch, the network, and rounds."""

    shape: tuple[int, int, int]
    images: int
    batch: int
    backbone: str
    options: Mapping[str, Any]
    rounds: int


PUBLISHED = Setup((2, 14, 14), 50_000, 50_000, "mlp", {"units": 390, "initialisation": "glorot"}, 5)
SMALL = Setup((2, 28, 28), 1280, 128, "vgg-tiny", {}, 100)


def compared(name: str, s: Setup) -> list[Row]:
    random = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (s.images, *s.shape), dtype=torch.uint8, generator=random)
    environments = {ENVIRONMENT: torch.arange(s.images) % ENVIRONMENTS}
    data = MemorySplit(pictures, torch.randint(2, (s.images,), generator=random), environments)
    chosen = IRMOptions(penalty=PENALTY, anneal=0, estimate="square")
    setting = ObjectiveSetting(data=data, outputs=2, label_smoothing=0.0, device="cpu")

    def trainer(objective: Objective) -> Trainer:
        torch.manual_seed(0)
        model = build(s.backbone, s.options, s.shape, 2, torch.zeros(s.shape[0]), torch.ones(s.shape[0]))
        return Trainer(model, data, replace(OPTIONS, batch_size=s.batch), Machine("cpu", "fp32"), objective)

    ours, plain, peer = trainer(IRM(chosen, setting)), trainer(CrossEntropy()), trainer(ByGradients())
    for each in (ours, peer):
        each.advance(0.0)
    torch.testing.assert_close(ours.progress.loss_sum, peer.progress.loss_sum, rtol=1e-3, atol=0.0)
    rows = []
    for other, what in ((plain, "cross-entropy"), (peer, "gradients of gradients")):
        mine, theirs = interleaved(lambda: ours.advance(0.0), lambda other=other: other.advance(0.0), s.rounds)
        rows.append(
            Row(
                name=f"a step of IRM, {name}",
                ours=mine,
                peer=theirs,
                peer_name=what,
                unit="s",
                higher_is_better=False,
                n=s.rounds,
            )
        )
    return rows


def measure() -> list[Row]:
    return [*compared("the published MLP, 50,000 images", PUBLISHED), *compared("a small CNN, 128 images", SMALL)]
