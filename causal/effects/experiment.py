"""Experiment ``causal.effects``: what parts of a trained network do for its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Result, Row, Services
from engram.backbone.data.columns import FOREGROUND
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import cautions, load_to_look_at
from engram.backbone.errors import must
from engram.backbone.measures.spans import spans
from engram.backbone.nets.classifier import Classifier
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import generator
from engram.causal.effects.causes import causes
from engram.causal.effects.configs import EffectsConfig
from engram.causal.effects.following import Following
from engram.causal.effects.measuring import Effects
from engram.causal.effects.network import network, stage_means
from engram.causal.effects.report import report
from engram.causal.effects.shown import Shown
from engram.causal.effects.surroundings import Surroundings, in_front, partners
from engram.causal.effects.variants import Network
from engram.causal.intervening.collecting import as_taken

VALUES = 2**24
"""Numbers that all stages give in all steps for the pictures looked at at once, which are at most"""
TOGETHER = 64
CAUSES = 64
"""Causes that are set in one unit of work."""


@dataclass
class EffectsState:
    """Where a trial is.

    Attributes:
        test: the pictures looked at, in the order drawn.
        targets: [N] int64, the right outputs.
        means: of every stage over training pictures, [S, 1, C, H, W].
        following: None until all effects are known.
        surroundings: None where the data do not say where objects are.
        partners: [N] int64, the picture whose background each is put before; empty without them.
        shown: the pictures that the network was last shown, by their places and how many further ones.
        units: the work, of which ``done`` are done.
    """

    model: Classifier
    network: Network
    means: list[Tensor]
    test: Split
    targets: Tensor
    effects: Effects
    following: Following | None
    surroundings: Surroundings | None
    partners: Tensor
    cautions: list[Row]
    units: list[Callable[[], None]] = field(default_factory=list)
    done: int = 0
    shown: tuple[slice, int, Shown] | None = None


class EffectsExperiment:
    """Units of work are some causes set to one thing for a batch of pictures, or a batch followed or exchanged."""

    def __init__(self, config: EffectsConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> EffectsState:
        c, s = self.config, self.services
        model, made = load_model(s.inputs["trained"] / "model")
        data, outputs = load_to_look_at(made, c.dataset, c.dataset_options, root=s.data_root, download=s.download)
        found = cautions(made, data)
        if found:
            s.table("caution", found)
        s.provenance(data_sha256=data.fingerprint, model_sha256=made.sha256, **data.facts)
        test, train = (self._chosen(each) for each in (data.test, data.train))
        if len(test) < 2:
            raise must("images to look at", "at least 2", len(test), "Look at others: --dataset.")
        model = model.to(s.device).eval()
        ((pictures, _, _),) = train.batches(torch.arange(len(train)), len(train), "cpu")
        means = stage_means(model, pictures)
        targets = outputs[test.labels].to(s.device)
        effects = Effects(causes([each.shape for each in means], c.cells), c.set_to, len(test))
        masked = self._masks(test) is not None
        surroundings = Surroundings(len(test)) if masked else None
        others = partners(test.labels) if masked else torch.zeros(0, dtype=torch.int64)
        state = EffectsState(*(model, network(model), means, test, targets, effects, None, surroundings, others, found))
        state.units = self._units(state)
        return state

    def _chosen(self, split: Split) -> Split:
        """Pictures drawn by the seed, and in the order drawn: each is given what belongs to the next."""
        order = torch.randperm(len(split), generator=generator(self.config.seed, "causal.effects/looked at"))
        return split.select(order[: self.config.images])

    def _masks(self, test: Split) -> Tensor | None:
        masks = test.columns.get(FOREGROUND)
        return masks if isinstance(masks, Tensor) and test.frames is None else None

    def _units(self, state: EffectsState) -> list[Callable[[], None]]:
        each = sum(mean.numel() for mean in state.means)
        at_once = max(min(TOGETHER, VALUES // each), 2)
        units: list[Callable[[], None]] = []
        places, blocks = spans(len(state.test), at_once), spans(len(state.effects.causes), CAUSES)
        for at in places:
            for how in self.config.set_to:
                units += [partial(self._measure, state, at, how, which) for which in blocks]
        units += [partial(self._follow, state, at) for at in places]
        if state.surroundings is not None:
            units += [partial(self._exchange, state, at) for at in places]
        return units

    def _shown(self, state: EffectsState, at: slice, further: int) -> Shown:
        """The network for the pictures at some places, and for some of the next ones; kept until others are asked."""
        if state.shown is None or state.shown[:2] != (at, further):
            rows = torch.arange(at.start, at.stop + further) % len(state.test)
            images = as_taken(state.model, _images(state.test, rows))
            state.shown = (at, further, Shown(state.network, state.means, images, further))
        return state.shown[2]

    def _measure(self, state: EffectsState, at: slice, how: Any, which: slice) -> None:
        shown = self._shown(state, at, int("resample" in self.config.set_to))
        state.effects.measure(shown, state.targets[at], at, how, which)

    def _follow(self, state: EffectsState, at: slice) -> None:
        if state.following is None:
            state.following = self._following(state)
        state.following.measure(self._shown(state, at, 2), state.targets[at], at)

    def _following(self, state: EffectsState) -> Following:
        c = self.config
        chosen = state.effects.largest(c.set_to[0], c.top)
        channels = [mean.shape[2] for mean in state.means]
        outputs = state.model.head(torch.zeros(1, state.model.backbone.feature_dim, device=self.services.device))  # type: ignore[operator]
        return Following(chosen, c.set_to[0], channels, len(state.test), outputs.shape[1], c.seed)

    def _exchange(self, state: EffectsState, at: slice) -> None:
        masks, surroundings = self._masks(state.test), state.surroundings
        assert masks is not None and surroundings is not None
        others = state.partners[at]
        places = torch.arange(at.start, at.stop)
        pairs = (_images(state.test, places), masks[at], _images(state.test, others), masks[others])
        state.shown = None  # the network is shown others now
        logits = state.network.look(as_taken(state.model, in_front(*pairs)))
        surroundings.add(logits, state.targets[at], state.targets[others.to(state.targets.device)], at)

    def step(self, state: EffectsState) -> bool:
        state.units[state.done]()
        state.done += 1
        self.services.progress(state.done, len(state.units), f"{len(state.effects.causes)} parts set")
        return state.done < len(state.units)

    def finish(self, state: EffectsState) -> Result:
        assert state.following is not None
        targets, swapped = state.targets.cpu(), state.surroundings
        exchanged = None if swapped is None else (swapped, state.partners)
        return report(state.effects, state.following, targets, exchanged, state.cautions, self.config.seed)

    def state_dict(self, state: EffectsState) -> dict[str, Any]:
        parts = {"following": state.following, "surroundings": state.surroundings}
        kept = {name: part.state_dict() for name, part in parts.items() if part is not None}
        return {"done": state.done, "effects": state.effects.state_dict(), **kept}

    def load_state_dict(self, state: EffectsState, saved: Mapping[str, Any]) -> None:
        state.done = int(saved["done"])
        state.effects.load_state_dict(saved["effects"])
        if "following" in saved:
            state.following = self._following(state)
            state.following.load_state_dict(saved["following"])
        if state.surroundings is not None:
            state.surroundings.load_state_dict(saved["surroundings"])


def _images(split: Split, rows: Tensor) -> Tensor:
    """The pictures at some places, [B, C, H, W] uint8, or recordings [B, T, C, H, W]."""
    ((images, _, _),) = split.batches(rows, len(rows), "cpu")
    return images
