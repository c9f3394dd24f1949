"""Images kept from what has been seen, as tensors on the device, and the rules by which they are chosen.

Which images are kept and which are drawn is decided on the CPU from a seed and two counters, so that a step never waits
for the device, and a buffer that was saved and loaded goes on bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from engram.backbone.seeding import derive, generator


@dataclass(frozen=True)
class Rows:
    """Images as they are kept: [R, C, H, W] uint8 (event frames [R, T, C, H, W]), with labels [R] and tasks [R] int64.

    ``logits`` [R, K] float32 where the buffer keeps them.
    """

    images: Tensor
    labels: Tensor
    tasks: Tensor
    logits: Tensor | None = None


class Selection(Protocol):
    """Decides what stays while images stream by."""

    def choose(self, labels: Sequence[int]) -> dict[int, int]:
        """Which images of the next batch to write where: slot -> row of the batch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: Mapping[str, Any], labels: list[int]) -> None:
        """Go on from a saved state of a buffer that holds these labels."""
        ...


class Turns:
    """In which pass over a task's images each of them is offered to a selection: one, each as likely.

    So a buffer is offered every image once, however often it comes by, and when a task is over a reservoir holds a
    uniform sample of all different images so far. Within a task its images come in as gradually as if every pass
    offered all of them, and what is kept with an image (its logits) is of any time of the training alike. Where the
    last pass is not a whole one nothing is offered in it, unless it is the only one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._known: tuple[tuple[int, int, int], Tensor] | None = None

    def due(self, task: int, size: int, passes: int, now: int, places: Tensor) -> list[int]:
        """Rows of a batch that are offered in pass ``now`` of so many.

        places: [R] int64 on the CPU, where the rows stand among the ``size`` images of their task.
        """
        key = (task, size, passes)
        if self._known is None or self._known[0] != key:
            drawn = torch.randint(max(passes, 1), (size,), generator=generator(self.seed, "turn", task))
            self._known = (key, drawn)
        return (self._known[1][places] == now).nonzero().squeeze(1).tolist()


class Reservoir:
    """A uniform sample without replacement of all images so far.

    Image i (from 1) goes to slot i - 1 while there are free ones, then with probability M / i to a uniform slot of the
    M. A batch is decided at once: of the images that get the same slot the last one stays, as one by one.

    Source: Vitter 1985, algorithm R.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity, self.seed, self.seen = capacity, seed, 0

    def choose(self, labels: Sequence[int]) -> dict[int, int]:
        first, count = self.seen, len(labels)
        self.seen += count
        number = torch.arange(first + 1, first + count + 1, dtype=torch.float64)
        drawn = torch.rand(count, dtype=torch.float64, generator=generator(self.seed, "keep", first))
        slots = (drawn * number).long()
        free = min(max(self.capacity - first, 0), count)
        slots[:free] = torch.arange(first, first + free)
        rows = (slots < self.capacity).nonzero().squeeze(1)
        return dict(zip(slots[rows].tolist(), rows.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, saved: Mapping[str, Any], labels: list[int]) -> None:
        self.seen = saved["seen"]


class Balanced:
    """As many images of every class as there are, up to equal shares; a uniform sample within each class.

    An image of a class that is not full takes the place of a random one of the largest classes; one of a full class
    (the largest now, or once) the place of a random one of its own, with probability m / n, m being how many of it are
    kept and n how many have come.

    Source: Chrysakis and Moens 2020, "Online continual learning from imbalanced data", algorithm 1.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity, self.seed = capacity, seed
        self.seen: Counter[int] = Counter()
        self.held: Counter[int] = Counter()
        self.full: set[int] = set()
        self.owner = np.full(capacity, -1, np.int64)

    def choose(self, labels: Sequence[int]) -> dict[int, int]:
        random = generator(self.seed, "keep", self.seen.total())
        chances, places = torch.rand(2, len(labels), dtype=torch.float64, generator=random).tolist()
        chosen = {}
        for row, label in enumerate(labels):
            slot = self._slot(label, chances[row], places[row])
            if slot is not None:
                chosen[slot] = row
        return chosen

    def _slot(self, label: int, chance: float, place: float) -> int | None:
        self.seen[label] += 1
        filled = self.held.total()
        if filled < self.capacity:
            self._write(filled, label)
            return filled
        largest = self._largest()
        self.full.update(largest)
        if label in self.full and chance * self.seen[label] >= self.held[label]:
            return None
        victims = [label] if label in self.full else largest
        candidates = np.flatnonzero(np.isin(self.owner, victims))
        slot = int(candidates[int(place * len(candidates))])
        self._write(slot, label)
        return slot

    def _largest(self) -> list[int]:
        most = max(self.held.values())
        return [label for label, count in self.held.items() if count == most]

    def _write(self, slot: int, label: int) -> None:
        if self.owner[slot] >= 0:
            self.held[int(self.owner[slot])] -= 1
        self.owner[slot] = label
        self.held[label] += 1

    def state_dict(self) -> dict[str, Any]:
        return {"seen": dict(self.seen), "full": sorted(self.full)}

    def load_state_dict(self, saved: Mapping[str, Any], labels: list[int]) -> None:
        self.seen, self.full = Counter(saved["seen"]), set(saved["full"])
        self.held = Counter(labels)
        self.owner[: len(labels)] = labels


class Buffer:
    """Up to ``capacity`` images, and where they came from.

    Args:
        capacity: images in all.
        in_shape: channels, height, width.
        frames: event frames per image; None for stills.
        device: where the images are kept.
        seed: of what is kept and drawn.
        selection: how images are chosen as they stream by (`add`); None for a buffer that is told (`put`, `append`).
        logits: how many are kept with every image.
    """

    def __init__(
        self,
        capacity: int,
        in_shape: tuple[int, int, int],
        frames: int | None,
        device: str,
        seed: int,
        selection: Literal["reservoir", "balanced"] | None = None,
        logits: int | None = None,
    ) -> None:
        shape = in_shape if frames is None else (frames, *in_shape)
        self.capacity, self.device, self.seed = capacity, device, seed
        self.images = torch.zeros((capacity, *shape), dtype=torch.uint8, device=device)
        self.labels = torch.zeros(capacity, dtype=torch.long, device=device)
        self.tasks = torch.zeros(capacity, dtype=torch.long, device=device)
        self.logits = None if logits is None else torch.zeros(capacity, logits, device=device)
        rules: dict[str | None, type[Reservoir] | type[Balanced]] = {"reservoir": Reservoir, "balanced": Balanced}
        self.selection: Selection | None = rules[selection](capacity, seed) if selection else None
        self.filled = self.draws = 0

    def __len__(self) -> int:
        return self.filled

    @torch.no_grad()
    def add(self, rows: Rows, labels: Sequence[int], offered: Sequence[int] | None = None) -> None:
        """Offer rows of a batch to the selection: those ``offered``, by position, or all.

        ``labels``: those of the batch, on the CPU, so that nothing need wait.
        """
        assert self.selection is not None
        which_rows = range(len(labels)) if offered is None else offered
        chosen = {
            slot: which_rows[row] for slot, row in self.selection.choose([labels[row] for row in which_rows]).items()
        }
        if not chosen:
            return
        slots = torch.tensor(list(chosen)).to(self.device, non_blocking=True)
        which = torch.tensor(list(chosen.values())).to(self.device, non_blocking=True)
        self.images.index_copy_(0, slots, rows.images.index_select(0, which))
        self.labels.index_copy_(0, slots, rows.labels.index_select(0, which))
        self.tasks.index_copy_(0, slots, rows.tasks.index_select(0, which))
        if self.logits is not None:
            assert rows.logits is not None
            self.logits.index_copy_(0, slots, rows.logits.index_select(0, which))
        self.filled = max(self.filled, 1 + max(chosen))

    def append(self, images: Tensor, labels: Tensor, tasks: Tensor) -> None:
        """Keep these as well; there must be room.

        images: [R, C, H, W] uint8, labels: [R] int64, tasks: [R] int64.
        """
        span = slice(self.filled, self.filled + len(labels))
        self.images[span], self.labels[span], self.tasks[span] = images, labels, tasks
        self.filled += len(labels)

    def put(self, parts: Sequence[Rows]) -> None:
        """Keep these instead of all there is, in this order; they may be views of what there is."""
        images, labels, tasks = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels", "tasks")
        )
        self.filled = 0
        self.append(images, labels, tasks)

    def draw(self, count: int) -> Rows:
        """So many different rows at random, or all where there are fewer. Every call is a draw of its own."""
        order = torch.randperm(self.filled, generator=generator(self.seed, "draw", self.draws))[:count]
        self.draws += 1
        order = order.to(self.device, non_blocking=True)
        logits = None if self.logits is None else self.logits.index_select(0, order)
        images, labels, tasks = (each.index_select(0, order) for each in (self.images, self.labels, self.tasks))
        return Rows(images, labels, tasks, logits)

    def content(self) -> Rows:
        """Views of all that is kept, in the order of the slots."""
        logits = None if self.logits is None else self.logits[: self.filled]
        return Rows(self.images[: self.filled], self.labels[: self.filled], self.tasks[: self.filled], logits)

    def state_dict(self) -> dict[str, Any]:
        saved: dict[str, Any] = {name: getattr(self, name) for name in ("images", "labels", "tasks", "filled", "draws")}
        if self.logits is not None:
            saved["logits"] = self.logits
        if self.selection is not None:
            saved["selection"] = self.selection.state_dict()
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        for name in ("images", "labels", "tasks") + (("logits",) if self.logits is not None else ()):
            getattr(self, name).copy_(saved[name])
        self.filled, self.draws = saved["filled"], saved["draws"]
        if self.selection is not None:
            self.selection.load_state_dict(saved["selection"], self.labels[: self.filled].tolist())


def buffer_seed(seed: int, strategy: str) -> int:
    """Strategies side by side keep and draw different images."""
    return derive(seed, f"buffer/{strategy}")


@torch.no_grad()
def herd(features: Tensor, count: int) -> Tensor:
    """features: [N, D] -> [min(count, N)] positions whose running mean follows the mean of all, best first.

    Each next one brings the mean of those chosen closest to the mean mu of all L2-normalised features:
    ``argmin_x | mu - (phi(x) + sum of the chosen) / k |``, no image twice.

    Source: Rebuffi et al. 2017 (arXiv 1611.07725), algorithm 4; features are normalised, mu is not normalised again, as
    in its authors' code.
    """
    phi = torch.nn.functional.normalize(features.double(), dim=1)
    mean, count = phi.mean(0), min(count, len(phi))
    taken = phi.new_zeros(len(phi))
    chosen = torch.zeros(count, dtype=torch.long, device=phi.device)
    total = torch.zeros_like(mean)
    half_squares = phi.square().sum(1) / 2  # 1/2, or 0 for a vector of zeros
    for k in range(count):
        nearness = phi @ ((k + 1) * mean - total) - half_squares + taken
        best = nearness.argmax(keepdim=True)
        chosen[k : k + 1] = best
        total += phi.index_select(0, best).squeeze(0)
        taken.index_fill_(0, best, -torch.inf)
    return chosen


def quota(capacity: int, groups: int, index: int) -> int:
    """How many of ``capacity`` places group ``index`` of so many has; it never grows when groups are added.

    >>> [quota(10, 4, index) for index in range(4)]
    [3, 3, 2, 2]
    """
    return max(capacity - index + groups - 1, 0) // groups
