"""Feedback as what others put around another network: a spiking one, made of the one that it was trained around."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

from torch import nn

from engram.backbone.contract import Remembering
from engram.backbone.errors import must
from engram.backbone.nets.plain import copied
from engram.feedback.connections import Connection
from engram.feedback.network.norms import settle
from engram.feedback.options import FeedbackOptions


class Moving(nn.Module):
    """What makes feedback a `engram.backbone.contract.Wrapping`."""

    bound: ClassVar[str] = "its kind does not say that it can"
    """Why it cannot be put around another network; empty where it can."""
    inner: Any
    connections: tuple[Connection, ...]
    paths: nn.ModuleList
    stage_channels: tuple[int, ...]
    steps: int
    waiting: int
    classes: int

    def links(self) -> dict[str, nn.Module]:
        """The paths, by their connections."""
        return dict(zip(map(str, self.connections), self.paths, strict=True))

    def settled(self) -> nn.Module:
        """A copy of the wrapped network with the BatchNorms of the last step."""
        return settle(copied(self.inner))

    def around(self, net: nn.Module) -> Self:
        """The same feedback around another network with such stages, of as many steps as that has or as this one.

        An image is in all stages in every step: whether it passes them one by one makes no difference in the long run.

        Raises:
            UserError: this kind cannot be, or the stages are others.
        """
        if self.bound:
            what, got = "feedback that is put around another network", f"{type(self).__name__}: {self.bound}"
            raise must(what, "gated or additive", got, "Use --adapter feedback.gated or feedback.additive.")
        other: Any = net
        if tuple(other.stage_channels) != self.stage_channels:
            rule, got = f"of {list(self.stage_channels)} channels", list(other.stage_channels)
            raise must("the stages of a network for this feedback", rule, got, "Use the network it was trained around.")
        own = isinstance(net, Remembering) and net.remembers
        steps = None if own else self.steps - self.waiting
        named = ",".join(map(str, self.connections))
        kind: Any = type(self)
        made = kind(net, FeedbackOptions(steps=steps, connections=named, norm="shared"))
        made.paths, made.classes = copy.deepcopy(self.paths), self.classes
        if "head" in self.__dict__:
            made.introduce(self.__dict__["head"])
        return made.train(self.training)
