"""What every network must keep to: a backbone, and what an adapter makes of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract import (
    ABILITIES,
    Backbone,
    Entry,
    Prepared,
    Remembering,
    Staged,
    StageSteps,
    Tap,
    Traceable,
)
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.nets.readout import read
from engram.backbone.nets.tapped import tapped_steps
from engram.backbone.testing.case import require
from engram.backbone.testing.samples import CLASSES, SHAPE, Things, images, seeded

FRAMES = 3


def check_network(things: Things) -> None:
    """All of it, on one network: a backbone and the adapters in front of it."""
    net = fresh(things)
    net.eval()
    keeps_contract(net)
    keeps_time(net)
    keeps_modes(net)
    honours_taps(net)
    is_what_it_says(net, things)
    is_saved(things)
    is_trained(fresh(things))


def fresh(things: Things) -> Any:
    """The network itself, the same one every time, shown images where it asks for them."""
    net: Any = seeded(lambda: _built(things)).backbone
    with torch.no_grad():
        if isinstance(net, Prepared):
            net.prepare(images())
    return net


def _built(things: Things, saved: Mapping[str, Tensor] | None = None) -> nn.Module:
    mean, std = torch.zeros(SHAPE[0]), torch.ones(SHAPE[0])
    name, options = things.backbone.name, things.backbone.options
    return build(name, options, SHAPE, CLASSES, mean, std, things.head, things.adapters, saved)


@torch.no_grad()
def keeps_contract(net: Any) -> None:
    """Its attributes, and the shapes of what its methods give."""
    require(isinstance(net, Backbone), "a network must have all that engram.backbone.contract.Backbone says")
    require(tuple(net.in_shape) == SHAPE, f"in_shape must be {SHAPE}, that of the images it was made for")
    x = images()
    steps, features = net.forward_steps(x), net.forward(x)
    require(list(steps.shape) == [net.steps, len(x), net.feature_dim], "forward_steps gives [steps, B, feature_dim]")
    require(
        torch.allclose(features, read(net, steps), atol=1e-5),
        f"forward is the read-out of forward_steps: {net.readout}",
    )
    channels = tuple(stage.shape[1] for stage in net.stages(x))
    require(channels == tuple(net.stage_channels), f"stages have stage_channels channels; got {channels}")
    require(all(len(stage) == len(x) and stage.ndim == 4 for stage in net.stages(x)), "a stage is [B, C, H, W]")
    require(torch.equal(net(x), features), "forward gives the same again, bit for bit, in evaluation mode")
    require(torch.allclose(net(x[:1]), features[:1], atol=1e-4), "images of a batch do not look at each other")


@torch.no_grad()
def keeps_time(net: Any) -> None:
    """A still image is ``steps`` equal frames, and a recording takes a step for each of its frames."""
    x = images()
    shown = torch.stack([x] * net.steps, 1)
    require(
        torch.allclose(net.forward_steps(shown), net.forward_steps(x), atol=1e-5), "a still is as many equal frames"
    )
    frames = torch.stack([x.roll(step, -1) for step in range(FRAMES)], 1)
    found = net.forward_steps(frames)
    require(list(found.shape) == [FRAMES, len(x), net.feature_dim], "forward_steps of T frames gives T steps")
    begun = net.forward_steps(frames[:, :-1])
    require(torch.allclose(begun, found[:-1], atol=1e-5), "a step knows nothing of the frames that come after it")


def keeps_modes(net: Any) -> None:
    """train() and eval() reach all of it, and running it changes nothing."""
    net.train()
    require(all(module.training for module in net.modules()), "train() reaches every module")
    net.eval()
    require(not any(module.training for module in net.modules()), "eval() reaches every module")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        net(images())
    require(same_tensors(before, net.state_dict()), "a pass in evaluation mode changes no tensor of the state")


@torch.no_grad()
def honours_taps(net: Any) -> None:
    """A tap sees every stage and the features, changes what comes after, and is gone afterwards."""
    x = images()
    plain, seen = net.forward_steps(x), dict[tuple[str, int | None], int]()

    def see(site: Any, value: Tensor) -> Tensor:
        seen[site.name, site.stage] = seen.get((site.name, site.stage), 0) + len(value)
        require(value.shape[1] == len(x), f"a tap sees [S, B, ...]; at {site.name} it sees {list(value.shape)}")
        return value

    require(torch.allclose(tapped_steps(net, x, see), plain, atol=1e-6), "a tap that changes nothing changes nothing")
    require(("features", None) in seen, "a tap sees the features")
    for index in range(len(net.stage_channels)):
        name = f"stages.{index}"
        require((name, index) in seen, f"a tap sees the output of stage {index} at {name}")
    require(all(count == len(plain) for (_, stage), count in seen.items() if stage is not None), "at every step")
    silent = tapped_steps(net, x, _silencing("features"))
    require(not silent.any(), "what a tap returns for the features is what forward_steps gives")
    for index in range(len(net.stage_channels)):
        blank = tapped_steps(net, x, _silencing(f"stages.{index}"))
        require(
            torch.allclose(blank[:, :1].expand_as(blank), blank, atol=1e-5),
            f"what a tap returns for stage {index} flows on",
        )
    try:
        tapped_steps(net, x, _failing)
    except ZeroDivisionError:
        require(torch.equal(net.forward_steps(x), plain), "a tap that raised is gone afterwards")
    else:
        raise AssertionError("what a tap raises comes through")


def _silencing(name: str) -> Tap:
    return lambda site, value: torch.zeros_like(value) if site.name == name else value


def _failing(_site: Any, _value: Tensor) -> Tensor:
    raise ZeroDivisionError


@torch.no_grad()
def is_what_it_says(net: Any, things: Things) -> None:
    """It is what its entry offers, and computes what the protocols say."""
    offers = things.made_by.offers
    for name, protocol in ABILITIES.items():
        if offers is not None and isinstance(net, protocol) != (name in offers):
            claim = "says that it is not" if name not in offers else "says that it is, and is not"
            raise AssertionError(f"the entry {claim} {name}: offers must name all that it makes, and nothing else")
    x = images()
    if _is(net, Traceable) and net.steps == 1:
        require(torch.allclose(net.features(x), net(x), atol=1e-5), "features are forward of a still image")
    if _is(net, Remembering):
        memory: dict[str, Any] = {}
        each = torch.stack([_by_stages(net, x, memory) for _ in range(net.steps)])
        require(torch.allclose(each, net.forward_steps(x), atol=1e-5), "stages and the tail, step by step, are it")
    elif _is(net, Staged):
        require(torch.allclose(_by_stages(net, x), net(x), atol=1e-5), "all stages and the tail are the network")
    if _is(net, StageSteps):
        for each, mean in zip(net.stage_steps(x), net.stages(x), strict=True):
            require(torch.allclose(each.mean(0), mean, atol=1e-5), "stages are the mean of stage_steps")


def _by_stages(net: Any, x: Tensor, *memory: dict[str, Any]) -> Tensor:
    """The features of one step."""
    for index in range(len(net.stage_channels)):
        x = net.apply_stage(index, x, *memory)
    return net.apply_tail(x, *memory)


@torch.no_grad()
def is_saved(things: Things) -> None:
    """Made again from its saved tensors, it computes the same to the last bit."""
    whole = seeded(lambda: _built(things))
    whole.backbone = fresh(things)
    whole.eval()
    saved = {name: value.clone() for name, value in whole.state_dict().items()}
    again = seeded(lambda: _built(things, saved), 1)
    again.load_state_dict(saved)
    require(torch.equal(again.eval()(images()), whole(images())), "saved and made again it gives the same bits")


def is_trained(net: Any) -> None:
    """Gradients reach what can be trained."""
    net.train()
    net(images()).square().sum().backward()
    reached = [parameter for parameter in net.parameters() if parameter.grad is not None]
    require(any(parameter.grad.any() for parameter in reached), "gradients of the features reach weights")
    require(all(bool(parameter.grad.isfinite().all()) for parameter in reached), "gradients are finite")


def leaves_what_it_is_given(things: Things, make: Callable[[nn.Module], nn.Module]) -> None:
    """An adapter changes nothing of the network it is put on."""
    net = fresh(things)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    made = make(net)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    require(same_tensors(before, net.state_dict()), "an adapter leaves the weights of what it is given as they are")
    require(modes == [module.training for module in net.modules()], "and its modes")


def _is(net: Any, protocol: type) -> bool:
    """Whether a network is something that networks may be besides; a type checker would take it for nothing else."""
    return isinstance(net, protocol)


class Bare(nn.Module):
    """A network that is a `Backbone`, and nothing else that adapters may ask for."""

    in_shape, feature_dim, stage_channels, steps, readout = SHAPE, 4, (SHAPE[0],), 1, "mean"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SHAPE[0] * SHAPE[1] * SHAPE[2], 4)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [x if x.ndim == 4 else x.mean(1)]

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        if float(x.detach().sum()) == torch.inf:  # no graph can be made of it
            raise ValueError("images must be finite")
        frames = x.unsqueeze(1) if x.ndim == 4 else x
        return self.layer(frames.flatten(2)).relu().transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_steps(x).mean(0)


def refuses_what_it_cannot_take(entry: Entry, make: Callable[[nn.Module], nn.Module]) -> None:
    """An adapter refuses a network without what it needs, by that name."""
    bare = Bare()
    lacking = [name for name in entry.needs if not isinstance(bare, ABILITIES[name])]
    if not lacking:
        return
    try:
        make(bare)
    except UserError as error:
        named = any(name in str(error) for name in lacking)
        require(named, f"the refusal of a network that is not {' and '.join(lacking)} must say so; got: {error}")
    else:
        raise AssertionError(f"an adapter that needs {' and '.join(lacking)} must refuse a network without")


def same_tensors(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two states are equal, to the last bit."""
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)
