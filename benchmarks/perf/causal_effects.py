"""Average causal effects of every channel of every stage, over 1,000 images, against captum's ablation of the same.

Captum (`LayerFeatureAblation`) runs the whole network once for each channel; ours runs from the stage that is set, and
of the layer behind it the term of that channel alone. Both set a channel to zero and look at the probability of the
right class of every image; the script refuses to time what does not agree. Captum has one channel a pass: with labels
for every image it takes no more. Times are processor time of one thread, the least of some rounds taken in turns.
"""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import LayerFeatureAblation
from torch import Tensor

from engram.backbone.errors import TrialError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.benchmarks.perf.harness import Row, least
from engram.causal.effects.causes import causes
from engram.causal.effects.measuring import Effects
from engram.causal.effects.network import network
from engram.causal.effects.shown import Shown

CLASSES, IMAGES, BATCH, ROUNDS = 10, 1000, 64, 2
CASES = (("vgg-tiny", (1, 28, 28)), ("resnet-tiny", (3, 32, 32)))
"""Networks, and their images."""
THREADS = torch.get_num_threads()


def made(backbone: str, shape: tuple[int, int, int]) -> tuple[Classifier, Tensor, Tensor]:
    """A classifier with statistics of its own, images [N, C, H, W] and labels [N]."""
    torch.manual_seed(0)
    model = build(backbone, {}, shape, CLASSES, torch.zeros(shape[0]), torch.ones(shape[0]))
    images = torch.rand(IMAGES, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.train()(images[:100])
    model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = torch.randint(CLASSES, (IMAGES,), generator=torch.Generator().manual_seed(2))
    return model, images.contiguous(memory_format=torch.channels_last), labels


def ours(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Effects on the probability, [N, channels of all stages]."""
    net: Any = model.backbone
    every = [cause for cause in causes([(count, 1, 1) for count in net.stage_channels], 0) if cause.channel is not None]
    effects, asked = Effects(every, ("zero",), len(images)), network(model)
    for start in range(0, len(images), BATCH):
        at = slice(start, min(start + BATCH, len(images)))
        shown = Shown(asked, (), images[at], 0)
        effects.measure(shown, labels[at], at, "zero", slice(0, len(every)))
    return effects.differences("zero")[0].T


@torch.inference_mode()
def captums(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """As `ours`."""
    net: Any = model.backbone

    def probabilities(x: Tensor) -> Tensor:
        return model.head(net(x)).softmax(1)

    parts = []
    for start in range(0, len(images), BATCH):
        some, right = images[start : start + BATCH], labels[start : start + BATCH]
        found = []
        for stage, channels in enumerate(net.stage_channels):
            ablation = LayerFeatureAblation(probabilities, net.body[stage])
            mask = torch.arange(channels).view(1, -1, 1, 1)
            each: Any = ablation.attribute(some, target=right, layer_mask=mask)
            found.append(each[:, :, 0, 0])
        parts.append(torch.cat(found, 1))
    return torch.cat(parts)


def measure() -> list[Row]:
    torch.set_num_threads(1)
    try:
        return [_against(backbone, shape) for backbone, shape in CASES]
    finally:
        torch.set_num_threads(THREADS)


def _against(backbone: str, shape: tuple[int, int, int]) -> Row:
    model, images, labels = made(backbone, shape)
    few = slice(0, BATCH)
    apart = float((ours(model, images[few], labels[few]) - captums(model, images[few], labels[few])).abs().max())
    if apart > 1e-5:
        raise TrialError(f"effects must be those of captum to 1e-5; got {apart:.2g}. Mend engram.causal.effects.")
    works = (lambda: ours(model, images, labels), lambda: captums(model, images, labels))
    mine, theirs = least(works, ROUNDS, warm_up=0)
    return Row(
        name=f"causal-effects/{backbone}/channels",
        ours=mine,
        peer=theirs,
        peer_name=f"captum LayerFeatureAblation, {IMAGES} images",
        unit="s",
        higher_is_better=False,
        n=ROUNDS,
    )
