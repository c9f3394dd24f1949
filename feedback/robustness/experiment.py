"""``feedback.robustness``: whether feedback pays."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Result, Row, Services
from engram.backbone.data.columns import INDEX
from engram.backbone.data.corruptions.applying import corrupt, require
from engram.backbone.data.sets import Data, Split
from engram.backbone.data.trained import cautions, load_as_trained
from engram.backbone.errors import must
from engram.backbone.hardware import suit_threads
from engram.backbone.measures.attacks import answering, withstood
from engram.backbone.seeding import generator
from engram.backbone.training.loop import UNIT_SECONDS
from engram.feedback.robustness.configs import NETWORK, RobustnessConfig
from engram.feedback.robustness.contenders import Contender, contender, require_alike
from engram.feedback.robustness.marks import CLEAN, Marks
from engram.feedback.robustness.matching import SHOWN, Size
from engram.feedback.robustness.metrics import ONE_STEP
from engram.feedback.robustness.report import report

PROTOCOL = "engram-robustness/1"
"""Corruptions of `engram.backbone.data.corruptions` with seed 0, on pictures that a fixed lot chooses; PGD, twice,
and SPSA as `engram.backbone.measures.attacks` has them by default; gains with paired bootstrap intervals over
pictures."""
TOGETHER, ATTACKED_TOGETHER = 250, 50
"""Pictures at a time."""


@dataclass
class RobustnessState:
    """Where a trial stands.

    Attributes:
        split: the pictures.
        labels: [N] int64, the networks' outputs that are right.
        contenders: the networks, that in question first.
        sizes: of all that are compared.
        wanted: what the network in question computes at most, which its controls are matched to.
        cautions: what to know before believing a score.
        marks: their right answers so far.
        done: how many batches all networks have answered, over all conditions, attacks behind them.
    """

    split: Split
    labels: Tensor
    contenders: dict[str, Contender]
    sizes: dict[str, Size]
    wanted: Size
    cautions: list[Row]
    marks: Marks
    done: int = 0


class Robustness:
    """Units of work are a few seconds of showing all networks the same pictures, corruption by corruption."""

    def __init__(self, config: RobustnessConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> RobustnessState:
        c, s = self.config, self.services
        contenders = {NETWORK: contender(s.inputs[NETWORK if NETWORK in s.inputs else "trained"], s.device)}
        for role in c.matched:
            contenders[role] = contender(s.inputs[role], s.device)
            require_alike(contenders[NETWORK].made, contenders[role].made, role)
        made = contenders[NETWORK].made
        data, outputs = load_as_trained(made, root=s.data_root, download=s.download)
        s.provenance(data_sha256=data.fingerprint, protocol=PROTOCOL)
        found = cautions(made, data)
        if found:
            s.table("caution", found)
        split = self._pictures(data)
        suit_threads(TOGETHER * math.prod(split.in_shape))
        steps = {name: each.points for name, each in contenders.items()}
        marks = Marks.empty(c.kinds, c.severities, steps, contenders[NETWORK].first, len(split))
        sizes, wanted = self._sizes(contenders, split)
        return RobustnessState(split, outputs[split.labels], contenders, sizes, wanted, found, marks)

    def _pictures(self, data: Data) -> Split:
        """Those that are scored; which ones follows from their number alone.

        Raises:
            UserError: there are none, or they are recordings.
        """
        c = self.config
        split = data.test if c.split == "test" else data.validation
        if split is None:
            rule = f"one with images of the {c.split} split"
            raise must("the trial's data set", rule, "none", "Choose --split test, or train with --validation 0.1.")
        if split.frames is not None:
            raise must("the trial's data set", "one of pictures", "recordings", "Choose a network of pictures.")
        require(c.kinds[0], c.severities[0], split.in_shape[0])
        if c.images is None or c.images >= len(split):
            return split
        chosen = torch.randperm(len(split), generator=generator(0, "robustness/images"))[: c.images]
        return split.select(chosen.sort().values)

    def _sizes(self, contenders: Mapping[str, Contender], split: Split) -> tuple[dict[str, Size], Size]:
        """Of all that are compared, and what the network in question computes at most."""
        images, _, _ = next(iter(split.batches(torch.arange(min(SHOWN, len(split))), SHOWN, self.services.device)))
        sizes = {name: each.size(images) for name, each in contenders.items()}
        if contenders[NETWORK].several:
            sizes[ONE_STEP] = contenders[NETWORK].size_at_first(images)
        return sizes, contenders[NETWORK].size_at_most(images)

    def step(self, state: RobustnessState) -> bool:
        ended, total = time.monotonic() + UNIT_SECONDS, self._total(state)
        while state.done < total:
            place = state.done - self._scored(state)
            if place < 0:
                self._score(state)
            else:
                self._attack(state, place)
            state.done += 1
            if time.monotonic() > ended:
                break
        self.services.progress(state.done, total, self._text(state))
        return state.done < total

    def _batches(self, state: RobustnessState) -> int:
        return -(-len(state.split) // TOGETHER)

    def _scored(self, state: RobustnessState) -> int:
        """How many batches are answered before the first that is attacked."""
        return self._batches(state) * len(state.marks.conditions)

    def _total(self, state: RobustnessState) -> int:
        return self._scored(state) + -(-min(self.config.attacked, len(state.split)) // ATTACKED_TOGETHER)

    def _text(self, state: RobustnessState) -> str:
        place = state.done // self._batches(state)
        conditions = state.marks.conditions
        return "attacks" if place >= len(conditions) else " ".join(map(str, conditions[place])).removesuffix(" 0")

    def _score(self, state: RobustnessState) -> None:
        """All networks on the next batch of the condition that is under way."""
        row, part = divmod(state.done, self._batches(state))
        condition = state.marks.conditions[row]
        places = torch.arange(part * TOGETHER, min((part + 1) * TOGETHER, len(state.split)))
        images, _, _ = next(iter(state.split.batches(places, TOGETHER, "cpu")))
        if condition != CLEAN:
            own: Any = state.split.columns[INDEX]
            images = corrupt(images, own[places], condition.kind, condition.severity)  # type: ignore[arg-type]
        images, labels = images.to(self.services.device), state.labels[places]
        for name, each in state.contenders.items():
            state.marks.right[name][row][:, places] = each.answers(images).cpu() == labels

    def _attack(self, state: RobustnessState, part: int) -> None:
        """All networks on the next batch of attacked pictures, each by attacks on itself."""
        count = min(self.config.attacked, len(state.split))
        places = torch.arange(part * ATTACKED_TOGETHER, min((part + 1) * ATTACKED_TOGETHER, count))
        device = self.services.device
        images, _, _ = next(iter(state.split.batches(places, ATTACKED_TOGETHER, device)))
        pictures, labels = images.float() / 255, state.labels[places].to(device)
        network = state.contenders[NETWORK]
        asked = {name: (each, answering(each.model)) for name, each in state.contenders.items()}
        if network.several:
            asked[ONE_STEP] = network, answering(network.model, network.points[network.first])
        for name, (each, logits) in asked.items():
            held = state.marks.withstood.setdefault(name, {})
            for attack, run in each.attacks(self.config.epsilon).items():
                random = generator(0, f"robustness/{attack}", part)
                rows = withstood(logits, [run], pictures, labels, random)[0].cpu()
                held[attack] = torch.cat([held.get(attack, rows[:0]), rows])

    def finish(self, state: RobustnessState) -> Result:
        return report(self.config, state.marks, state.sizes, state.wanted, state.cautions)

    def state_dict(self, state: RobustnessState) -> dict[str, Any]:
        return {"done": state.done, "marks": state.marks.state_dict()}

    def load_state_dict(self, state: RobustnessState, saved: Mapping[str, Any]) -> None:
        state.done = int(saved["done"])
        state.marks.load_state_dict(saved["marks"])
