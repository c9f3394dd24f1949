"""What an adapter around a network in stages has in common with others: steps, frames, taps, what layers remember."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from engram.backbone.contract import Delayed, Remembering, Tap
from engram.backbone.nets.staging import in_stages
from engram.backbone.nets.taps import Show, at_step, folded_steps
from engram.backbone.nets.wrapped import Wrapped

Memory = dict[str, Any]


class AroundStages(Wrapped):
    """A copy of a network in stages whose values are made into other features, one step at a time.

    A network whose layers remember (`engram.backbone.contract.Remembering`) keeps its steps and its read-out; any
    other takes one, or one for each frame, all of which are run as one batch. A subclass has ``one_step`` and sets
    ``feature_dim``.

    Args:
        backbone: the network; it is left as it is.
        who: the adapter's name.

    Raises:
        UserError: it is not in stages.
    """

    feature_dim: int

    def __init__(self, backbone: nn.Module, who: str) -> None:
        super().__init__()
        net: Any = in_stages(backbone, who)
        self.inner = net
        self.in_shape: tuple[int, int, int] = net.in_shape
        self.stage_channels: tuple[int, ...] = net.stage_channels
        steps, readout = net.steps, net.readout
        self.remembers_inside = isinstance(net, Remembering) and net.remembers
        self.steps: int = steps if self.remembers_inside else 1
        self.readout: Literal["mean", "last"] = readout if self.remembers_inside else "mean"
        self.delay = net.delay if isinstance(net, Delayed) else 0

    def one_step(self, x: Tensor, memory: Memory, show: Show | None, tap: Tap | None) -> Tensor:
        """The features of one step, [B, feature_dim].

        Args:
            x: [B, C, H, W].
            memory: what layers remember of the step before; what is new is put into it.
            show: has the output of every stage, and says what goes on; None: nobody looks.
            tap: for layers of spiking neurons; None: nobody looks.
        """
        raise NotImplementedError

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim]."""
        if self.remembers_inside:
            return self._stepped(x, tap)
        if tap is not None:
            return folded_steps(self, x, tap, lambda images, show: self.one_step(images, {}, show, None))
        if x.ndim == 5:
            return self.one_step(x.flatten(0, 1), {}, None, None).unflatten(0, x.shape[:2]).transpose(0, 1)
        return self.one_step(x, {}, None, None).unsqueeze(0)

    def run_stage(self, index: int, x: Tensor, memory: Memory, tap: Tap | None) -> Tensor:
        """One step of a stage of the wrapped network. x: [B, C, H, W] -> [B, C', H', W']."""
        if self.remembers_inside:
            return self.inner.apply_stage(index, x, memory, tap)
        return self.inner.apply_stage(index, x)

    def run_tail(self, x: Tensor, memory: Memory, tap: Tap | None) -> Tensor:
        """One step of its tail. x: [B, C, H, W] -> its features [B, D]."""
        return self.inner.apply_tail(x, memory, tap) if self.remembers_inside else self.inner.apply_tail(x)

    def _stepped(self, x: Tensor, tap: Tap | None) -> Tensor:
        memory, found = Memory(), list[Tensor]()
        for step, image in enumerate(x.unbind(1) if x.ndim == 5 else (x,) * self.steps):
            if tap is None:
                found.append(self.one_step(image, memory, None, None))
                continue
            with at_step(self, tap, step) as show:

                def spikes(site: Any, value: Tensor, show: Any = show) -> Tensor:
                    return show(f"inner.{site.name}", value.squeeze(0)).unsqueeze(0)

                found.append(show(None, self.one_step(image, memory, show, spikes)))
        return torch.stack(found)
