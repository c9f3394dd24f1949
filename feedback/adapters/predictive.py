"""The adapter ``feedback.predictive``: every stage predicts the one before, and corrects what it predicted wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.backbone.nets.recompute import unchanged_statistics
from engram.feedback.connections import Connection, name_of, parse
from engram.feedback.network.mixing import Mixing, Shares
from engram.feedback.network.network import FeedbackNetwork, Show, State, wrapped
from engram.feedback.network.predictions import Prediction
from engram.feedback.options import PredictiveOptions
from engram.feedback.shares import numbers

SHARES = ("feedforward", "feedback", "correction")


class Predictive(FeedbackNetwork):
    """Predictive coding. With e_0 the image, e_n the output of stage n and ``d_{n-1} = g_n(e_n)`` its predictions:

        e_n(t+1) = b_n F_n(e_{n-1}(t+1)) + l_n d_n(t) + (1 - b_n - l_n) e_n(t) - a_n s_n J_n^T (d_{n-1}(t) - e_{n-1}(t))

    F_n is the stage as it was wrapped, b_n, l_n and a_n its shares (`Mixing`), ``s_n = 2 / sqrt(C_n)`` (`Prediction`).
    The first step is the plain pass through all stages. Nothing predicts the last stage: l_N is 0. The last term is the
    scaled gradient of the mean squared error of the prediction, written out: predictions are linear. A network of one
    stage predicts the image alone.

    Outputs stay float32 under bf16: they are sums of many small changes. Of a connection ``layerK>layerJ`` a tap sees
    what it adds, ``l_J (d_J - e_J)``.

    Attributes:
        image: g_1, the prediction of the image; the others are ``paths``.
        mixing: the shares.

    Source: Choksi et al. 2021 (arXiv 2106.02749), equation 1; Alamia et al. 2023 (arXiv 2106.04225).
    """

    options: PredictiveOptions

    bound = "its stages follow the gradients of prediction errors, which have both signs"

    def __init__(self, inner: nn.Module, options: PredictiveOptions) -> None:
        super().__init__(inner, options)
        if options.kernel % 2 == 0:
            remedy = f"Use {options.kernel + 1}."
            raise must("kernel", "odd, so that predictions have a middle", options.kernel, remedy)
        if self.remembers_inside:
            rule = "one that remembers nothing: it corrects values, and spikes cannot be corrected"
            raise must("a network for feedback.predictive", rule, type(inner).__name__, "Use feedback.gated.")
        self.image = Prediction(self.shape_of(0), self.in_shape, options.kernel)
        forward, back, correction = (numbers(getattr(options, name), name) for name in SHARES)
        self.mixing = Mixing(len(self.stage_shapes), forward, back, correction, options.learn_mixing)

    def shape_of(self, stage: int) -> tuple[int, int, int]:
        """Channels, height and width of a stage's output."""
        channels, height, width = self.stage_shapes[stage]
        return channels, height, width

    def usual(self) -> tuple[Connection, ...]:
        return tuple(Connection(name_of(stage + 1), stage) for stage in range(len(self.stage_channels) - 1))

    def _connections(self) -> tuple[Connection, ...]:
        asked, own = self.options.connections, self.usual()
        if asked is not None and set(parse(asked)) != set(own):
            said = ",".join(map(str, own)) or "left out"
            rule = f"{said} for feedback.predictive, whose stages predict the one before"
            raise must("connections", rule, asked, "Leave it out, or use feedback.gated.")
        return own

    def path(self, connection: Connection) -> nn.Module:
        """The prediction that a stage makes of the one before."""
        target = connection.target
        return Prediction(self.shape_of(target + 1), self.shape_of(target), self.options.kernel)

    @property
    def predictions(self) -> list[Prediction]:
        """Of the image, of the first stage and so on."""
        paths: Any = self.paths
        return [self.image, *paths]

    def links(self) -> dict[str, nn.Module]:
        """The predictions, that of the image too, by the connections that they are."""
        return {f"{name_of(0)}>image": self.image, **super().links()}

    def predictors(self) -> nn.Module:
        return nn.ModuleList(self.predictions)

    def prediction_errors(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the mean squared error of every prediction, [stages].

        The outputs of the stages are those of the plain pass, and no gradient reaches them.

        Source: Choksi et al. 2021, section 3: predictions are trained so, with the network frozen.
        """
        for norm in self.step_norms:
            norm.step = 0
        value = x = x.flatten(0, 1) if x.ndim == 5 else x
        stages = list[Tensor]()
        with torch.no_grad():
            for stage in range(len(self.stage_channels)):
                value = self._stage(stage, value, {}).to(x.dtype)
                stages.append(value)
        return torch.stack([error.square().mean() for error in self.errors(x, stages)])

    def errors(self, x: Tensor, stages: Sequence[Tensor]) -> list[Tensor]:
        """What is predicted of the image and of every stage but the last, less what it is.

        Args:
            x: [B, C, H, W].
            stages: the outputs of the first stages; what predicts is one of them.
        """
        return [g(e) - under for g, e, under in zip(self.predictions, stages, (x, *stages), strict=False)]

    def advance(self, x: Tensor, state: State, step: int, show: Show | None = None) -> tuple[Tensor, State]:
        for norm in self.step_norms:
            norm.step = step
        count, delayed = len(self.stage_channels), self.options.unrolling == "biological"
        reached = min(state.reached + 1, count) if delayed else count
        errors, shares = self.errors(x, state.stages[: state.reached]), self.mixing.shares()
        outputs, held = list[Tensor](), None
        for stage in range(count):
            if stage >= reached:
                value = x.new_zeros(len(x), *self.stage_shapes[stage])
            else:
                under = x if stage == 0 else (state.stages if delayed else outputs)[stage - 1]
                seen = stage == 0 and state.held is not None and x is state.image
                value = state.held if seen and show is None else None
                if value is None:  # a tap is shown the first stage anew: its statistics count an image once
                    with unchanged_statistics(self.inner) if seen else nullcontext():
                        value = self._stage(stage, under, {}).to(x.dtype)
                held = value if stage == 0 else held
            if stage < state.reached:
                value = self._mixed(stage, value, state.stages[stage], errors, shares[stage], show)
            if self.options.dropout:
                value = F.dropout(value, self.options.dropout, self.training)
            outputs.append(value if show is None else show(stage, value))
        features = self._tail(outputs[-1], {}) if reached == count else x.new_zeros(len(x), self.feature_dim)
        features = features if show is None else show(None, features)
        return features, State(x, {}, held, tuple(outputs), reached)

    def _mixed(
        self, stage: int, drive: Tensor, before: Tensor, errors: Sequence[Tensor], shares: Shares, show: Show | None
    ) -> Tensor:
        """A stage's next output, of what the one below gives it, its own before and what was predicted wrong."""
        value = torch.lerp(before, drive, shares.feedforward)
        if stage + 1 < len(errors):
            change = shares.feedback * errors[stage + 1]
            value = value + (change if show is None else show(str(self.connections[stage]), change))
        prediction = self.predictions[stage]
        return value - shares.correction * prediction.scale * prediction.adjoint(errors[stage])


def predictive(
    backbone: nn.Module, options: PredictiveOptions, saved: Mapping[str, Tensor] | None = None
) -> Predictive:
    """Predictive coding around a copy of a network in stages.

    Raises:
        UserError: it is not in stages or remembers, or shares, connections or the kernel cannot be.
    """
    return Predictive(wrapped(backbone, "feedback.predictive"), options).train(backbone.training)
