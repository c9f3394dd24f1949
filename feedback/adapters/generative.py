"""The adapter ``feedback.generative``: what the network thinks it sees goes back down through its own weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Remembering, Tap
from engram.backbone.errors import must
from engram.backbone.nets.cutting import stage_graphs
from engram.backbone.nets.folding import Untraceable, traced_with_stages
from engram.feedback.connections import LOGITS, Connection, name_of
from engram.feedback.generative.both_ways import cannot_go_down, down, up
from engram.feedback.generative.operations import transposed_linear
from engram.feedback.network.divergence import within_bounds
from engram.feedback.network.network import FeedbackNetwork, Show, State, wrapped
from engram.feedback.options import FeedbackOptions, GenerativeOptions
from engram.feedback.solving.gradients import with_term


class Generative(FeedbackNetwork):
    """A network whose weights run both ways: up to logits, and from logits down to what would give them.

    In every step but the first the logits of the step before go down, through the head and all layers to the stage
    ``connections`` name, each layer transposed (`engram.feedback.generative.operations`): r. What that stage holds
    moves towards it, and the stages above see that.

        h <- h + rho (r - h)

    On the way down activations are open and maxima lie where they did on the way up; on the next way up activations are
    open where what came agrees in sign with what came down, and take rho of it; a pooling takes largest or smallest
    values by that sign. Biases have no part in the way down, and where the network normalises every map is divided by
    the root of its mean square there. No weight is copied: gradients reach each through both ways.

    In training the mean squared difference between what came down to each stage and what it gave in the first step is a
    term of whatever loss is minimised, with the weight ``reconstruction``.

    The value of the path, which a tap sees, is rho (r - h).

    A frame that differs from the one before changes h by as much as it changes what that stage gives.

    Raises:
        UserError: the network's code cannot be traced, or an operation cannot be transposed: all of them are named.

    Source: Huang et al. 2020 (arXiv 2007.09200), sections 2 and 3, on clean images alone; sums of a residual network go
    down to both sides, and average pooling as its adjoint, where theirs repeats values.
    """

    bound = "its layers run both ways, and neurons one"
    graphs: list[fx.Graph]

    def __init__(self, inner: nn.Module, options: GenerativeOptions) -> None:
        graphs = _graphs(inner)  # before BatchNorms of steps stand in them
        used = FeedbackOptions(
            steps=options.steps, connections=options.connections, readout=options.readout, norm=options.norm
        )
        super().__init__(inner, used)
        self.generative = options
        self.__dict__["graphs"] = graphs
        upper = graphs[self.lowest + 1 :]
        if problems := [text for part in upper for text in cannot_go_down(part, inner.get_submodule)]:
            rule, remedy = "one whose layers can all be transposed", "Use vgg-tiny or another --backbone with ReLU."
            raise must("a network for feedback.generative", rule, f"one with {', '.join(problems)}", remedy)

    def path(self, connection: Connection) -> nn.Module:
        return nn.Identity()

    def usual(self) -> tuple[Connection, ...]:
        return (Connection(LOGITS, 0),)

    def introduce(self, head: nn.Module) -> None:
        """Take the head whose weights go down as well. It stays the classifier's.

        Raises:
            UserError: it is not a linear layer.
        """
        if not isinstance(head, nn.Linear):
            remedy = "Use --head linear, or another adapter."
            raise must("the head behind feedback.generative", "a linear layer", type(head).__name__, remedy)
        self.__dict__["head"] = head

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim].

        Raises:
            TrialError: features are no numbers any more, or explode; it says from which step on.
        """
        images = x.unbind(1) if x.ndim == 5 else (x,) * self.steps
        found, errors, state, plain = [], [], self.begin(images[0]), ()
        for step, image in enumerate(images):
            features, state = self._step(image, state, step, tap)
            found.append(features)
            plain = plain or state.stages
            errors += [(r - h).square().mean() for r, h in zip(state.memory["came"], plain, strict=False)]
        features = within_bounds(torch.stack(found), self.delay, self.training)
        weight = self.generative.reconstruction
        if errors and weight and self.training and torch.is_grad_enabled():
            features = with_term(features, weight * torch.stack(errors).mean())
        return features

    def advance(self, x: Tensor, state: State, step: int, show: Show | None = None) -> tuple[Tensor, State]:
        """As `FeedbackNetwork.advance`; ``state.stages`` are the outputs of the target and all stages behind it."""
        for norm in self.step_norms:
            norm.step = step
        seen: dict[str, Any] = state.memory.get("seen", {})
        came, tops = self._down(state) if seen else ({}, [])
        drive = self._drive(x, state, show)
        held = drive if state.held is None else state.held + (drive - state.memory["drive"])
        if seen:
            change = self.generative.share * (tops[0] - held)
            held = held + (change if show is None else show(str(self.connections[0]), change))
        value = held if show is None else show(self.lowest, held)
        stages, seen = [value], {}
        for part in range(self.lowest + 1, len(self.stage_channels) + 1):
            graph = self.graphs[part]
            value, seen[str(part)] = up(
                graph, self.inner.get_submodule, value, came.get(str(part), {}), self.generative.share
            )
            tail = part == len(self.stage_channels)
            value = value if show is None else show(None if tail else part, value)
            stages += [] if tail else [value]
        memory = {"seen": seen, "came": tuple(tops), "drive": drive}
        return value, State(x, {LOGITS: self._logits(value)}, held, tuple(stages), len(self.stage_channels), memory)

    def _drive(self, x: Tensor, state: State, show: Show | None) -> Tensor:
        """What the target gives of an image without feedback, [B, C, H, W]."""
        if state.held is not None and x is state.image and show is None:
            return state.memory["drive"]
        for stage in range(self.lowest + 1):
            x = self._stage(stage, x, {})
            if show is not None and stage < self.lowest:
                x = show(stage, x)
        return x

    def _down(self, state: State) -> tuple[dict[str, dict[str, Tensor]], list[Tensor]]:
        """What comes down to the nodes of every part, and to the output of the target and of each stage behind it."""
        top = transposed_linear(self.__dict__["head"], state.sources[LOGITS], ())
        came, tops = dict[str, dict[str, Tensor]](), list[Tensor]()
        for part in range(len(self.stage_channels), self.lowest, -1):
            graph = self.graphs[part]
            top, came[str(part)] = down(graph, self.inner.get_submodule, top, state.memory["seen"][str(part)])
            tops.insert(0, top)
        return came, tops


def _graphs(net: nn.Module) -> list[fx.Graph]:
    """The graphs of a network's stages and tail, on its own modules.

    Raises:
        UserError: it has none.
    """
    who = "a network for feedback.generative"
    if isinstance(net, Remembering) and net.remembers:
        raise must(who, "one without a memory of its own", type(net).__name__, "Use feedback.gated.")
    try:
        graph, names = traced_with_stages(net, composed=True)
    except Untraceable as error:
        raise must(who, "one whose code can be traced", str(error), "Use another --backbone.") from error
    return stage_graphs(graph.graph, names)


def generative(
    backbone: nn.Module, options: GenerativeOptions, saved: Mapping[str, Tensor] | None = None
) -> Generative:
    """A copy of a network whose weights run both ways.

    Raises:
        UserError: as `Generative`, or the connections are others than one from logits.
    """
    made = Generative(wrapped(backbone, "feedback.generative"), options).train(backbone.training)
    if [each.source for each in made.connections] != [LOGITS]:
        got = ",".join(map(str, made.connections))
        raise must("connections of feedback.generative", "one, from logits", got, f"Write logits>{name_of(0)}.")
    return made
