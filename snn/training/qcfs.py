"""The adapter ``snn.qcfs``: any network that can be traced, with quantised activations where its ReLUs were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from engram.backbone.contract import Prepared, Row, Staged, Tap
from engram.backbone.errors import must
from engram.backbone.nets.folding import features_of
from engram.backbone.nets.plain import copied
from engram.backbone.nets.shapes import value_shapes
from engram.backbone.nets.tapped import tapped_steps
from engram.backbone.nets.taps import stage_values, within
from engram.backbone.nets.traced import TracedBackbone
from engram.snn.conversion.preflight import adapted, traced
from engram.snn.graph.activations import RELU, activation
from engram.snn.graph.operations import Modules, max_pool, module_of, place
from engram.snn.graph.rewriting import overwritten, stop_overwriting
from engram.snn.neurons.quantised import QCFS
from engram.snn.training.levels import LevelSearch
from engram.snn.training.options import QCFSOptions

CALIBRATION_IMAGES = 512
CALIBRATION_BATCH = 128


class QCFSBackbone(nn.Module):
    """A backbone whose ReLUs have become `QCFS`, under the `engram.backbone.contract.Backbone` contract.

    Args:
        net: the adapted network; its shapes and methods are this one's.
        calibrated: let `calibrate` set the thresholds; otherwise they keep what they were made with.
        verdicts: what became of every layer.
    """

    def __init__(self, net: nn.Module, calibrated: bool, verdicts: Sequence[Row] = ()) -> None:
        super().__init__()
        self.verdicts = tuple(verdicts)
        self.net: Any = net
        self.calibrated = calibrated
        self.in_shape: tuple[int, int, int] = self.net.in_shape
        self.feature_dim: int = self.net.feature_dim
        self.stage_channels: tuple[int, ...] = self.net.stage_channels
        self.steps: int = self.net.steps
        self.readout: Literal["mean", "last"] = self.net.readout

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the mean over steps of every stage, each [B, C_i, H_i, W_i]."""
        return self.net.stages(x)

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]; this is what gets traced."""
        return features_of(self.net)(x)

    def stage_steps(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the output of every stage at every step, each [S, B, C_i, H_i, W_i]."""
        return stage_values(self, x)

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim]."""
        return self.net.forward_steps(x) if tap is None else tapped_steps(self.net, x, within("net.", tap))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim]."""
        return self.net(x)

    def prepare(self, images: Tensor) -> None:
        """Initialise a fresh network. images: [N, C, H, W] normalised training images."""
        if isinstance(self.net, Prepared):
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
        analog = copied(self.net).train(not trained)
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


class StagedQCFSBackbone(QCFSBackbone):
    """A `QCFSBackbone` of a network that can be run stage by stage, which can be run so too."""

    def apply_stage(self, index: int, x: Tensor) -> Tensor:
        """x: the images, or the output of stage ``index - 1`` -> the output of stage ``index``, [B, C, H, W]."""
        return self.net.apply_stage(index, x)

    def apply_tail(self, x: Tensor) -> Tensor:
        """x: the output of the last stage, [B, C, H, W] -> features [B, feature_dim]."""
        return self.net.apply_tail(x)


class _Watched(nn.Module):
    """A ReLU whose outputs a search is shown."""

    def __init__(self, search: LevelSearch) -> None:
        super().__init__()
        self.search = search

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x)
        self.search.add(y)
        return y


def qcfs(backbone: nn.Module, options: QCFSOptions, saved: Mapping[str, Tensor] | None = None) -> QCFSBackbone:
    """A copy of a backbone in which every ReLU is a `QCFS` and every max pool an average pool, however it is written.

    Raises:
        UserError: it cannot be traced, has no ReLU, or a max pool that no average pool can replace.
    """
    graph, stages = traced(backbone, "snn.qcfs")
    modules = dict(graph.named_modules())
    nodes = [node for node in graph.graph.nodes if activation(node, modules) == RELU or _is_max_pool(node, modules)]
    if not any(activation(node, modules) == RELU for node in nodes):
        raise must("a network for snn.qcfs", "one with ReLUs", type(backbone).__name__, "Use --backbone vgg-small.")
    verdicts = adapted(graph, lambda node, modules: _becomes(node, modules, options.levels))
    written = all(node.op == "call_module" for node in nodes) and not any(overwritten(graph).values())
    net: nn.Module = copied(backbone) if written else TracedBackbone(graph, backbone, stages)
    stop_overwriting(graph)
    changed = net if written else graph
    for name, module in _replacements(graph, nodes, backbone.in_shape, options).items():  # type: ignore[arg-type]
        changed.set_submodule(name, module)
    if not written:
        _call_modules(graph, nodes)
    kind = StagedQCFSBackbone if isinstance(net, Staged) else QCFSBackbone
    return kind(net, options.threshold is None, verdicts).train(backbone.training)


def _replacements(
    graph: fx.GraphModule, nodes: Sequence[fx.Node], in_shape: tuple[int, int, int], options: QCFSOptions
) -> dict[str, nn.Module]:
    """A module for every ReLU and max pool, by the name of the module called or of the node that is a function.

    A ReLU module that is used at two widths gets one threshold.
    """
    modules, shapes, found = dict(graph.named_modules()), value_shapes(graph, in_shape), dict[str, nn.Module]()
    for node in nodes:
        name = _own_name(node)
        if activation(node, modules) == RELU:
            earlier, count = found.get(name), shapes[node][1] if options.per == "channel" else 1
            if isinstance(earlier, QCFS):
                count = count if len(earlier.threshold) == count else 1
            found[name] = QCFS(count, options.levels, options.threshold or 8.0)
        else:
            found[name] = _average_pool(node, modules)
    return found


def _call_modules(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
    """Let functions that have got a module call it."""
    for node in nodes:
        node.target = _own_name(node)
        node.op, node.args, node.kwargs = "call_module", (node.all_input_nodes[0],), {}
    graph.delete_all_unused_submodules()
    graph.recompile()


def _own_name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else f"{node.name}_module"


def _becomes(node: fx.Node, modules: Modules, levels: int) -> str:
    name = activation(node, modules)
    if name == RELU:
        return f"quantised activation of {levels} levels"
    if _is_max_pool(node, modules):
        return "average pooling"
    return f"kept analog: quantised activations stand for ReLUs, not for {name}" if name else ""


def _is_max_pool(node: fx.Node, modules: Modules) -> bool:
    """Also one with indices or of other dimensions, which cannot stay unnoticed."""
    return isinstance(module_of(node, modules), nn.MaxPool2d) or max_pool(node, modules) is not None


def _average_pool(node: fx.Node, modules: Modules) -> nn.Module:
    """The average pool with the windows of a max pool. Source: Bu et al. 2022, section 5."""
    pool = max_pool(node, modules)
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        return nn.AdaptiveAvgPool2d(pool.output_size)
    if pool is None or pool.dilation not in (1, (1, 1)):
        what = f"max pool {place(node) if node.op != 'call_module' else node.target}"
        raise must(what, "without dilation and indices for snn.qcfs", repr(pool), "Use average pooling.")
    return nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
