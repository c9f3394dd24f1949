"""Clip-floor-shift activations: a ReLU network trained to be what integrate-and-fire neurons compute in L steps."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.errors import must
from snn.adapter_options import QCFSOptions
from snn.levels import LevelSearch

FLOOR = 1e-4
"""Smallest threshold: an optimizer may carry a parameter below zero."""
CALIBRATION_IMAGES = 512
CALIBRATION_BATCH = 128


class _ClipFloorShift(torch.autograd.Function):
    """theta clip(floor(x L / theta + 1/2) / L, 0, 1), with the floor passed straight through in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, levels: int) -> Tensor:
        """x: [B, C, ...], theta: broadcastable to it and of its type -> the shape of x."""
        ctx.save_for_backward(x, theta)
        ctx.levels = levels
        y = (x * (levels / theta)).add_(0.5).floor_().clamp_(0, levels)
        return y.mul_(theta / levels)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        x, theta = ctx.saved_tensors
        (grad,) = grads
        level = (x * (ctx.levels / theta)).add_(0.5).floor_()
        linear = (level >= 0) & (level < ctx.levels)
        by_theta = torch.where(linear, level / ctx.levels - x / theta, (level >= ctx.levels).to(x.dtype))
        return grad * linear, (grad * by_theta).sum_to_size(theta.shape), None


class QCFS(nn.Module):
    """Quantisation clip-floor-shift activation, with a learnable threshold theta and L levels.

        h(x) = theta clip(floor(x L / theta + 1/2) / L, 0, 1)
        dh/dx = 1 where -theta / 2L <= x < theta - theta / 2L, else 0
        dh/dtheta = (h - x) / theta there, 0 below, 1 above

    An integrate-and-fire neuron of threshold theta, started at theta / 2 and driven by a constant x, gives
    ``h(x) L / theta`` spikes in L steps: exactly, at any x.

    Args:
        channels: thresholds, one per channel (dimension 1 of the input); 1 for one of the whole layer.
        levels: L.
        threshold: first value of theta.

    Shapes: [B, C, ...] -> the same.

    Source: Bu et al. 2022 (arXiv 2303.04347), section 4.
    """

    leaf = True  # one node in a traced graph

    def __init__(self, channels: int, levels: int, threshold: float = 8.0) -> None:
        super().__init__()
        self.levels = levels
        self.threshold = nn.Parameter(torch.full((channels,), float(threshold)))

    def extra_repr(self) -> str:
        return f"{len(self.threshold)}, levels={self.levels}"

    def theta(self) -> Tensor:
        """[channels] > 0, the thresholds in force."""
        return self.threshold.clamp_min(FLOOR)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta().to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
        return _ClipFloorShift.apply(x, theta, self.levels)  # type: ignore[return-value]


class QCFSBackbone(nn.Module):
    """A backbone whose ReLUs have become `QCFS`, under the `backbone.contract.Backbone` contract.

    Args:
        net: the adapted network; its shapes and methods are this one's.
        calibrated: let `calibrate` set the thresholds; otherwise they keep what they were made with.
    """

    def __init__(self, net: nn.Module, calibrated: bool) -> None:
        super().__init__()
        self.net: Any = net
        self.calibrated = calibrated
        self.in_shape: tuple[int, int, int] = self.net.in_shape
        self.feature_dim: int = self.net.feature_dim
        self.stage_channels: tuple[int, ...] = self.net.stage_channels
        self.steps: int = self.net.steps
        self.readout: Literal["mean", "last"] = self.net.readout
        convertible = "full" if self.net.convertible == "hybrid" else self.net.convertible  # its max pools are gone
        self.convertible: Literal["full", "hybrid", "no"] = convertible

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the output of every stage, each [B, C_i, H_i, W_i]."""
        return self.net.stages(x)

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]; this is what gets traced."""
        return self.net.features(x)

    def forward_steps(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim]."""
        return self.net.forward_steps(x)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim]."""
        return self.net(x)

    def prepare(self, images: Tensor) -> None:
        """Initialise a fresh network. images: [N, C, H, W] normalised training images."""
        if hasattr(self.net, "prepare"):
            self.net.prepare(images)
        self.calibrate(images, trained=False)

    def calibrate(self, images: Tensor, *, trained: bool = True) -> None:
        """Set every threshold to what quantises the ReLU network's activations with the least squared error.

        Args:
            images: [N, C, H, W] normalised training images; the first few hundred are used.
            trained: False: BatchNorm has no statistics yet, so that those of the batches are used.
        """
        if not self.calibrated:
            return
        parts = images[:CALIBRATION_IMAGES].split(CALIBRATION_BATCH)
        analog = copy.deepcopy(self.net).train(not trained)
        searches = {}
        for name, module in list(analog.named_modules()):
            if isinstance(module, QCFS):
                searches[name] = LevelSearch(len(module.threshold), module.levels)
                analog.set_submodule(name, _Watched(searches[name]))
        with torch.no_grad():
            for searching in (False, True):
                for search in searches.values():
                    search.searching = searching
                for part in parts:
                    analog(part)
            for name, search in searches.items():
                self.net.get_submodule(name).threshold.copy_(search.best())


class _Watched(nn.Module):
    """A ReLU whose outputs a search is shown."""

    def __init__(self, search: LevelSearch) -> None:
        super().__init__()
        self.search = search

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x)
        self.search.add(y)
        return y


def qcfs(backbone: nn.Module, options: QCFSOptions) -> QCFSBackbone:
    """A copy of a backbone in which every ReLU is a `QCFS` and every max pool an average pool.

    Raises:
        UserError: it has no ReLU module, or a max pool that no average pool can replace.
    """
    net: Any = copy.deepcopy(backbone)
    channels = _channels(net)
    if not channels:
        raise must(
            "a network for snn.qcfs", "one with nn.ReLU modules", type(backbone).__name__, "Use --backbone vgg-small."
        )
    for name, module in list(net.named_modules()):
        if name in channels:
            count = channels[name] if options.per == "channel" else 1
            net.set_submodule(name, QCFS(count, options.levels, options.threshold or 8.0))
        elif isinstance(module, nn.MaxPool2d):
            net.set_submodule(name, _average_pool(name, module))
    return QCFSBackbone(net, options.threshold is None).train(backbone.training)


def _channels(net: Any) -> dict[str, int]:
    """The channels of every ReLU module that runs, by name, as one blank image shows; 1 where they differ."""
    found: dict[str, int] = {}

    def hook(name: str) -> Any:
        def watch(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = output.shape[1] if found.get(name, output.shape[1]) == output.shape[1] else 1

        return watch

    relus = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_hook(hook(name)) for name, module in relus]
    training = net.training
    net.eval()
    with torch.no_grad():
        net(torch.zeros(1, *net.in_shape))
    net.train(training)
    for handle in handles:
        handle.remove()
    return found


def _average_pool(name: str, pool: nn.MaxPool2d) -> nn.AvgPool2d:
    """The average pool with the windows of a max pool. Source: Bu et al. 2022, section 5."""
    if pool.dilation not in (1, (1, 1)) or pool.return_indices:
        raise must(f"max pool {name}", "without dilation and indices for snn.qcfs", repr(pool), "Use average pooling.")
    return nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
