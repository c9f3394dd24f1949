"""The adapter ``feedback.equilibrium``: feedback goes on until nothing changes any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from engram.backbone.contract import Remembering, Tap
from engram.backbone.errors import must
from engram.backbone.nets.recompute import unchanged_statistics
from engram.feedback.adapters.additive import Additive
from engram.feedback.adapters.gated import Gated
from engram.feedback.network.divergence import within_bounds
from engram.feedback.network.network import FeedbackNetwork, State, wrapped
from engram.feedback.options import EquilibriumOptions, FeedbackOptions
from engram.feedback.solving.fixed_point import Found, Search, relative_residual, search
from engram.feedback.solving.gradients import implicit, squared_norm, with_term


class Equilibrium(FeedbackNetwork):
    """Feedback at its fixed point: what the sources of connections are when a further step does not change them.

        z* = f(z*, x)

    z is the sources, f one step of the recurrent network. The features after the first step are those without feedback,
    those after each further one are of the points that the search for z* has come to; the last are computed from z*
    once more, and are the read-out. An image that has arrived stays where it is, whatever others do.

    Gradients are those of the last features. With ``implicit`` and ``phantom`` a training keeps what one step keeps
    (phantom: one more for each of its own), however long the search is, and the features of earlier steps have none.
    With ``unrolled`` it runs all steps of plain iteration and goes back through each.

    BatchNorm is one for all steps, and learns its statistics in the last one: a fixed point has one distribution. While
    it normalises by the batch, images of a batch do look at each other.

    A recording does not stand still: it takes one plain step for each frame.

    Raises:
        UserError: the network remembers, so that its steps are never the same; or as `FeedbackNetwork`.

    Attributes:
        exhaustive: searches go on to the last step, also when all images have arrived (`exhausting`).

    Source: Bai, Kolter, Koltun 2019 (arXiv 1909.01377), section 3.
    """

    exhaustive = False
    bound = "its steps are those of a search for a fixed point, and neurons that remember take each step once"

    def __init__(self, inner: nn.Module, options: EquilibriumOptions) -> None:
        if isinstance(inner, Remembering) and inner.remembers:
            rule, got = "one without a memory of its own", f"{type(inner).__name__}, whose steps are never the same"
            raise must("a network for feedback.equilibrium", rule, got, "Use feedback.gated or feedback.additive.")
        super().__init__(inner, FeedbackOptions(steps=options.steps, connections=options.connections, norm="shared"))
        self.equilibrium = options

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim].

        Raises:
            TrialError: features are no numbers any more, or explode; it says from which step on.
        """
        if x.ndim == 5:
            return super().forward_steps(x, tap)
        step = EquilibriumStep(self, x, tap, self.equilibrium.gradient != "implicit")
        unrolled = self.equilibrium.gradient == "unrolled" and torch.is_grad_enabled()
        features, z = self._unrolled(step) if unrolled else self._searched(step)[:2]
        last = self._settled(step, z)
        features += [last] * (self.steps - len(features))
        return within_bounds(torch.stack(features), self.delay, self.training)

    @torch.no_grad()
    def residuals(self, x: Tensor) -> Tensor:
        """How far every image is from its equilibrium: |f(z) - z| / |f(z)| at every step from the second on.

        x: [B, C, H, W] -> [steps - 1, B]; images that have arrived stay at their last one.
        """
        with unchanged_statistics(self):
            step = EquilibriumStep(self, x, None, False)
            features, z, found = self._searched(step)
            last = relative_residual(z, step(z)[1].to(z.dtype))
        return torch.cat([found.residuals, last.expand(self.steps - len(features), -1)])

    @torch.no_grad()
    def _searched(self, step: EquilibriumStep) -> tuple[list[Tensor], Tensor, Found]:
        """The features of every step but the last, where the search for z* has ended, and all about it."""
        with unchanged_statistics(self):
            first, z = step.begin()
            features = [first]

            def f(z: Tensor) -> Tensor:
                made, value = step(z)
                features.append(made)
                return value

            z = z.to(torch.promote_types(z.dtype, torch.float32))
            whole = self.exhaustive or step.tap is not None
            found = search(f, z, self._search(self.steps - 2), whole=whole)
        return features, found.z.clone(), found

    def _unrolled(self, step: EquilibriumStep) -> tuple[list[Tensor], Tensor]:
        """The features of every step but the last, and z before that, with the way to them."""
        with unchanged_statistics(self):
            first, z = step.begin()
            features = [first]
            while len(features) < self.steps - 1:
                made, z = step(z)
                features.append(made)
        return features, z

    def _settled(self, step: EquilibriumStep, z: Tensor) -> Tensor:
        """The features of the last step, [B, feature_dim], with the gradients that they are to have."""
        options = self.equilibrium
        if not torch.is_grad_enabled():
            return step(z)[0]
        at = z = z if z.requires_grad else z.requires_grad_()
        damped = options.phantom_steps if options.gradient == "phantom" else 0
        with unchanged_statistics(self) if damped else nullcontext():
            features, value = step(z, shown=not damped)
        term = squared_norm(z, value) if self.training and options.jacobian_penalty else None
        for left in reversed(range(damped)):
            z = options.damping * value + (1 - options.damping) * z
            with unchanged_statistics(self) if left else nullcontext():
                features, value = step(z, shown=not left)
        if options.gradient == "implicit":
            (features,) = implicit(at, value, [features], self._search(self.steps))
        return features if term is None else with_term(features, options.jacobian_penalty * term)

    def before(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> what the lowest stage that feedback changes gives without it, the same in all steps."""
        for stage in range(self.lowest + 1):
            x = self._stage(stage, x, {})
        return x

    def _search(self, most: int) -> Search:
        return Search(self.equilibrium.solver, self.equilibrium.tolerance, most)


class EquilibriumStep:
    """Steps of a network for one batch of images, as a function of its sources: one row [D] for each image.

    What no connection changes is run once, unless a tap wants to see it in every step.
    """

    def __init__(self, net: Equilibrium, x: Tensor, tap: Tap | None, recompute: bool) -> None:
        self.net, self.x, self.tap, self.recompute = net, x, tap, recompute
        self.held = net.before(x) if tap is None else None
        self.number = 0
        self.like: Mapping[str, Tensor] = {}

    def begin(self) -> tuple[Tensor, Tensor]:
        """The first step, without feedback: (features [B, feature_dim], z [B, D])."""
        return self._run({}, True)

    def __call__(self, z: Tensor, shown: bool = True) -> tuple[Tensor, Tensor]:
        """The next step: z: [B, D] -> (features [B, feature_dim], f(z) [B, D])."""
        sources, parts = {}, z.split([like[0].numel() for like in self.like.values()], 1)
        for (name, like), part in zip(self.like.items(), parts, strict=True):
            sources[name] = part.reshape_as(like).to(like.dtype)
        return self._run(sources, shown)

    def _run(self, sources: Mapping[str, Tensor], shown: bool) -> tuple[Tensor, Tensor]:
        state = State(self.x, sources, self.held)
        if self.recompute or self.tap is not None:
            features, state = self.net._step(self.x, state, self.number, self.tap if shown else None)
        else:
            features, state = self.net.advance(self.x, state, self.number)
        self.number += shown
        self.like = {name: value.detach() for name, value in state.sources.items()}
        return features, torch.cat([value.flatten(1) for value in state.sources.values()], 1)


@contextmanager
def exhausting(model: nn.Module) -> Iterator[None]:
    """Networks inside that stop when they have settled take all their steps meanwhile; their answers stay the same."""
    searching = [each for each in model.modules() if isinstance(each, Equilibrium)]
    for each in searching:
        each.exhaustive = True
    try:
        yield
    finally:
        for each in searching:
            each.exhaustive = False


class GatedEquilibrium(Equilibrium, Gated):
    """The fixed point of multiplicative feedback."""


class AdditiveEquilibrium(Equilibrium, Additive):
    """The fixed point of additive feedback."""


def equilibrium(
    backbone: nn.Module, options: EquilibriumOptions, saved: Mapping[str, Tensor] | None = None
) -> Equilibrium:
    """The fixed point of feedback around a copy of a network in stages.

    Raises:
        UserError: it is not in stages, it remembers, or it does not have the connections.
    """
    made = GatedEquilibrium if options.combination == "gated" else AdditiveEquilibrium
    return made(wrapped(backbone, "feedback.equilibrium"), options).train(backbone.training)
