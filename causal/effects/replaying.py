"""A network without memory, run again from the stage that was changed: what comes before is computed once."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from engram.backbone.contract import Backbone
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.cutting import stage_graphs
from engram.backbone.nets.folding import Untraceable, fold_batchnorm, traced_with_stages
from engram.backbone.nets.readout import read
from engram.backbone.nets.tapped import attached
from engram.backbone.nets.taps import stage_site
from engram.causal.effects.one_channel import OneChannel, added, flattened, through
from engram.causal.effects.variants import Variant

ROWS = 1024
"""Images times variants that are run together: few enough for the processor's cache, many enough to be worth a call."""
_WRITES_ANEW = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
"""What returns memory of its own, which the next operation may overwrite."""
_RELUS = (torch.relu, F.relu)


class Part(fx.Interpreter):
    """One stage, or the tail: run on the value before it, for images as they are and for variants of them.

    Attributes:
        known: what every node gave for the images as they are.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.known: Mapping[str, Any] = {}

    def clean(self, x: Tensor) -> Tensor:
        """x: [B, ...], the value before it -> its own value; what is on the way there is remembered."""
        whole = fx.Interpreter(self.module, garbage_collect_values=False)
        found = whole.run(x)
        self.known = {node.name: value for node, value in whole.env.items()}
        return found

    def changed(self, value: OneChannel | Tensor) -> OneChannel | Tensor:
        """As `clean`, of variants of the value before it: such as one channel replaced, or [G * B, ...]."""
        return self.run(value)

    def run_node(self, n: fx.Node) -> Any:
        self.node = n
        return super().run_node(n)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        if len(args) == 1 and isinstance(args[0], OneChannel):
            found = through(module, args[0], self.known[self.node.name])
            if found is not None:
                return found
        if isinstance(module, nn.ReLU) and isinstance(args[0], Tensor) and self._is_ours(self.node.args[0]):
            return args[0].relu_()
        return super().call_module(target, _whole(args), _whole(kwargs))

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = args[0] if args else None
        if target in (operator.add, torch.add) and not kwargs and len(args) == 2:
            for one, other in ((0, 1), (1, 0)):
                value, sum_with = args[one], args[other]
                if isinstance(value, OneChannel) and isinstance(sum_with, Tensor) and not value.flat:
                    ours = self._is_ours(self.node.args[other])
                    return added(value, sum_with if ours else sum_with.clone())
        if isinstance(first, OneChannel) and target in _RELUS:
            return through(nn.ReLU(), first, self.known[self.node.name])
        if isinstance(first, OneChannel) and target is torch.flatten and args[1:] == (1,) and not kwargs:
            return flattened(first)
        return super().call_function(target, _whole(args), _whole(kwargs))

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target == "flatten" and isinstance(args[0], OneChannel) and args[1:] == (1,) and not args[0].flat:
            return flattened(args[0])
        return super().call_method(target, _whole(args), _whole(kwargs))

    def _is_ours(self, source: Any) -> bool:
        """Whether a node's value lies in memory that nothing else looks at."""
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            return False
        return isinstance(self.fetch_attr(str(source.target)), _WRITES_ANEW)


def _whole(values: Any) -> Any:
    """Arguments in which every value with one channel replaced stands in full."""
    return map_aggregate(values, lambda each: each.whole() if isinstance(each, OneChannel) else each)


class Replay:
    """A classifier whose stages run one after another: on images as they are, and on variants of them from where these
    begin to differ.

    Args:
        model: in evaluation mode, on its device.
        parts: its stages and its tail, see `parts_of`.

    Attributes:
        stages: the output of every stage for the images last looked at, [S, B, C, H, W]; frames are steps.
    """

    def __init__(self, model: Classifier, parts: Sequence[Part]) -> None:
        self.model, self.parts = model, parts
        self.stages: list[Tensor] = []
        self._logits = torch.empty(0)

    @torch.inference_mode()
    def look(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] normalised -> logits [B, K]."""
        self.stages, steps = [], 1 if x.ndim == 4 else x.shape[1]
        value = x if x.ndim == 4 else x.transpose(0, 1).flatten(0, 1)
        for part in self.parts:
            value = part.clean(value)
            self.stages.append(value.unflatten(0, (steps, -1)))
        self._logits = self.model.head(read(self.model.backbone, self.stages.pop()))
        return self._logits

    @torch.inference_mode()
    def answers(self, variants: Sequence[Variant]) -> Tensor:
        """Logits of the images last looked at under each of the variants, [G, B, K]."""
        found: list[Tensor] = []
        at_once = max(ROWS // math.prod(self.stages[0].shape[:2]), 1)
        for (stage, single), several in groupby(variants, lambda each: (each.place.stage, _is_one_channel(each))):
            assert stage is not None
            group = list(several)
            for start in range(0, len(group), at_once):
                part = group[start : start + at_once]
                value = self._one_channel(stage, part) if single else self._replaced(stage, part)
                found.append(self._on_from(stage, value, part))
        return torch.cat(found)

    def _one_channel(self, stage: int, variants: Sequence[Variant]) -> OneChannel:
        clean = self.stages[stage]
        channels = torch.tensor([_channel(each) for each in variants], device=clean.device)
        size = (*clean.shape[:2], 1, *clean.shape[3:])
        new = torch.stack([each.values.expand(size)[:, :, 0] for each in variants])
        return OneChannel(clean.flatten(0, 1), channels, new.flatten(1, 2))

    def _replaced(self, stage: int, variants: Sequence[Variant]) -> Tensor:
        """The output of a stage in each of the variants, [G * S * B, C, H, W]."""
        clean, site = self.stages[stage], stage_site(stage)
        return torch.cat([each.place.put(site, clean, each.values).flatten(0, 1) for each in variants])

    def _on_from(self, stage: int, value: OneChannel | Tensor, variants: Sequence[Variant]) -> Tensor:
        """The logits [G, B, K] that follow from the output of a stage."""
        for number, part in enumerate(self.parts[stage + 1 :], stage + 1):
            value = part.changed(value)
            if any(place.stage == number for each in variants for place in each.held):
                value = self._held(number, value, variants)
        steps, head = len(self.stages[0]), self.model.head
        if isinstance(value, OneChannel) and steps == 1:
            short = through(head, value, self._logits)
            if isinstance(short, Tensor):
                return short.unflatten(0, (len(variants), -1))
        rows = value.whole() if isinstance(value, OneChannel) else value
        features = rows.unflatten(0, (len(variants), steps, -1)).transpose(0, 1).flatten(1, 2)  # [S, G * B, D]
        return head(read(self.model.backbone, features)).unflatten(0, (len(variants), -1))

    def _held(self, stage: int, value: OneChannel | Tensor, variants: Sequence[Variant]) -> Tensor:
        """The output of a stage in each of the variants, with what is held there as it is without them."""
        rows = value.whole() if isinstance(value, OneChannel) else value
        clean, site = self.stages[stage], stage_site(stage)
        parts = list(rows.unflatten(0, (len(variants), *clean.shape[:2])))
        for number, variant in enumerate(variants):
            for place in variant.held:
                if place.stage == stage:
                    parts[number] = place.put(site, parts[number], place.taken(site, clean))
        return torch.stack(parts).flatten(0, 2)


def parts_of(model: Classifier) -> list[Part] | None:
    """The stages of a classifier's network and its tail, each as a graph by itself, with BatchNorm folded.

    Returns: None where it has a memory or steps of its own, or its stages do not follow one another.
    """
    net: Any = model.backbone
    if not isinstance(net, Backbone) or net.steps > 1 or not net.stage_channels or attached(model.backbone):
        return None
    try:
        graph, stages = traced_with_stages(model.backbone)
        cut = stage_graphs(graph.graph, stages)
    except (Untraceable, UserError):
        return None
    return [Part(fold_batchnorm(fx.GraphModule(graph, each))) for each in cut]


def _is_one_channel(variant: Variant) -> bool:
    place = variant.place
    return place.channels is not None and len(place.channels) == 1 and place.region is None and place.steps is None


def _channel(variant: Variant) -> int:
    assert variant.place.channels is not None
    return variant.place.channels[0]
