"""A classifier in anyone's code as a backbone and a head: what goes into its last Linear layer are its features."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from engram.backbone.errors import must
from engram.backbone.nets.blocks import FeedForward
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.folding import Untraceable, trace
from engram.backbone.nets.plain import copied
from engram.backbone.nets.taps import Show

_SOFTMAX = (F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax")
_PREFIX = "net."


class _Reached(BaseException):
    """The features are there; nothing in between may catch it."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


class _End(nn.Module):
    """Stands where the head stood, and ends the pass there: what comes after the head is no part of the features."""

    def forward(self, input: Tensor) -> Tensor:
        raise _Reached(input)


class Parted(FeedForward):
    """A network without its last Linear layer, under the `engram.backbone.contract.Backbone` contract with one step.

    Its code runs as it is, in training too; nothing is known of its stages.

    Args:
        net: images [B, C, H, W] -> logits [B, classes]; changed in place.
        in_shape: (C, H, W) of one image.
        head: the name of its last Linear layer; "" keeps the whole network, whose features are then its logits.
    """

    stage_channels = ()

    def __init__(self, net: nn.Module, in_shape: tuple[int, int, int], head: str = "") -> None:
        super().__init__()
        self.net, self.in_shape, self.feature_dim, self.head = net, in_shape, 0, head
        if head:
            self.feature_dim = net.get_submodule(head).in_features  # type: ignore[assignment]
            net.set_submodule(head, _End())

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]."""
        try:
            return self.net(x)
        except _Reached as reached:
            return reached.features

    def image_stages(self, x: Tensor) -> list[Tensor]:
        """No stages: the code does not say where one would end."""
        return []

    def shown_features(self, x: Tensor, show: Show) -> Tensor:
        """As ``features``: no stage is shown."""
        return self.features(x)


def part(net: nn.Module, in_shape: tuple[int, int, int]) -> tuple[Parted, nn.Module]:
    """The backbone and the head of a copy of a classifier, which has the mode and the device of the original.

    A softmax or log-softmax behind the head is left out: logits have the same order, and cross-entropy makes its own.
    Where no Linear layer gives the logits, or the code cannot be traced, the backbone is the whole network and the head
    `torch.nn.Identity`.
    """
    net = copied(net)
    try:
        name = last_linear(trace(Parted(net, in_shape), composed=True))
    except Untraceable:
        name = ""
    head = net.get_submodule(name) if name else nn.Identity()
    return Parted(net, in_shape, name).train(net.training), head


def classifier(module: nn.Module, images: Tensor) -> Classifier:
    """A copy of any classifier in evaluation mode, as the one kind that everything here works on.

    Args:
        module: a `Classifier`, or a network whose images come as it takes them.
        images: [b, C, H, W], some of them.

    Raises:
        UserError: the images have whole numbers that only a `Classifier` knows how to scale.
    """
    if isinstance(module, Classifier):
        return copied(module).eval()
    if not images.is_floating_point():
        raise must(
            "images", "floating point numbers, as the network takes them", images.dtype, "Scale them as in training."
        )
    channels, height, width = images.shape[1:]
    return plainly(*part(module, (channels, height, width)), images)


def plainly(backbone: nn.Module, head: nn.Module, images: Tensor) -> Classifier:
    """A classifier in evaluation mode that changes no image before the backbone sees it, where the backbone lies."""
    channels = images.shape[1]
    like = next(chain(backbone.parameters(), backbone.buffers()), images)
    made = Classifier(backbone, head, torch.zeros(channels), torch.ones(channels))
    return made.to(like.device).float().eval()


def last_linear(graph: fx.GraphModule) -> str:
    """The name, in the network that `Parted` holds, of the Linear layer that gives the logits; "" where none does."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    node, modules = output.args[0], dict(graph.named_modules())
    while isinstance(node, fx.Node) and _keeps_order(node, modules):
        node = node.args[0]
    if (
        not isinstance(node, fx.Node)
        or node.op != "call_module"
        or not isinstance(modules[str(node.target)], nn.Linear)
    ):
        return ""
    calls = [other for other in graph.graph.nodes if other.op == "call_module" and other.target == node.target]
    return str(node.target).removeprefix(_PREFIX) if calls == [node] and len(node.users) == 1 else ""


def _keeps_order(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node is a softmax over classes, or nothing."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        softmax = isinstance(module, nn.Softmax | nn.LogSoftmax) and module.dim in (None, 1, -1)
        return softmax or isinstance(module, nn.Identity)
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return node.target in _SOFTMAX and dim in (None, 1, -1)
