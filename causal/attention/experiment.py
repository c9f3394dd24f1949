"""Experiment ``causal.attention``: what attention maps add to a network's answers, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Pictures, Result, Row, Services
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import cautions, load_to_look_at
from engram.backbone.errors import must
from engram.backbone.measures.bootstrap import paired_bootstrap
from engram.backbone.measures.confusions import as_picture
from engram.backbone.measures.scoring import shown
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.backbone.saved.model import load_model
from engram.causal.attention.configs import AttentionConfig
from engram.causal.attention.counterfactual import CounterfactualAttention
from engram.causal.attention.options import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
TILE, GAP = 64, 3
"""Pixels of a picture and of a map, and between them."""


class Attention:
    """One unit of work for each kind of other maps."""

    def __init__(self, config: AttentionConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> dict[str, Any]:
        c, s = self.config, self.services
        model, made = load_model(s.inputs["trained"] / "model")
        if not isinstance(model.backbone, CounterfactualAttention):
            rule, got = "one made with causal.counterfactual-attention", type(model.backbone).__name__
            remedy = "Add --adapter causal.counterfactual-attention --objective counterfactual to its training."
            raise must("the network of --from", rule, got, remedy)
        data, targets = load_to_look_at(made, c.dataset, c.dataset_options, root=s.data_root, download=s.download)
        s.provenance(data_sha256=data.fingerprint)
        found = [*cautions(made), *cautions(data)]
        return {"model": model.eval().to(s.device), "data": data, "targets": targets, "cautions": found, "rows": []}

    def step(self, state: dict[str, Any]) -> bool:
        rows: list[Row] = state["rows"]
        kind, labels = KINDS[len(rows)], state["targets"][state["data"].test.labels]
        logits, others = answers(state["model"], state["data"].test, kind, self.services.device)
        rows.append({"maps": kind, **effects(logits, others, labels)})
        self.services.progress(len(rows), len(KINDS), "exchanging maps")
        return len(rows) < len(KINDS)

    def finish(self, state: dict[str, Any]) -> Result:
        model, test = state["model"], state["data"].test
        own = KINDS.index(model.backbone.options.counterfactual)
        row: Row = state["rows"][own]
        metrics = {
            "test/accuracy": float(row["accuracy"] or 0),
            "test/effect_accuracy": float(row["effect_accuracy"] or 0),
            "test/effect": float(row["effect"] or 0),
            "images": float(len(test)),
        }
        tables = {"effects": state["rows"], **({"cautions": state["cautions"]} if state["cautions"] else {})}
        return Result(metrics=metrics, tables=tables, figures={"maps": self.shown(model, test, state["data"].classes)})

    @torch.inference_mode()
    def shown(self, model: Classifier, test: Split, classes: tuple[str, ...]) -> Pictures:
        """The first test images, each beside the mean of its maps; white is the largest value."""
        net: Any = model.backbone
        order = torch.arange(min(self.config.shown, len(test)))
        pictures, captions = list[Tensor](), list[str]()
        for images, labels, _ in test.batches(order, 1, self.services.device):
            image = images if images.ndim == 4 else images[:, -1]
            shown = model.normalise(arranged(images, net))
            frames = shown.unbind(1) if shown.ndim == 5 else (shown,) * net.steps
            memory: dict[str, Any] = {}
            maps = torch.stack([net.attended(frame, memory).maps for frame in frames]).mean((0, 2))[0]
            pictures.append(beside(image[0].cpu(), maps.cpu()))
            captions.append(classes[int(labels)])
        return Pictures(title="What attention is on, the mean over maps", pictures=pictures, captions=captions)

    def state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        return {"rows": state["rows"]}

    def load_state_dict(self, state: dict[str, Any], saved: Mapping[str, Any]) -> None:
        state["rows"][:] = saved["rows"]


@torch.inference_mode()
def answers(model: Classifier, split: Split, kind: Kind, device: str) -> tuple[Tensor, Tensor]:
    """Logits of all images of a split, and those with other maps, in fp32: [N, K] each, on the CPU."""
    net: Any = model.backbone
    found = list[tuple[Tensor, Tensor]]()
    for images, _, _ in shown(model, split, device):
        features, other = net.counterfactual(model.normalise(images), kind)
        found.append((model.head(features).float().cpu(), model.head(other).float().cpu()))
    logits, others = (torch.cat(each) for each in zip(*found, strict=True))
    return logits, others


def effects(logits: Tensor, others: Tensor, labels: Tensor) -> Row:
    """What maps add, in numbers: accuracies with them, with others, and by the difference of both alone; and how much
    more probable the right class is with them, its mean and a 95 % interval over images.

    logits: [N, K]; others: [N, K] with other maps; labels: [N].
    """
    right = F.one_hot(labels, logits.shape[1]).bool()
    gain = (logits.softmax(1) - others.softmax(1))[right]
    mean, low, high = (float(each) for each in paired_bootstrap(gain[:, None]))

    def accuracy(answers: Tensor) -> float:
        return float((answers.argmax(1) == labels).double().mean())

    return {
        "accuracy": accuracy(logits),
        "other_accuracy": accuracy(others),
        "effect_accuracy": accuracy(logits - others),
        "effect": mean,
        "effect_low": low,
        "effect_high": high,
    }


def beside(image: Tensor, map_: Tensor) -> Tensor:
    """image: [C, H, W] uint8; map_: [h, w], not negative -> both side by side, [TILE, 2 TILE + GAP, 3] uint8."""
    picture = as_picture(image[:3] if len(image) in (1, 3) else image[:1])
    colour = picture[..., None].expand(-1, -1, 3) if picture.ndim == 2 else picture
    grey = (map_ / map_.max().clamp(min=1e-9) * 255).round().to(torch.uint8)[..., None].expand(-1, -1, 3)
    gap = torch.full((TILE, GAP, 3), 255, dtype=torch.uint8)
    return torch.cat([_large(colour), gap, _large(grey)], 1)


def _large(picture: Tensor) -> Tensor:
    """picture: [H, W, 3] uint8 -> [TILE, TILE, 3], the nearest pixel for every place."""
    nearest = F.interpolate(picture.permute(2, 0, 1)[None].float(), (TILE, TILE), mode="nearest-exact")
    return nearest[0].permute(1, 2, 0).to(torch.uint8)
