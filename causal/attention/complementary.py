"""The adapter ``causal.complementary``: what attention lets through, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engram.backbone.contract import Halves, Tap
from engram.backbone.errors import must
from engram.backbone.nets.readout import read
from engram.backbone.nets.taps import Show
from engram.causal.attention.around import AroundStages, Memory
from engram.causal.attention.gates import Gates
from engram.causal.attention.options import ComplementaryOptions
from engram.causal.attention.streams import StreamNorm, norms_of_streams


class Streams(NamedTuple):
    """The two streams behind a stage, [B, C, H, W] each: what was let through, and all that was left out so far."""

    kept: Tensor
    rest: Tensor | None


class ComplementaryAttention(AroundStages):
    """Two streams in the last stages of a network: ``c_i = a_i f_i`` and ``s_i = g_i + f_i - c_i``.

    f_i = stage_i(c_{i-1}) and g_i = stage_i(s_{i-1}); a_i are gates (`Gates`) of f_i, and both streams have the weights
    of a stage in common, but for its BatchNorms. In front of the first gates there is one stream, and g is 0: there
    c + s = f, and everywhere c + s = f + g. Nothing is lost on the way, and no value of s finds its way back into c:
    features are those of the tail of c alone, so that the second stream is run in training only (`halves`).

    Every environment has a head of its own for c. The mean of their weights is the classifier's head, which answers
    when all is done: W_e = W + D_e less the mean of all D. All D begin as 0. Another head is given c + s, as features.

    Args:
        backbone: the network, of which a copy becomes part of this one.
        options: where there are gates, how many environments, and so on.

    Raises:
        UserError: the network is not in stages, or the kernel is even.

    Source: Wang, Zhou, Sun and Zhang 2021 (arXiv 2108.08782), sections 3.2 and 3.3. How streams are joined behind a
    stage is ours: theirs meet in blocks of their own networks.
    """

    def __init__(self, backbone: nn.Module, options: ComplementaryOptions) -> None:
        super().__init__(backbone, "causal.complementary")
        if options.kernel % 2 == 0:
            remedy = f"Use {options.kernel + 1}."
            raise must("the kernel of causal.complementary", "odd, so that it has a middle", options.kernel, remedy)
        self.options, count = options, len(self.stage_channels)
        self.first = max(0, count - options.attended)
        self.gates = nn.ModuleList(
            Gates(channels, options.reduction, options.kernel) for channels in self.stage_channels[self.first :]
        )
        self.feature_dim: int = self.inner.feature_dim
        self.norms = self._norms()
        self.apart = self.apart_bias = None
        self.mixing: nn.Linear | None = None
        if self.remembers_inside:
            self.remembers = True

    @torch.no_grad()
    def _norms(self) -> list[StreamNorm]:
        """Two of every BatchNorm behind the first gates, which both streams pass: a blank image shows which."""
        modes = [(module, module.training) for module in self.inner.modules()]
        like, memory = next(self.inner.parameters()), Memory()
        value = like.new_zeros(1, *self.in_shape)
        self.inner.eval()

        def run(first: int, last: int) -> None:
            nonlocal value
            for stage in range(first, last):
                value = self.run_stage(stage, value, memory, None)

        def run_both() -> None:
            run(self.first + 1, len(self.stage_channels))
            self.run_tail(value, memory, None)

        run(0, self.first + 1)
        found = norms_of_streams(self.inner, run_both)
        for module, training in modes:
            module.training = training
        return found

    # It is in stages itself, as the first stream.

    def apply_stage(self, index: int, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """One stage, or one step of it: x [B, C, H, W] -> what is let through, [B, C', H', W']."""
        value = self.run_stage(index, x, {} if memory is None else memory, tap)
        return value if index < self.first else value * self._gates(index, value)

    def apply_tail(self, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """x: the output of the last stage, [B, C, H, W] -> features [B, feature_dim]."""
        return self.run_tail(x, {} if memory is None else memory, tap)

    def one_step(self, x: Tensor, memory: Memory, show: Show | None, tap: Tap | None) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]."""
        for index in range(len(self.stage_channels)):
            x = self.apply_stage(index, x, memory, tap)
            x = x if show is None else show(index, x)
        return self.apply_tail(x, memory, tap)

    def halves(self, x: Tensor) -> tuple[Tensor, Halves]:
        """The features, and what stands beside them.

        Args:
            x: [B, C, H, W] or [B, T, C, H, W].

        Raises:
            UserError: the head behind it is no linear layer.
        """
        kept, rest = self.split(x)
        head, apart, bias, mixing = self.heads()
        apart = apart - apart.mean(0)
        environments = head(kept) + torch.einsum("ekd,nd->enk", apart, kept) + (bias - bias.mean(0)).unsqueeze(1)
        return kept, Halves(rest, environments.float(), mixing(kept + rest).float(), spread(head.weight + apart))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features of both streams, the read-out over steps: [B, feature_dim] each.

        x: [B, C, H, W] or [B, T, C, H, W].
        """
        memories, steps = (Memory(), Memory()), list[tuple[Tensor, Tensor]]()
        for image in x.unbind(1) if x.ndim == 5 else (x,) * self.steps:
            streams = self.streams(image, memories)[-1]
            assert streams.rest is not None  # the last stage has gates
            kept = self.run_tail(streams.kept, memories[0], None)
            steps.append((kept, self._of_rest(len(self.stage_channels), streams.rest, memories[1])))
        kept, rest = (torch.stack(each) for each in zip(*steps, strict=True))
        return read(self, kept), read(self, rest)

    def streams(self, x: Tensor, memories: tuple[Memory, Memory]) -> list[Streams]:
        """One step of both streams, behind every stage. x: [B, C, H, W]."""
        found, now = list[Streams](), Streams(x, None)
        for index in range(len(self.stage_channels)):
            value = self.run_stage(index, now.kept, memories[0], None)
            if index < self.first:
                now = Streams(value, None)
            else:
                kept = value * self._gates(index, value)
                left = value - kept
                now = Streams(kept, left if now.rest is None else left + self._of_rest(index, now.rest, memories[1]))
            found.append(now)
        return found

    def introduce(self, head: nn.Module) -> None:
        """Take the head, beside which every environment has one of its own. It stays the classifier's."""
        self.__dict__["head"] = head  # beside the modules: its weights are the classifier's
        if not isinstance(head, nn.Linear):
            self.apart = self.apart_bias = self.mixing = None
            return
        shape = (self.options.environments, head.out_features, self.feature_dim)
        if self.apart is None or self.apart.shape != shape:
            like = head.weight
            self.apart = nn.Parameter(like.new_zeros(shape))
            self.apart_bias = nn.Parameter(like.new_zeros(shape[:2]))
            self.mixing = nn.Linear(self.feature_dim, head.out_features).to(like.device, like.dtype)

    def heads(self) -> tuple[nn.Linear, Tensor, Tensor, nn.Linear]:
        """The classifier's head, how far those of environments are from it ([E, K, D] and [E, K]), and that of both.

        Raises:
            UserError: the classifier's is no linear layer.
        """
        head = self.__dict__.get("head")
        if not isinstance(head, nn.Linear) or self.apart is None or self.apart_bias is None or self.mixing is None:
            got = "none" if head is None else type(head).__name__
            raise must("the head behind causal.complementary", "a linear layer", got, "Train with --head linear.")
        return head, self.apart, self.apart_bias, self.mixing

    def _gates(self, index: int, value: Tensor) -> Tensor:
        return self.gates[index - self.first](value)

    def _of_rest(self, index: int, value: Tensor, memory: Memory) -> Tensor:
        """A stage, or behind the last one the tail, of the second stream."""
        for norm in self.norms:
            norm.stream = 1
        try:
            if index < len(self.stage_channels):
                return self.run_stage(index, value, memory, None)
            return self.run_tail(value, memory, None)
        finally:
            for norm in self.norms:
                norm.stream = 0


def spread(weights: Tensor) -> Tensor:
    """How far apart heads are: the mean over them of ``(|W_e - mean W|_2 / |W_e|_1)^2``, with norms of all elements.

    weights: [E, K, D] -> [].
    """
    apart = (weights - weights.mean(0)).flatten(1).square().sum(1)
    return (apart / weights.flatten(1).abs().sum(1).square()).mean()


def complementary(
    backbone: nn.Module, options: ComplementaryOptions, saved: Mapping[str, Any] | None = None
) -> ComplementaryAttention:
    """Complementary attention in a copy of a network in stages.

    Raises:
        UserError: it is not in stages, or an option cannot be.
    """
    return ComplementaryAttention(backbone, options).train(backbone.training)
