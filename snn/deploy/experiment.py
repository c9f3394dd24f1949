"""Experiment ``snn.deploy``: a trained network in chip integers, mapped, simulated and written, beside its floats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Result, Row, Services
from engram.backbone.data.load import Data
from engram.backbone.data.trained import cautions, load_as_trained
from engram.backbone.data.views import seen
from engram.backbone.errors import must
from engram.backbone.hardware import Machine, choose_precision
from engram.backbone.measures.scoring import score
from engram.backbone.nets.classifier import Classifier
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import generator
from engram.backbone.training.loop import Trainer
from engram.snn.deploy import figures
from engram.snn.deploy.beside import Beside
from engram.snn.deploy.configs import DeployConfig
from engram.snn.deploy.files import Written, answers, write
from engram.snn.loihi.lava.driver import KEPT, agreement
from engram.snn.loihi.mapper import Mapped, map_network
from engram.snn.loihi.network import INPUT, ChipNetwork
from engram.snn.loihi.quantiser import Quantised, quantise
from engram.snn.loihi.sensitivity import Sensitivity
from engram.snn.loihi.stored import save
from engram.snn.loihi.tuning import tuned, tuning
from engram.snn.lowering.lower import lower
from engram.snn.lowering.network import Lowered

CHUNK = 256
"""Images at once."""
FILE_IMAGES = 100
"""That a file answers when it is read again."""
SENSITIVITY_IMAGES = 1000
"""That say what fewer bits cost."""
Bits = Mapping[str, int]
CHIP = "chip.npz"
"""The network of integers, as a file of the trial."""


class Chunk(NamedTuple):
    """Images as stored, their labels as outputs [B] int64, and whether they are validation images."""

    images: Tensor
    labels: Tensor
    held: bool


@dataclass
class OnChip:
    """The network of integers and what is known of it."""

    network: ChipNetwork
    written: Written
    beside: Beside
    stream: Iterator[Chunk] | None = None
    agreement: list[Row] | None = None
    alike: float | None = None
    """Share of some test images that the file, read again, answers as the network that it was written from."""


@dataclass
class DeployState:
    """The network of floats, what it is tuned and scored on, and the chip's once it is there."""

    model: Classifier
    made: Made
    data: Data
    outputs: Tensor
    """[K] int64, the network's output for each class of these images."""
    lowered: Lowered
    quantised: Quantised
    trainer: Trainer | None
    """Trains on with the chip's numbers, where that was asked for."""
    bits: list[Row]
    """What fewer bits cost, and what every layer got."""
    cautions: list[Row]
    chip: OnChip | None = None


class Deploy:
    """Tuning first, if any; then the integers are taken, and both networks see the test and validation images."""

    def __init__(self, config: DeployConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> DeployState:
        c, s = self.config, self.services
        model, made = load_model(s.inputs["trained"] / "model")
        data, outputs = load_as_trained(made, root=s.data_root, download=s.download)
        if found := cautions(made, data):
            s.table("caution", found)
        s.provenance(data_sha256=data.fingerprint, model_sha256=made.sha256, **data.facts)
        lowered = lower(model, frames=data.frames is not None)
        model.to(s.device)
        calibration = self._calibration(data)
        bits, rows = self._bits(lowered, data, outputs, calibration)
        quantised = quantise(lowered, c.quantising(), calibration, bits)
        s.table("From floats to integers", list(quantised.rows))
        map_network(quantised.network, chips=c.chips).check()
        write(c, quantised.network, lowered, s.trial_dir)  # refused now, or never
        trainer = None
        if c.epochs:
            machine = Machine(s.device, choose_precision("fp32", s.device))
            trainer = tuning(quantised, seen(data.train, outputs), c, machine)
        return DeployState(model, made, data, outputs, lowered, quantised, trainer, rows, found)

    def _calibration(self, data: Data) -> Tensor:
        """Some training images, as stored."""
        chosen = torch.randperm(len(data.train), generator=generator(self.config.seed, "calibration"))
        chosen = chosen[: self.config.calibration_images].sort().values
        return next(iter(data.train.batches(chosen, len(chosen), "cpu")))[0]

    def step(self, state: DeployState) -> bool:
        trainer = state.trainer
        if trainer is not None and not trainer.done:
            trainer.advance()
            self.services.progress(trainer.step, trainer.total_steps, "training with the chip's numbers")
            return True
        if state.chip is None:
            state.chip = self._take_integers(state)
            return True
        chip = state.chip
        if chip.stream is None:
            chip.stream = self._chunks(state, chip.beside)
        chunk = next(chip.stream, None)
        if chunk is None:
            return self._afterwards(state, chip)
        chip.beside.add(chunk.images, state.outputs.to(chunk.labels.device)[chunk.labels], chunk.held)
        done = chip.beside.images + chip.beside.held_chip.images
        self.services.progress(done, len(state.data.test) + len(state.data.validation or ()), "simulating the chip")
        return True

    def _bits(self, lowered: Lowered, data: Data, outputs: Tensor, calibration: Tensor) -> tuple[Bits, list[Row]]:
        """Bits of the layers that have fewer than the others, and the table of what fewer bits cost."""
        c, device = self.config, self.services.device
        if not c.sensitivity and c.mean_bits is None:
            return {}, []
        split = data.validation or data.train
        chosen = torch.arange(min(SENSITIVITY_IMAGES, len(split)))
        images, labels, _ = next(iter(split.batches(chosen, len(chosen), "cpu")))
        found = Sensitivity(lowered, c.quantising(), calibration, images.float() / 255, outputs[labels], device)
        rows = found.table()
        if c.mean_bits is None:
            return {}, rows
        return found.allocate(mean_bits=c.mean_bits).bits, rows

    def _take_integers(self, state: DeployState) -> OnChip:
        """The chip's network as it is from now on, on disk as well."""
        c, s = self.config, self.services
        network = state.quantised.network if state.trainer is None else tuned(state.trainer)
        save(network, s.trial_dir / CHIP)
        written = write(c, network, state.lowered, s.trial_dir)
        taken = state.data.frames or network.steps
        return OnChip(network, written, Beside(state.model, state.lowered, network, taken, s.device))

    def _chunks(self, state: DeployState, beside: Beside) -> Iterator[Chunk]:
        """What is left of the test images, and then of the validation images."""
        size = max(1, CHUNK // (state.data.frames or 1))
        for held, split in ((False, state.data.test), (True, state.data.validation)):
            if split is not None:
                rest = torch.arange(beside.held_chip.images if held else beside.images, len(split))
                for images, labels, _ in split.batches(rest, size, self.services.device):
                    yield Chunk(images, labels, held)

    def _afterwards(self, state: DeployState, chip: OnChip) -> bool:
        """What else was asked for, one after the other."""
        c = self.config
        if chip.written.files and chip.alike is None:
            self.services.progress(1, 1, "reading the file again")
            chip.alike = self._alike(state, chip)
            return True
        if c.images and chip.agreement is None:
            self.services.progress(1, 1, f"{c.images} images through Lava")
            images, _, _ = next(iter(state.data.test.batches(torch.arange(c.images), c.images, "cpu")))
            found = agreement(chip.network, images)
            chip.agreement = [{"layer": name, **shares} for name, shares in found.shares.items()]
            if found.first is not None:
                self.services.table("Lava and our simulator differ", [{"first": found.first}])
            return True
        return False

    def _alike(self, state: DeployState, chip: OnChip) -> float:
        """How many of some test images the file answers as its network does."""
        chosen = torch.arange(min(FILE_IMAGES, len(state.data.test)))
        images, _, _ = next(iter(state.data.test.batches(chosen, len(chosen), "cpu")))
        found = answers(self.config.target, self.services.trial_dir, images)
        if self.config.target == "nir":
            model = state.model
            with torch.inference_mode():
                wanted = model(images.to(self.services.device)).argmax(1).cpu()
        else:
            wanted = chip.beside.simulator.run(images).logits[-1].argmax(1).cpu()
        return float((found == wanted).double().mean())

    def finish(self, state: DeployState) -> Result:
        c, chip = self.config, state.chip
        assert chip is not None  # the last step was after it
        beside, network = chip.beside, chip.network
        activity = {name: sent / beside.images for name, sent in beside.sent.items()}
        mapping = map_network(network, activity, c.chips)
        metrics = {**self._accuracies(state, beside), **_counts(beside, mapping)}
        if chip.agreement is not None:
            metrics["lava/agreement"] = min(float(row[what] or 0) for row in chip.agreement for what in KEPT)
        if chip.alike is not None:
            metrics["file/agreement"] = chip.alike
        tables: dict[str, list[Row]] = {
            "accuracy_vs_steps": beside.curve(),
            "quantisation": [*state.quantised.rows],
            "sensitivity": state.bits,
            "mapping": told(mapping),
            "layers": beside.layers(),
            "notes": [{"note": note} for note in (*network.notes, *mapping.notes, *chip.written.notes)],
            "lava": chip.agreement or [],
            "cautions": state.cautions,
        }
        return Result(
            metrics=metrics,
            tables={name: rows for name, rows in tables.items() if rows},
            figures=self._figures(beside, mapping, metrics),
            artifacts={"chip": CHIP, **chip.written.files},
        )

    def _accuracies(self, state: DeployState, beside: Beside) -> dict[str, float]:
        found = {
            "loihi2/test/accuracy": beside.accuracy(beside.chip),
            "float/test/accuracy": beside.accuracy(beside.floats),
        }
        found["test/accuracy_drop"] = 100 * (found["float/test/accuracy"] - found["loihi2/test/accuracy"])
        if state.data.validation is not None:
            found["loihi2/validation/accuracy"] = beside.accuracy(beside.held_chip)
            found["float/validation/accuracy"] = beside.accuracy(beside.held_floats)
        ann = self._ann(state, found["float/test/accuracy"])
        return found if ann is None else {**found, "ann/test/accuracy": ann}

    def _ann(self, state: DeployState, floats: float) -> float | None:
        """Test accuracy of the network with ReLUs: the trial's own, the one it was converted from, or one named."""
        s = self.services
        if "ann" in s.inputs:
            model, made = load_model(s.inputs["ann"] / "model")
            data, outputs = load_as_trained(made, root=s.data_root, download=s.download)
            if data.fingerprint != state.data.fingerprint:
                raise must("--ann", "trained on the same data", "a network of others", "Name another, or leave it out.")
            return score(model.to(s.device), data.test, s.device, targets=outputs)["accuracy"]
        if all(each.cells.kind != "spiking" for each in state.lowered.populations):
            return floats
        measured = s.inputs["trained"] / "result.json"
        return json.loads(measured.read_bytes())["metrics"].get("ann/test/accuracy") if measured.exists() else None

    def _figures(self, beside: Beside, mapping: Mapped, metrics: Mapping[str, float]) -> dict[str, AnyFigure]:
        lines = {"network with ReLUs": metrics["ann/test/accuracy"]} if "ann/test/accuracy" in metrics else {}
        if len(beside.float_points) == 1:
            lines["floats"] = metrics["float/test/accuracy"]
        return {
            "accuracy_vs_steps": beside.figure(lines),
            "cores": figures.cores(mapping),
            "cores_by_layer": figures.by_layer(mapping),
            "spikes": beside.raster(),
        }

    def state_dict(self, state: DeployState) -> dict[str, Any]:
        chip = state.chip
        return {
            "trainer": None if state.trainer is None else state.trainer.state_dict(),
            "chip": None
            if chip is None
            else {"beside": chip.beside.state_dict(), "agreement": chip.agreement, "alike": chip.alike},
        }

    def load_state_dict(self, state: DeployState, saved: Mapping[str, Any]) -> None:
        if state.trainer is not None:
            state.trainer.load_state_dict(saved["trainer"])
        if saved["chip"] is not None:  # its integers are the same again
            state.chip = self._take_integers(state)
            state.chip.beside.load_state_dict(saved["chip"]["beside"])
            state.chip.agreement, state.chip.alike = saved["chip"]["agreement"], saved["chip"]["alike"]


def told(mapping: Mapped) -> list[Row]:
    """A row for each layer, as tables have it."""
    found: list[Row] = []
    for row in mapping.rows:
        shapes = {name: "x".join(map(str, getattr(row, name))) for name in ("shape", "tile")}
        found.append({**asdict(row), **shapes})
    return found


def _counts(beside: Beside, mapping: Mapped) -> dict[str, float]:
    """What it takes; time and energy are the mapper's estimates."""
    spikes = sum(sent for name, sent in beside.sent.items() if name != INPUT)
    return {
        "spikes_per_image": spikes / beside.images,
        "synaptic_operations": sum(beside.operations.values()) / beside.images,
        "cores": float(len(mapping.cores)),
        "chips": float(mapping.chips),
        "seconds_per_image": mapping.image_seconds,
        "energy": 1e6 * (mapping.joules or 0.0),
        "images_per_second": beside.images / beside.seconds,
    }
