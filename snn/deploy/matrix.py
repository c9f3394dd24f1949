"""Which layer and which neuron goes where: a small network for each, tried on every target.

``python -m engram.snn.deploy.matrix`` prints the table of docs/loihi.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.parted import part
from engram.snn.conversion.convert import convert
from engram.snn.deploy.configs import DeployConfig
from engram.snn.deploy.files import write
from engram.snn.loihi.mapper import map_network
from engram.snn.loihi.network import LIF, ChipNetwork
from engram.snn.loihi.quantiser import Quantised, quantise
from engram.snn.lowering.lower import lower
from engram.snn.lowering.network import Lowered
from engram.snn.readout.adapter import readout
from engram.snn.readout.options import Code, ReadoutOptions
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions

TARGETS = ("loihi2-sim", "lava", "chip", "nir", "netx")
SHAPE = (2, 8, 8)
CLASSES = 3
YES, NEARLY, NO = "yes", "nearly", "no"


class Verdict(NamedTuple):
    """``yes``; ``nearly``, with what is put in its place or lost; or ``no``, with the reason."""

    word: str
    why: str = ""


class Subject(NamedTuple):
    """What is tried: in which group of the table, its name, and a network of it."""

    group: str
    name: str
    make: Callable[[], Classifier]


class _Residual(nn.Module):
    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.first, self.second, self.join = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), join
        self.relu, self.head = nn.ReLU(), nn.Linear(channels * 64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        return self.head(self.relu(self.join(x, self.second(x))).flatten(1))


def _behind(*layers: nn.Module, activation: nn.Module | None = None) -> nn.Sequential:
    """A convolution and its activation, what is tried, another activation where the shape allows one, and a head."""
    front = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), activation or nn.ReLU(), *layers, nn.Flatten())
    with torch.no_grad():
        width = front(torch.zeros(1, *SHAPE)).shape[1]
    return nn.Sequential(*front, nn.Linear(width, CLASSES))


_LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "Conv2d": lambda: _behind(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
    "Conv2d, stride 2": lambda: _behind(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU()),
    "Conv2d, groups": lambda: _behind(nn.Conv2d(4, 4, 3, groups=2), nn.ReLU()),
    "Conv2d, dilation 2": lambda: _behind(nn.Conv2d(4, 4, 3, dilation=2), nn.ReLU()),
    "Linear": lambda: _behind(nn.Flatten(), nn.Linear(256, 5), nn.ReLU()),
    "BatchNorm2d": lambda: _behind(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
    "AvgPool2d": lambda: _behind(nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()),
    "AdaptiveAvgPool2d(1)": lambda: _behind(nn.AdaptiveAvgPool2d(1)),
    "MaxPool2d": lambda: _behind(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()),
    "Dropout": lambda: _behind(nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.ReLU()),
    "residual sum": lambda: _Residual(torch.add, 4),
    "concatenation": lambda: _Residual(lambda a, b: torch.cat([a, b], 1), 8),
    "product of two values": lambda: _Residual(torch.mul, 4),
    "GroupNorm": lambda: _behind(nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()),
    "LayerNorm": lambda: _behind(nn.Conv2d(4, 4, 3), nn.LayerNorm([4, 6, 6]), nn.ReLU()),
    "ConvTranspose2d": lambda: _behind(nn.ConvTranspose2d(4, 2, 2), nn.ReLU()),
}
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
}
_NEURONS: Mapping[str, Mapping[str, Any]] = {
    "if, hard reset": {"neuron": "if", "reset": "hard"},
    "if, soft reset": {"neuron": "if", "reset": "soft"},
    "if, soft reset, start 0.5": {"neuron": "if", "reset": "soft", "start": 0.5},
    "lif, hard reset": {"neuron": "lif", "reset": "hard"},
    "lif, soft reset": {"neuron": "lif", "reset": "soft"},
    "plif, hard reset": {"neuron": "plif", "reset": "hard"},
    "cuba-lif, hard reset": {"neuron": "cuba-lif", "reset": "hard"},
    "adaptive-lif, hard reset": {"neuron": "adaptive-lif", "reset": "hard"},
    "lif, refractory": {"neuron": "lif", "reset": "hard", "refractory": 2},
    "lif, learned scale": {"neuron": "lif", "reset": "hard", "learn_scale": True},
}
_CODES: tuple[Code, ...] = ("latency", "membrane")


def subjects() -> Iterator[Subject]:
    """Everything that is tried, in the order of the table. Layers stand in a network of LIF neurons with hard reset."""
    for name, layers in _LAYERS.items():
        yield Subject("layer", name, lambda layers=layers: _spiking(layers(), {"neuron": "lif", "reset": "hard"}))
    for name, options in _NEURONS.items():
        yield Subject("neurons of snn.train", name, lambda options=options: _spiking(_LAYERS["Conv2d"](), options))
    yield Subject("neurons of snn.convert", "if, soft reset", lambda: _converted(_LAYERS["Conv2d"]()))
    for code in _CODES:
        yield Subject("features of snn.readout", code, partial(_read, code))
    for name, activation in _ACTIVATIONS.items():
        net = _behind(activation=activation())
        yield Subject("activation, as sigma-delta", name, lambda net=net: _classifier(net))


def images(count: int = 16) -> Tensor:
    """[count, C, H, W] uint8, the same ones every time."""
    return torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def verdicts(subject: Subject) -> dict[str, Verdict]:
    """What becomes of a subject on every target: `TARGETS`.

    ``chip`` is what stock Loihi 2 neurons can do and the mapper finds room for.
    """
    torch.manual_seed(0)
    found: dict[str, Verdict] = {}
    try:
        lowered = lower(subject.make().eval())
    except UserError as error:
        return dict.fromkeys(TARGETS, Verdict(NO, str(error)))
    shown = None if all(each.cells.kind != "relu" for each in lowered.populations) else images()
    quantised = _tried(found, "loihi2-sim", lambda: quantise(lowered, DeployConfig().quantising(), shown))
    if isinstance(quantised, Quantised):
        notes = "; ".join(quantised.network.notes)
        found["loihi2-sim"] = Verdict(NEARLY if notes else YES, notes)
        found["lava"] = _in_lava(quantised.network)
        found["chip"] = _on_chip(quantised.network)
    for target in ("nir", "netx"):
        found[target] = _written(target, quantised, lowered, shown)
    return found


def _in_lava(network: ChipNetwork) -> Verdict:
    """Lava runs what the simulator runs; where it has no such neuron, by a model of ours in its place."""
    cells = [each.neurons for each in network.populations if isinstance(each.neurons, LIF)]
    if any(each.reset == "soft" or each.refractory for each in cells):
        return Verdict(NEARLY, "a neuron model of ours in place of Lava's")
    return Verdict(YES)


def _on_chip(network: ChipNetwork) -> Verdict:
    cells = [each.neurons for each in network.populations if isinstance(each.neurons, LIF)]
    if any(each.reset == "soft" for each in cells):
        return Verdict(NO, "Lava has no neuron with a soft reset for the chip")
    if any(each.refractory for each in cells):
        return Verdict(NO, "Lava has neurons that rest after a spike for floats alone")
    try:
        map_network(network).check()
    except UserError as error:
        return Verdict(NO, str(error))
    return Verdict(YES)


def _tried(found: dict[str, Verdict], target: str, work: Callable[[], Any]) -> Any:
    """What ``work`` returns; None, and a verdict, where it refuses."""
    try:
        return work()
    except UserError as error:
        found[target] = Verdict(NO, str(error))
        return None


def _written(target: Any, quantised: Quantised | None, lowered: Lowered, shown: Tensor | None) -> Verdict:
    """Whether a file says it exactly, nearly, or not."""
    reason = ""
    for nearly in (False, True):
        config = DeployConfig(target=target, allow_approximate=nearly)
        with TemporaryDirectory() as folder:
            try:
                if quantised is None and target == "netx":
                    return Verdict(NO, "it holds integers of the chip")
                network = None if quantised is None else quantise(lowered, config.quantising(), shown).network
                done = write(config, network, lowered, Path(folder))  # type: ignore[arg-type]
            except UserError as error:
                reason = reason or str(error)
                continue
        return Verdict(NEARLY, "; ".join(done.notes)) if nearly else Verdict(YES)
    return Verdict(NO, reason)


def _classifier(net: nn.Module) -> Classifier:
    parted, head = part(net.eval(), SHAPE)
    return Classifier(parted, head, torch.zeros(SHAPE[0]), torch.ones(SHAPE[0])).eval()


def _spiking(net: nn.Module, options: Mapping[str, Any]) -> Classifier:
    made = _classifier(net)
    made.backbone = spiking(made.backbone, SpikingOptions(**{"steps": 4, **options}).filled())
    return made.eval()


def _read(code: Code) -> Classifier:
    model = _spiking(_LAYERS["Conv2d"](), _NEURONS["lif, hard reset"])
    model.backbone = readout(model.backbone, ReadoutOptions(code=code))
    return model


def _converted(net: nn.Module) -> Classifier:
    made = _classifier(net)
    shown = images()
    return convert(made, [shown], len(shown), steps=8)


@cache
def rows() -> tuple[dict[str, str], ...]:
    """The whole table: ``group``, ``name``, and a verdict for each target, its reason behind a colon."""
    found = []
    for subject in subjects():
        told = {
            target: f"{verdict.word}: {verdict.why}" if verdict.why else verdict.word
            for target, verdict in verdicts(subject).items()
        }
        found.append({"group": subject.group, "name": subject.name, **told})
    return tuple(found)


def markdown() -> str:
    """The table as docs/loihi.md has it: verdicts in the cells, and below them the reasons, each once."""
    table, reasons = rows(), dict[str, int]()
    lines = ["| | " + " | ".join(TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    group = ""
    for row in table:
        if row["group"] != group:
            group = row["group"]
            lines.append(f"| **{group}** |" + " |" * len(TARGETS))
        cells = [_cell(row[target], reasons) for target in TARGETS]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", *notes]) + "\n"


def _cell(told: str, reasons: dict[str, int]) -> str:
    word, _, why = told.partition(": ")
    numbers = [str(reasons.setdefault(reason, len(reasons) + 1)) for reason in _short(why)]
    return f"{word} ({', '.join(numbers)})" if numbers else word


def _short(why: str) -> list[str]:
    """The reasons in a verdict, without the names of this network's layers, each once."""
    if found := re.search(r"got \w+ at \S+ \((.+?)\)(; |\. )", why):
        return [found[1]]
    why = re.sub(r"^.*got one with | Deploy to another target\.$", "", why)
    parts = (re.sub(r"\bof net\S*|\bnet[._]\S+|^head, ", "", part).strip(" :,.") for part in why.split("; "))
    return list(dict.fromkeys(" ".join(part.split()) for part in parts if part))


if __name__ == "__main__":
    print(markdown(), end="")
