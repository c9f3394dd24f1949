"""Networks made from code of the user's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.brought import Code
from engram.backbone.contract import Backbone
from engram.backbone.errors import must
from engram.backbone.nets.parted import Parted, part


class Brought(Parted):
    """A classifier of the user's own: a backbone whose fresh head begins as the one it was written with.

    It takes images as they are where its class says ``raw = True``.
    """

    def __init__(self, parted: Parted, head: nn.Linear, name: str) -> None:
        nn.Module.__init__(self)
        self.net, self.in_shape, self.feature_dim = parted.net, parted.in_shape, parted.feature_dim
        self.head, self.raw = name, getattr(parted.net, "raw", False) is True
        self.__dict__["own_head"] = head  # beside the modules: it is no part of the backbone

    @torch.no_grad()
    def initialise(self, module: nn.Module) -> None:
        """Give a head of the same shape the weights of the network's own."""
        own: nn.Linear = self.__dict__["own_head"]
        if isinstance(module, nn.Linear) and module.weight.shape == own.weight.shape:
            module.weight.copy_(own.weight)
            if module.bias is not None and own.bias is not None:
                module.bias.copy_(own.bias)


def factory(code: Code) -> Callable[[tuple[int, int, int], Any], nn.Module]:
    """What a registered backbone's target is: a function of the images' shape and the options."""

    def make(in_shape: tuple[int, int, int], options: Any) -> nn.Module:
        values = {"in_shape": in_shape, "in_channels": in_shape[0]}
        filled = {name: values[name] for name in code.filled}
        made = getattr(_module(code), code.cls)(**filled, **({} if options is None else asdict(options)))
        if isinstance(made, Backbone):
            return made  # type: ignore[return-value]
        if not isinstance(made, nn.Module):
            raise must(code.name, "a class of networks (torch.nn.Module)", type(made).__name__, "Name another class.")
        parted, head = part(made, in_shape)
        if not isinstance(head, nn.Linear):
            rule = "a classifier whose logits come from one nn.Linear, or a backbone with in_shape and feature_dim"
            raise must(code.name, rule, "neither", "End it with nn.Linear; its code must not branch on values.")
        _require_features(code, parted)
        return Brought(parted, head, parted.head)

    return make


@torch.no_grad()
def _require_features(code: Code, net: Parted) -> None:
    """See that images of this shape go through."""
    training = net.training
    blank: Tensor = torch.zeros(1, *net.in_shape)
    shape = "x".join(map(str, net.in_shape))
    try:
        found = tuple(net.eval()(blank).shape)
    except Exception as error:  # whatever a stranger's code does with an image
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        raise must(code.name, f"a network for images of {shape}", got, "Give its options, or other data.") from error
    finally:
        net.train(training)
    if found != (1, net.feature_dim):
        raise must(
            f"what goes into the head of {code.name}",
            f"[1, {net.feature_dim}]",
            [*found],
            "Flatten it, or give its options.",
        )


def _module(code: Code) -> ModuleType:
    """The module with the text that was hashed."""
    if not code.where.endswith(".py"):
        return importlib.import_module(code.where)
    name = f"engram_code_{code.sha256[:16]}"
    if name not in sys.modules:
        made = ModuleType(name)
        made.__file__ = str(code.path)
        sys.modules[name] = made  # dataclasses look their module up
        try:
            exec(compile(code.text, str(code.path), "exec"), made.__dict__)  # noqa: S102 - the user named it
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
