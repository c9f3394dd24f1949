"""What a network needs to honour a tap: calling it, hooks on its activations, steps folded into the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract import Backbone, Site, Tap, Whole
from engram.backbone.errors import must

FEATURES = "features"
"""The name of the site of a network's features."""
_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Hardswish, nn.Hardtanh, nn.Tanh, nn.Sigmoid),
)
Show = Callable[[int, Tensor], Tensor]
"""Is given the number of a stage and its output, [N, C, H, W], and returns what goes on."""


def stage_site(index: int, step: int = 0) -> Site:
    """Where the output of a stage is seen."""
    return Site(index, step, f"stages.{index}")


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation: one of torch's, or a whole one of a plugin."""
    if type(module).__module__.startswith("torch."):  # asking for a protocol takes longer than a small layer
        return isinstance(module, _ACTIVATIONS)
    return isinstance(module, _ACTIVATIONS) or (isinstance(module, Whole) and module.leaf)


def passed(tap: Tap, site: Site, value: Tensor) -> Tensor:
    """What a tap puts in the place of a value.

    Raises:
        UserError: it has another shape.
    """
    found = tap(site, value)
    if found.shape != value.shape:
        rule = f"of the shape {list(value.shape)} of what it saw"
        raise must(f"what a tap returns at {site.name}", rule, list(found.shape), "Return one value for each.")
    return found


def within(prefix: str, tap: Tap) -> Tap:
    """A tap for a network inside another one, whose modules' names begin with ``prefix`` there."""

    def renamed(site: Site, value: Tensor) -> Tensor:
        module = site.stage is None and site.name != FEATURES and not site.name.startswith("%")
        return tap(site._replace(name=prefix + site.name) if module else site, value)

    return renamed


@contextmanager
def hooked(net: nn.Module, see: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Let ``see`` have what every activation gives, by its module's name, and put in its place what it returns.

    A module that is called again is ``NAME#2`` the second time. The hooks are gone afterwards, whatever happened.
    """
    calls, handles = Counter[str](), []

    def hook(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        calls[name] += 1
        return see(name if calls[name] == 1 else f"{name}#{calls[name]}", output)

    try:
        for name, module in net.named_modules():
            if is_activation(module):
                handles.append(module.register_forward_hook(partial(hook, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def at_step(net: nn.Module, tap: Tap | None, step: int) -> Iterator[Callable[[int | str | None, Tensor], Tensor]]:
    """What a network with steps of its own needs to honour a tap while it runs one of them.

    Inside, the activations are shown to the tap; what is yielded shows it a stage, by its number, the features, by
    None, or anything else by a name, [B, ...], and returns what goes on. Nothing happens, and nothing costs anything,
    where ``tap`` is None::

        for step in range(steps):
            with at_step(self, tap, step) as show:
                first = show(0, self.first(images, state))
                features.append(show(None, self.tail(first)))
    """
    if tap is None:
        yield lambda _place, value: value
        return

    def see(name: str, value: Tensor) -> Tensor:
        return _shown(tap, Site(None, step, name), value)

    def show(place: int | str | None, value: Tensor) -> Tensor:
        if isinstance(place, int):
            return _shown(tap, stage_site(place, step), value)
        return see(FEATURES if place is None else place, value)

    with hooked(net, see):
        yield show


def _shown(tap: Tap, site: Site, value: Tensor) -> Tensor:
    """What a tap puts in the place of the value [B, ...] of one step."""
    return passed(tap, site, value.unsqueeze(0)).squeeze(0)


def folded_steps(net: nn.Module, x: Tensor, tap: Tap, run: Callable[[Tensor, Show], Tensor]) -> Tensor:
    """``forward_steps`` with a tap of a network without steps of its own: each frame is one, all run as one batch.

    Args:
        net: the network; its activations that are modules are sites.
        x: [B, C, H, W] or [B, T, C, H, W].
        run: turns images [N, C, H, W] into features [N, feature_dim], and lets its second argument have the output of
            every stage.

    Returns: [steps, B, feature_dim].
    """
    frames = x.shape[:2] if x.ndim == 5 else None

    def steps_of(value: Tensor) -> Tensor:
        return value.unsqueeze(0) if frames is None else value.unflatten(0, frames).transpose(0, 1)

    def see(site: Site, value: Tensor) -> Tensor:
        shown = steps_of(value)
        found = passed(tap, site, shown)
        if found is shown:
            return value
        return found.squeeze(0) if frames is None else found.transpose(0, 1).flatten(0, 1)

    with hooked(net, lambda name, value: see(Site(None, 0, name), value)):
        features = run(x if frames is None else x.flatten(0, 1), lambda index, value: see(stage_site(index), value))
    return passed(tap, Site(None, 0, FEATURES), steps_of(features))


def stage_values(net: Backbone, x: Tensor) -> list[Tensor]:
    """``stage_steps`` of a network that honours taps. x: [B, C, H, W] or [B, T, C, H, W] -> [S, B, C_i, H_i, W_i]."""
    parts: dict[int, list[Tensor]] = {}

    def keep(site: Site, value: Tensor) -> Tensor:
        if site.stage is not None:
            parts.setdefault(site.stage, []).append(value.clone())
        return value

    net.forward_steps(x, keep)
    return [torch.cat(parts[index]) for index in sorted(parts)]
