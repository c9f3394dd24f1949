"""A network in stages, run step by step: what later stages gave changes what earlier ones give in the next step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engram.backbone.contract import Delayed, Remembering, Tap
from engram.backbone.errors import must
from engram.backbone.nets.recompute import unchanged_statistics
from engram.backbone.nets.staging import in_stages
from engram.backbone.nets.taps import at_step
from engram.backbone.nets.wrapped import Wrapped
from engram.feedback.connections import FEATURES, LOGITS, Connection, between, name_of, parse, stage_of, usual
from engram.feedback.network.divergence import within_bounds
from engram.feedback.network.moving import Moving
from engram.feedback.network.norms import StepNorm, called_norms, norms_of_steps
from engram.feedback.network.paths import TopDown, Unintroduced
from engram.feedback.network.state import State, detached
from engram.feedback.options import STEPS, FeedbackOptions

FORGETTING = 3  # of the mean of what a spiking network sends back
Show = Callable[[int | str | None, Tensor], Tensor]
"""Is given a stage's number, a connection's text or None for the features, and a value [B, ...]: what it returns goes
on."""


class FeedbackNetwork(Moving, Wrapped):
    """Feedback around a network in stages, under the `engram.backbone.contract.Backbone` contract.

    In each step an image passes the stages, and the output of every stage that is the target of connections is changed
    by what their sources were one step before (`combine`). In the first step nothing is changed. With
    ``unrolling="biological"`` the way from each stage to the next takes a step as well: a stage that the image has not
    reached yet gives zeros, and so does the network.

    A path's value is a site of its own under its connection's text (``layer3>layer1``), and `neutral` is the value
    that changes nothing.

    Args:
        inner: the network, which becomes part of this one; in its mode.
        options: steps, connections and so on.

    Attributes:
        inner: the wrapped network.
        connections: what leads back.
        paths: the module of each connection.
        neutral: what a path's value is where it changes nothing.
        lowest: the number of the first stage that a connection changes; stages before it see no feedback.
        waiting: steps in which an image has not reached the last stage.

    Raises:
        UserError: connections that the network does not have, or steps beside those of a spiking network.
    """

    neutral: ClassVar[float] = 0.0
    along: ClassVar[type[TopDown]] = TopDown
    """What makes a path of so many channels at its source and at its target."""
    recompute = False
    any_layout = True

    def __init__(self, inner: nn.Module, options: FeedbackOptions) -> None:
        super().__init__()
        net: Any = inner
        own: Literal["mean", "last"] = net.readout
        self.inner, self.options = net, options
        self.in_shape: tuple[int, int, int] = net.in_shape
        self.feature_dim: int = net.feature_dim
        self.stage_channels: tuple[int, ...] = net.stage_channels
        self.remembers_inside = isinstance(inner, Remembering) and inner.remembers
        biological = options.unrolling == "biological"
        self.waiting = (len(self.stage_channels) - 1) * biological
        self.delay = (net.delay if isinstance(net, Delayed) else 0) + self.waiting
        self.steps = self._steps_of(net) + self.waiting
        own = own if self.remembers_inside else "last"
        self.readout: Literal["mean", "last"] = "mean" if options.readout == "learned" else options.readout or own
        self.step_logits = nn.Parameter(torch.zeros(self.steps)) if options.readout == "learned" else None
        if biological and options.truncate is not None and options.truncate < len(self.stage_channels):
            rule = f"at least {len(self.stage_channels)}, the steps that an image takes through all stages"
            remedy = "Raise it, or the first stages learn nothing."
            raise must("truncate with biological unrolling", rule, options.truncate, remedy)
        self.connections = self._connections()
        self.lowest = min((each.target for each in self.connections), default=0)
        self.stage_shapes, first = self._looked_at()
        self.classes = 0  # of the head, where its logits are a source
        self.paths = nn.ModuleList(self.path(each) for each in self.connections)
        several = options.norm == "step" and self.steps > 1
        self.step_norms: list[StepNorm] = norms_of_steps(inner, self.steps, first) if several else []

    # What kinds of feedback differ in.

    def path(self, connection: Connection) -> nn.Module:
        """The module of a connection: from its source [B, C_source, h, w] to what `combine` takes."""
        if connection.source == LOGITS:
            return Unintroduced()
        return self.along(self.channels_of(connection.source), self.stage_channels[connection.target])

    def combine(self, stage: int, value: Tensor, tops: Sequence[Tensor]) -> Tensor:
        """The output of a stage, changed by the values of the paths that lead to it, [B, C, h, w] each."""
        raise NotImplementedError

    def output(self, stage: int, drive: Tensor, changed: Tensor, memory: dict[str, Any]) -> Tensor:
        """What a stage passes on in a step, [B, C, H, W], whether connections lead to it or not.

        Args:
            stage: its number, from 0.
            drive: what it gave.
            changed: what `combine` made of that.
            memory: for what the stage is to remember until the next step, under a name of its own.
        """
        return changed

    # The contract of backbones.

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim].

        Raises:
            TrialError: features are no numbers any more, or explode; it says from which step on.
        """
        images = x.unbind(1) if x.ndim == 5 else (x,) * self.steps
        found, state = [], self.begin(images[0])
        for step, image in enumerate(images):
            if self.options.truncate and step and (len(images) - step) % self.options.truncate == 0:
                state = detached(state)
            features, state = self._step(image, state, step, tap)
            found.append(features)
        return within_bounds(torch.stack(found), self.delay, self.training)

    def step_weights(self, steps: int) -> Tensor | None:
        """[steps], the weights of the learned read-out; later steps than it was made for have the last one's."""
        if self.step_logits is None:
            return None
        weights = self.step_logits.softmax(0)
        return torch.cat([weights, weights[-1:].expand(max(0, steps - len(weights)))])[:steps]

    def introduce(self, head: nn.Module) -> None:
        """Take the head whose logits are a source. It stays the classifier's.

        Raises:
            UserError: it gives no logits of features alone.
        """
        if all(each.source != LOGITS for each in self.connections):
            return
        like = next(self.inner.parameters())
        try:
            with torch.no_grad():
                classes = head(like.new_zeros(1, self.feature_dim)).shape[-1]
        except Exception as error:  # heads that want a labelled support set first fail in ways of their own
            rule, got = "that of a head which gives them from features alone", type(head).__name__
            raise must("logits in connections", rule, got, "Use features instead.") from error
        self.__dict__["head"] = head  # beside the modules: its weights are the classifier's
        for place, each in enumerate(self.connections):
            if each.source == LOGITS and (isinstance(self.paths[place], Unintroduced) or classes != self.classes):
                made = self.along(classes, self.stage_channels[each.target]).to(like.device, like.dtype)
                self.paths[place] = made.train(self.training)
        self.classes = classes

    # One step.

    def begin(self, x: Tensor) -> State:
        """The state before the first step. x: [B, C, H, W]."""
        return State(x)

    def advance(self, x: Tensor, state: State, step: int, show: Show | None = None) -> tuple[Tensor, State]:
        """One step.

        Args:
            x: [B, C, H, W], what is seen in this step.
            state: after the step before, or of `begin`.
            step: its number, from 0.
            show: has every path's value, stage and the features, and says what goes on.

        Returns: (features [B, feature_dim], the state after it).
        """
        for norm in self.step_norms:
            norm.step = step
        tops, memory, count = self._tops(state, show), dict(state.memory), len(self.stage_channels)
        if self.options.unrolling == "biological":
            reached = min(state.reached + 1, count)
            outputs, held = self._one_stage_each(x, state, reached, tops, memory, show), None
            stages = tuple(outputs.values())
        else:
            reached, stages = count, ()
            outputs, held = self._all_stages(x, state, tops, memory, show)
        arrived = reached == count
        features = self._tail(outputs[count - 1], memory, show) if arrived else x.new_zeros(len(x), self.feature_dim)
        features = features if show is None else show(None, features)
        sources = self._sources(outputs, features, state, reached, step)
        return features, State(x, sources, held, stages, reached, memory)

    def _tops(self, state: State, show: Show | None) -> dict[int, list[Tensor]]:
        """The values of all paths whose sources are there, by the stages they lead to."""
        tops: dict[int, list[Tensor]] = {}
        for connection, path in zip(self.connections, self.paths, strict=True):
            source = state.sources.get(connection.source)
            if source is not None:
                value = path(source)
                tops.setdefault(connection.target, []).append(value if show is None else show(str(connection), value))
        return tops

    def _all_stages(
        self, x: Tensor, state: State, tops: Mapping[int, list[Tensor]], memory: dict[str, Any], show: Show | None
    ) -> tuple[dict[int, Tensor], Tensor | None]:
        """The output of every stage that was run, by its number, and the one that stays while the image does."""
        seen = state.held is not None and x is state.image
        known = state.held if show is None and seen else None
        outputs, held, value = dict[int, Tensor](), None, x
        for stage in range(0 if known is None else self.lowest, len(self.stage_channels)):
            if known is not None and stage == self.lowest:
                value = known
            else:  # a tap is shown stages anew that have seen the image: their statistics count it once
                with unchanged_statistics(self.inner) if seen and stage <= self.lowest else nullcontext():
                    value = self._stage(stage, value, memory, show)
            if stage == self.lowest and not self.remembers_inside:
                held = value
            value = outputs[stage] = self._changed(stage, value, tops.get(stage, ()), memory, show)
        return outputs, held

    def _one_stage_each(
        self,
        x: Tensor,
        state: State,
        reached: int,
        tops: Mapping[int, list[Tensor]],
        memory: dict[str, Any],
        show: Show | None,
    ) -> dict[int, Tensor]:
        """The output of every stage, by its number: each sees what the one before it gave one step earlier."""
        outputs = dict[int, Tensor]()
        for stage, shape in enumerate(self.stage_shapes):
            if stage < reached:
                value = self._stage(stage, state.stages[stage - 1] if stage else x, memory, show)
                outputs[stage] = self._changed(stage, value, tops.get(stage, ()), memory, show)
            else:
                nothing = x.new_zeros(len(x), *shape)
                outputs[stage] = nothing if show is None else show(stage, nothing)
        return outputs

    def _changed(
        self, stage: int, drive: Tensor, tops: Sequence[Tensor], memory: dict[str, Any], show: Show | None
    ) -> Tensor:
        changed = self.combine(stage, drive, tops) if tops else drive
        value = self.output(stage, drive, changed, memory)
        if stage >= self.lowest and self.options.dropout:
            value = F.dropout(value, self.options.dropout, self.training)
        return value if show is None else show(stage, value)

    def _stage(self, stage: int, x: Tensor, memory: dict[str, Any], show: Show | None = None) -> Tensor:
        if self.remembers_inside:
            return self.inner.apply_stage(stage, x, memory, _spikes(show))
        return self.inner.apply_stage(stage, x)

    def _tail(self, x: Tensor, memory: dict[str, Any], show: Show | None = None) -> Tensor:
        if self.remembers_inside:
            return self.inner.apply_tail(x, memory, _spikes(show))
        return self.inner.apply_tail(x)

    def _sources(
        self, outputs: Mapping[int, Tensor], features: Tensor, state: State, reached: int, step: int
    ) -> dict[str, Tensor]:
        """What connections read in the next step, by the names of the sources.

        Where layers remember it is a slow current, a mean over the steps so far: one step's spikes are no rate. What
        was sent k steps after the first weighs about as k ** `FORGETTING`, so that the first steps, without feedback,
        are soon forgotten, and the noise of single spikes is not heard.

        Source: Shamir and Zhang 2013 (arXiv 1212.1824), polynomial-decay averaging with eta = 3.
        """
        found = dict[str, Tensor]()
        for name in dict.fromkeys(each.source for each in self.connections):
            stage = stage_of(name)
            if reached < (len(self.stage_channels) if stage is None else stage + 1):
                continue
            if stage is None:
                value = (features if name == FEATURES else self._logits(features))[..., None, None]
            else:
                value = outputs[stage]
            before = state.sources.get(name) if self.remembers_inside else None
            share = (FORGETTING + 1) / (FORGETTING + 1 + step)
            found[name] = value if before is None else before + share * (value - before)
        return found

    def _logits(self, features: Tensor) -> Tensor:
        head = self.__dict__.get("head")
        if head is None:
            rule = "used in a network with a head behind it"
            raise must("logits in connections", rule, "a backbone alone", "Make a Classifier of it, or use features.")
        return head(features)

    # How it runs.

    def _step(self, x: Tensor, state: State, step: int, tap: Tap | None) -> tuple[Tensor, State]:
        if tap is not None:
            with at_step(self, tap, step) as show:
                return self.advance(x, state, step, show)
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return self.advance(x, state, step)

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), unchanged_statistics(self)

        return checkpoint(self.advance, x, state, step, use_reentrant=False, context_fn=contexts)  # type: ignore[return-value]

    # How it is made.

    def channels_of(self, source: str) -> int:
        """How many channels the source of a connection has, a stage or the features."""
        stage = stage_of(source)
        return self.feature_dim if stage is None else self.stage_channels[stage]

    def usual(self) -> tuple[Connection, ...]:
        """The connections that it has where nobody names any."""
        return usual(len(self.stage_channels))

    def _connections(self) -> tuple[Connection, ...]:
        count = len(self.stage_channels)
        if not count:
            raise must("a network for feedback", "one in stages", "one that knows of none", "Use another --backbone.")
        return self.usual() if self.options.connections is None else between(parse(self.options.connections), count)

    def _steps_of(self, net: Any) -> int:
        asked = self.options.steps
        if not self.remembers_inside:
            return asked or STEPS
        if asked not in (None, net.steps):
            rule = f"left out on a network that has {net.steps} steps of its own"
            raise must("the steps of feedback", rule, asked, "Set those of the adapter before it.")
        return net.steps

    @torch.no_grad()
    def _looked_at(self) -> tuple[list[torch.Size], dict[nn.Module, int]]:
        """The shape [C, H, W] of every stage, and the first step of every BatchNorm that runs anew in each, of one
        blank image.
        """
        biological, count = self.options.unrolling == "biological", len(self.stage_channels)
        modes = [(module, module.training) for module in self.inner.modules()]
        self.inner.eval()
        like = next(self.inner.parameters())
        value, shapes, first = like.new_zeros(1, *self.in_shape), list[torch.Size](), dict[nn.Module, int]()
        with called_norms(self.inner) as called:
            for stage in range(count):
                value = self._stage(stage, value, {})
                if value.ndim != 4:
                    rule = "a map [B, C, H, W], which feedback can bring to another size"
                    raise must(
                        f"{name_of(stage)} of a network for feedback", rule, list(value.shape), "Use another one."
                    )
                shapes.append(value.shape[1:])
                found = called()
                if biological or stage > self.lowest:
                    first = {**dict.fromkeys(found, stage * biological), **first}
            self._tail(value, {})
            first = {**dict.fromkeys(called(), (count - 1) * biological), **first}
        for module, training in modes:
            module.training = training
        return shapes, first


def _spikes(show: Show | None) -> Tap | None:
    """A tap on what layers of neurons of the wrapped network send in one step."""
    if show is None:
        return None
    return lambda site, value: show(f"inner.{site.name}", value.squeeze(0)).unsqueeze(0)


def wrapped(backbone: nn.Module, who: str) -> nn.Module:
    """A copy of a network in stages, for the adapter called ``who`` to put feedback around.

    Raises:
        UserError: it is not in stages, and its code does not show where one ends.
    """
    return in_stages(backbone, who)
