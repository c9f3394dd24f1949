"""Experiment ``snn.convert``: pre-flight, conversion, and the price of every simulation length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from backbone.anytime import StepScores, logits_at
from backbone.checkpoint import load_model
from backbone.contract import Figure, Result, Row, Services
from backbone.data.load import load
from backbone.data.sets import Split
from backbone.errors import must
from backbone.nets.classifier import Classifier
from backbone.seeding import generator
from snn.configs import ConvertConfig, curve_steps
from snn.conversion import convert, full_float32
from snn.counting import Synapses, Tally, synapses
from snn.methods import Conversion
from snn.preflight import inspect
from snn.spiking import SpikingBackbone
from snn.storage import save_converted

LARGEST_CHUNK = 512
CALIBRATION_BATCH = 100


@dataclass
class State:
    """Counts over the test images seen so far; the networks beside them never change."""

    analog: Classifier
    spiking: Classifier
    about: Mapping[str, Any]
    test: Split
    structure: Synapses
    analog_scores: StepScores
    scores: StepScores
    tally: Tally
    stream: Iterator[tuple[Tensor, Tensor]] | None = field(default=None)

    @property
    def net(self) -> SpikingBackbone:
        net = self.spiking.backbone
        assert isinstance(net, SpikingBackbone)  # built in start
        return net


class _Images:
    """The calibration images in batches, read again for every pass."""

    def __init__(self, split: Split, chosen: Tensor, device: str) -> None:
        self.split, self.chosen, self.device = split, chosen, device

    def __iter__(self) -> Iterator[Tensor]:
        return (images for images, _ in self.split.batches(self.chosen, CALIBRATION_BATCH, self.device))


class Convert:
    """Convert a trained classifier, then score it and its spiking twin on the test images, chunk by chunk."""

    def __init__(self, config: ConvertConfig, services: Services) -> None:
        self.config, self.services = config, services
        self.points = curve_steps(config.steps)
        self.how = Conversion(steps=config.steps, percentile=config.percentile, per=config.per)

    def start(self) -> State:
        analog, about = load_model(self.services.inputs["trained"] / "model")
        preflight = inspect(analog.backbone, analog.head)
        self.services.table("Pre-flight: what becomes of every layer", preflight.rows)
        preflight.require()
        data = load(
            about["dataset"],
            about["dataset_options"],
            root=self.services.data_root,
            download=self.services.download,
            validation=about["validation"],
        )
        if data.fingerprint != about["data_sha256"]:
            raise must(
                f"dataset {about['dataset']}",
                "the one the network was trained on",
                f"other bytes (sha256 {data.fingerprint[:12]}..., not {about['data_sha256'][:12]}...)",
                "Restore the data, or train again.",
            )
        self.services.provenance(data_sha256=data.fingerprint, model_sha256=about["sha256"])
        analog.to(self.services.device)
        analog.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with full_float32():
            spiking = self._convert(analog, data.train)
        net: SpikingBackbone = spiking.backbone  # type: ignore[assignment]
        structure = synapses(net.graph, spiking.head, net.in_shape)  # type: ignore[arg-type]
        tally = Tally(structure.fan_out, self.points)
        return State(analog, spiking, about, data.test, structure, StepScores([1]), StepScores(self.points), tally)

    def _convert(self, analog: Classifier, train: Split) -> Classifier:
        chosen = torch.randperm(len(train), generator=generator(self.config.seed, "calibration"))
        chosen = chosen[: self.config.calibration_images].sort().values
        batches = _Images(train, chosen, self.services.device)
        return convert(analog, batches, len(chosen), **asdict(self.how))

    def step(self, state: State) -> bool:
        total = len(state.test)
        if state.stream is None:
            rest = torch.arange(state.scores.images, total)
            chunk = min(LARGEST_CHUNK, state.net.chunk(self.config.steps))
            state.stream = state.test.batches(rest, chunk, self.services.device)
        batch = next(state.stream, None)
        if batch is None:
            return False
        images, labels = batch
        with torch.inference_mode(), full_float32():
            x = state.spiking.normalise(images)
            state.analog_scores.add(state.analog.forward_normalised(x).unsqueeze(0), labels)
            features = state.net.simulate(x, state.tally)
            state.scores.add(logits_at(state.spiking, features, self.points), labels)
        self.services.progress(state.scores.images, total, f"simulating {self.config.steps} steps")
        return state.scores.images < total

    def finish(self, state: State) -> Result:
        save_converted(self.services.trial_dir / "converted", state.spiking, state.about, self.how)
        curve, layers = self._curve(state), self._layers(state)
        for row in curve:
            self.services.log(int(row["steps"]), {"snn/accuracy": float(row["accuracy"])})  # type: ignore[arg-type]
        last = curve[-1]
        metrics = {
            "snn/accuracy": last["accuracy"],
            "ann/accuracy": last["ann_accuracy"],
            "accuracy_drop": last["drop_points"],
            "spikes_per_neuron_per_step": last["spikes_per_neuron_per_step"],
            "synaptic_operations": last["synaptic_operations"],
            "analog_macs": state.structure.analog_macs,
            "macs": state.structure.macs,
            "silent_channels": sum(int(neurons.silent.sum()) for neurons in state.net.neurons().values()),
        }
        preflight = inspect(state.analog.backbone, state.analog.head)
        return Result(
            metrics={name: float(value) for name, value in metrics.items()},  # type: ignore[arg-type]
            tables={"accuracy_vs_steps": curve, "layers": layers, "preflight": preflight.rows},
            figures={"accuracy_vs_steps": _figure(curve)},
            artifacts={"converted": "converted/model.safetensors", "converted_about": "converted/model.json"},
        )

    def state_dict(self, state: State) -> dict[str, Any]:
        return {
            "analog": state.analog_scores.state_dict(),
            "spiking": state.scores.state_dict(),
            "tally": state.tally.state_dict(),
        }

    def load_state_dict(self, state: State, saved: Mapping[str, Any]) -> None:
        state.analog_scores.load_state_dict(saved["analog"])
        state.scores.load_state_dict(saved["spiking"])
        state.tally.load_state_dict(saved["tally"])
        state.stream = None

    def _curve(self, state: State) -> list[Row]:
        (analog,) = state.analog_scores.rows()
        neurons = sum(fan_out.numel() for fan_out in state.structure.fan_out.values())
        images, reference = state.scores.images, float(analog["accuracy"])  # type: ignore[arg-type]
        spikes, operations = state.tally.spikes.sum(0).tolist(), state.tally.operations.sum(0).tolist()
        return [
            {
                "steps": row["steps"],
                "accuracy": row["accuracy"],
                "ann_accuracy": reference,
                "drop_points": 100 * (reference - float(row["accuracy"])),  # type: ignore[arg-type]
                "spikes_per_neuron_per_step": spikes[k] / (images * neurons * self.points[k]),
                "synaptic_operations": operations[k] / images,
            }
            for k, row in enumerate(state.scores.rows())
        ]

    def _layers(self, state: State) -> list[Row]:
        rows: list[Row] = []
        images, places = state.scores.images, enumerate(state.net.neurons().items())
        for place, (name, neurons) in places:
            count = state.structure.fan_out[name].numel()
            threshold = neurons.threshold
            rows.append(
                {
                    "layer": name,
                    "neurons": count,
                    "threshold_min": float(threshold.min()),
                    "threshold_mean": float(threshold.mean()),
                    "threshold_max": float(threshold.max()),
                    "firing_rate": float(state.tally.spikes[place, -1]) / (images * count * self.config.steps),
                    "synaptic_operations": float(state.tally.operations[place, -1]) / images,
                    "silent_share": float(neurons.silent.float().mean()),
                }
            )
        return rows


def _figure(curve: list[Row]) -> Figure:
    points = [(float(row["steps"]), float(row["accuracy"])) for row in curve]  # type: ignore[arg-type]
    return Figure(
        title="Accuracy against simulation steps",
        x_label="simulation steps T",
        y_label="test accuracy",
        series={"spiking network": points},
        lines={"analog network": float(curve[-1]["ann_accuracy"])},  # type: ignore[arg-type]
        x_scale="log2",
    )
