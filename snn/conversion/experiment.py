"""Experiment ``snn.convert``: pre-flight, conversion, and the price of every simulation length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engram.backbone.contract import Backbone, Result, Row, Services, Traceable, Wrapping
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import cautions, load_as_trained
from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import layout
from engram.backbone.nets.needs import need
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.seeding import generator
from engram.snn.conversion.coding import encode
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.convert import convert
from engram.snn.conversion.methods import RIGHT_ON_AVERAGE, biased
from engram.snn.conversion.preflight import ANALOG, inspect
from engram.snn.conversion.scoring import Scoring
from engram.snn.conversion.storage import as_converted
from engram.snn.measures.costs import CAPTION, InputLayer
from engram.snn.neurons.timed import TimedNeurons

CALIBRATION_BATCH = 100


class Chunk(NamedTuple):
    """Images as stored, [B, C, H, W] or recordings [B, T, C, H, W], their labels, [B] int64.

    ``held``: whether they are validation images.
    """

    images: Tensor
    labels: Tensor
    held: bool


@dataclass
class ConvertState:
    """Sums over the images seen so far, and what the result says beside them."""

    scoring: Scoring
    made: Made
    cautions: list[Row]
    test: Split
    validation: Split | None
    outputs: Tensor
    """[K] int64, the network's output for each class of these images."""
    stream: Iterator[Chunk] | None = field(default=None)


class _Images:
    """The calibration images in batches, read again for every pass; the frames of recordings one by one."""

    def __init__(self, split: Split, chosen: Tensor, device: str) -> None:
        self.split, self.chosen, self.device = split, chosen, device

    def __iter__(self) -> Iterator[Tensor]:
        at_once = max(CALIBRATION_BATCH // (self.split.frames or 1), 1)
        for images, _, _ in self.split.batches(self.chosen, at_once, self.device):
            yield images.flatten(0, 1) if images.ndim == 5 else images


class Convert:
    """Convert a trained classifier, then score it and its spiking twin on the test and the validation images."""

    def __init__(self, config: ConvertConfig, services: Services) -> None:
        self.config, self.services = config, services
        self.how = config.conversion()

    def start(self) -> ConvertState:
        analog, made = load_model(self.services.inputs["trained"] / "model")
        if any(isinstance(layer, TimedNeurons) for layer in analog.backbone.modules()):
            remedy = "Convert the trial it was made from, or train it on with snn.train or backbone.train."
            raise must("the network for snn.convert", "one without neurons so far", "a spiking one", remedy)
        recurrent = isinstance(analog.backbone, Wrapping)
        if isinstance(analog.backbone, Backbone) and analog.backbone.steps > 1 and not recurrent:
            need(analog.backbone, Traceable, "snn.convert")
        preflight = inspect(analog.backbone, analog.head, self.config.hybrid)
        self.services.table("Pre-flight: what becomes of every layer", preflight.rows)
        preflight.require()
        if self.config.coding in RIGHT_ON_AVERAGE and any(each.verdict == ANALOG for each in preflight.verdicts):
            raise biased(self.config.coding, f"--hybrid {self.config.hybrid}")
        data, outputs = load_as_trained(made, root=self.services.data_root, download=self.services.download)
        found = cautions(made, data)
        if found:
            self.services.table("caution", found)
        if data.frames is not None:
            if recurrent:
                rule, got = "pictures for a network with feedback", "recordings, each of whose frames begins anew"
                raise must("the data of a conversion", rule, got, "Train it with --adapter snn.spiking,feedback.gated.")
            self._begin_anew()
        self.services.provenance(data_sha256=data.fingerprint, model_sha256=made.sha256, **data.facts)
        analog.to(self.services.device)
        analog.backbone.to(memory_format=layout(analog.backbone))  # type: ignore[call-overload]
        spiking = self._convert(analog, data)
        layer: InputLayer = "once" if self.config.coding == "constant" else "every step"
        if data.frames is not None:
            layer = "once a frame"
        return ConvertState(
            scoring=Scoring(analog, spiking, data.frames or self.config.steps, layer),
            made=made,
            cautions=found,
            test=data.test,
            validation=data.validation,
            outputs=outputs.to(self.services.device),
        )

    def _begin_anew(self) -> None:
        """Recordings: their frames are pictures by themselves to a network without steps, and so to its spiking twin.

        Raises:
            UserError: an option makes sense for pictures alone.
        """
        c = self.config
        if c.coding != "constant":
            raise must("--coding", "constant for recordings, which are frames already", c.coding, "Leave it out.")
        if c.pre_simulation:
            got, step = c.pre_simulation, "Leave it out."
            raise must("--pre-simulation", "0 for recordings, whose neurons begin anew at every frame", got, step)
        self.how = replace(self.how, frames="anew")

    def _convert(self, analog: Classifier, data: Data) -> Classifier:
        train, each = data.train, data.frames or 1
        chosen = torch.randperm(len(train), generator=generator(self.config.seed, "calibration"))
        chosen = chosen[: -(-self.config.calibration_images // each)].sort().values
        shown = train.labels[chosen].unique()
        if len(shown) < 2:
            raise must(
                "the calibration images",
                "of at least two classes, or thresholds fit one of them",
                f"{len(chosen)} of {data.classes[int(shown[0])]!r} alone",
                "Raise --calibration-images.",
            )
        batches = _Images(train, chosen, self.services.device)
        return convert(analog, batches, len(chosen) * each, **asdict(self.how))

    def step(self, state: ConvertState) -> bool:
        scoring = state.scoring
        if state.stream is None:
            state.stream = self._chunks(state)
        chunk = next(state.stream, None)
        if chunk is None:
            return False
        labels, x = state.outputs[chunk.labels], scoring.spiking.normalise(chunk.images)
        add = scoring.add_held if chunk.held else scoring.add
        add(x, labels, self._coded(scoring, chunk, x))
        done, total = scoring.images + scoring.held.images, len(state.test) + len(state.validation or ())
        self.services.progress(done, total, f"simulating {scoring.simulated(scoring.steps)} steps")
        if chunk.held:
            self.services.log(done, {"snn/validation/accuracy": scoring.held_accuracy})
        return done < total

    def _chunks(self, state: ConvertState) -> Iterator[Chunk]:
        """What is left of the validation images, by which a search may give up, and then of the test images."""
        scoring = state.scoring
        for held, split in ((True, state.validation), (False, state.test)):
            if split is not None:
                rest = torch.arange(scoring.held.images if held else scoring.images, len(split))
                for images, labels, _ in split.batches(rest, scoring.chunk, self.services.device):
                    yield Chunk(images, labels, held)

    def _coded(self, scoring: Scoring, chunk: Chunk, x: Tensor) -> Tensor | None:
        """x: the chunk's images, normalised -> normalised frames [B, T, C, H, W]; None for x itself."""
        c = self.config
        if c.coding == "constant":
            return None
        pixels = chunk.images.float() / 255 if chunk.images.dtype == torch.uint8 else chunk.images
        purpose, before = ("validation coding", scoring.held.images) if chunk.held else ("coding", scoring.images)
        draws = generator(c.seed, purpose, before, x.device.type)
        return scoring.spiking.normalise(encode(c.coding, pixels, c.steps, draws))

    def finish(self, state: ConvertState) -> Result:
        scoring = state.scoring
        save_model(self.services.trial_dir / "model", scoring.spiking, as_converted(state.made, self.how))
        curve, priced = scoring.curve(), scoring.costs()
        last, answered = curve[-1], scoring.answers.tables(scoring.held)
        metrics = {
            "snn/test/accuracy": last["accuracy"],
            "ann/test/accuracy": last["ann_accuracy"],
            "test/accuracy_drop": last["drop_points"],
            "spikes_per_neuron_per_step": last["spikes_per_neuron_per_step"],
            "synaptic_operations": last["synaptic_operations"],
            "analog_macs": priced[-1]["macs"],
            "macs": priced[0]["macs"],
            "effective_macs": priced[1]["macs"],
            "silent_channels": sum(int(neurons.silent.sum()) for neurons in scoring.net.neurons().values()),
            **scoring.answers.metrics(scoring.held, "snn"),
        }
        if state.validation is not None:
            metrics["snn/validation/accuracy"] = last["validation_accuracy"]
            metrics["ann/validation/accuracy"] = last["validation_ann_accuracy"]
        self.services.table(CAPTION, priced)
        preflight = inspect(scoring.analog.backbone, scoring.analog.head, self.config.hybrid)
        lines = {"analog network": metrics["ann/test/accuracy"]}
        return Result(
            metrics={name: float(value) for name, value in metrics.items()},  # type: ignore[arg-type]
            tables={
                **answered,
                "accuracy_vs_steps": curve,
                "layers": scoring.layers(),
                "costs": priced,
                "preflight": preflight.rows,
                **({"cautions": state.cautions} if state.cautions else {}),
            },
            figures=scoring.answers.figures(network="spiking network", lines=lines),
            artifacts={"model": "model/model.safetensors", "manifest": "model/model.json"},
        )

    def state_dict(self, state: ConvertState) -> dict[str, Any]:
        return state.scoring.state_dict()

    def load_state_dict(self, state: ConvertState, saved: Mapping[str, Any]) -> None:
        state.scoring.load_state_dict(saved)
        state.stream = None
