"""Experiment ``snn.convert``: pre-flight, conversion, and the price of every simulation length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from engram.backbone.contract import Figure, Result, Row, Services
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import cautions, load_as_trained
from engram.backbone.errors import must
from engram.backbone.measures.anytime import StepScores, logits_at
from engram.backbone.measures.early_exit import ExitScores, figure
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import layout
from engram.backbone.saved.states import load_model
from engram.backbone.seeding import generator
from engram.snn.conversion.calibration import activations
from engram.snn.conversion.coding import encode
from engram.snn.conversion.configs import ConvertConfig, curve_steps
from engram.snn.conversion.convert import convert, full_float32, lower
from engram.snn.conversion.methods import RIGHT_ON_AVERAGE, biased
from engram.snn.conversion.preflight import ANALOG, inspect
from engram.snn.conversion.storage import save_converted
from engram.snn.measures.costs import CAPTION, InputLayer, analog, costs, operations, spikes_sent, spiking_memory
from engram.snn.measures.counting import Synapses, Tally, synapses
from engram.snn.measures.layer_report import LayerReport
from engram.snn.measures.neurobench import Workload
from engram.snn.simulation.network import SpikingBackbone
from engram.snn.training.network import SpikingNetwork

LARGEST_CHUNK = 512
CALIBRATION_BATCH = 100


@dataclass
class State:
    """Counts over the test images seen so far; the networks beside them never change."""

    analog: Classifier
    graph: fx.GraphModule
    spiking: Classifier
    about: Mapping[str, Any]
    cautions: list[Row]
    test: Split
    outputs: Tensor
    """[K] int64, the network's output for each class of the test images."""
    structure: Synapses
    analog_scores: StepScores
    scores: StepScores
    exits: ExitScores
    tally: Tally
    layers: LayerReport
    effective_macs: int = 0
    """Of the analog network on all these images: multiplications of values that are not zero."""
    stream: Iterator[tuple[Tensor, Tensor, Tensor]] | None = field(default=None)

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
        return (images for images, _, _ in self.split.batches(self.chosen, CALIBRATION_BATCH, self.device))


class Convert:
    """Convert a trained classifier, then score it and its spiking twin on the test images, chunk by chunk."""

    def __init__(self, config: ConvertConfig, services: Services) -> None:
        self.config, self.services = config, services
        self.how = config.conversion()
        self.points = curve_steps(config.steps)

    def start(self) -> State:
        analog, about = load_model(self.services.inputs["trained"] / "model")
        if isinstance(analog.backbone, SpikingBackbone | SpikingNetwork):
            remedy = "Convert the trial it was made from, or train it on with snn.train or backbone.train."
            raise must("the network for snn.convert", "one without neurons so far", "a spiking one", remedy)
        preflight = inspect(analog.backbone, analog.head, self.config.hybrid)
        self.services.table("Pre-flight: what becomes of every layer", preflight.rows)
        preflight.require()
        if self.config.coding in RIGHT_ON_AVERAGE and any(each.verdict == ANALOG for each in preflight.verdicts):
            raise biased(self.config.coding, f"--hybrid {self.config.hybrid}")
        data, outputs = load_as_trained(about, root=self.services.data_root, download=self.services.download)
        found = cautions(about, data)
        if found:
            self.services.table("caution", found)
        self.services.provenance(data_sha256=data.fingerprint, model_sha256=about["sha256"], **data.facts)
        analog.to(self.services.device)
        analog.backbone.to(memory_format=layout(analog.backbone))  # type: ignore[call-overload]
        spiking = self._convert(analog, data)
        net: SpikingBackbone = spiking.backbone  # type: ignore[assignment]
        structure = synapses(net.graph, spiking.head, net.in_shape)  # type: ignore[arg-type]
        tally = Tally(structure.fan_out, self.points)
        return State(
            analog=analog,
            graph=lower(analog.backbone),
            spiking=spiking,
            about=about,
            cautions=found,
            test=data.test,
            outputs=outputs.to(self.services.device),
            structure=structure,
            analog_scores=StepScores([1]),
            scores=StepScores(self.points),
            exits=ExitScores(exit_steps(self.config.steps), beforehand=self.config.pre_simulation),
            tally=tally,
            layers=LayerReport(net.neurons()),
        )

    def _convert(self, analog: Classifier, data: Data) -> Classifier:
        train = data.train
        chosen = torch.randperm(len(train), generator=generator(self.config.seed, "calibration"))
        chosen = chosen[: self.config.calibration_images].sort().values
        shown = train.labels[chosen].unique()
        if len(shown) < 2:
            raise must(
                "the calibration images",
                "of at least two classes, or thresholds fit one of them",
                f"{len(chosen)} of {data.classes[int(shown[0])]!r} alone",
                "Raise --calibration-images.",
            )
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
        images, labels = batch[0], state.outputs[batch[1]]
        with torch.inference_mode(), full_float32():
            x = state.spiking.normalise(images)
            with Workload(state.analog) as work:
                analog = state.analog.forward_normalised(x)
            state.effective_macs += work.effective
            state.analog_scores.add(analog.unsqueeze(0), labels)
            features, rates = state.net.observe(self._coded(state, images, x), state.tally)
            state.layers.add(rates, activations(state.graph, x, list(rates)))
            state.scores.add(logits_at(state.spiking, features, self.points), labels)
            state.exits.add(logits_at(state.spiking, features, state.exits.steps), labels)
        self.services.progress(state.scores.images, total, f"simulating {self.config.steps} steps")
        return state.scores.images < total

    def _coded(self, state: State, images: Tensor, x: Tensor) -> Tensor:
        """images: [B, C, H, W] as stored, x: normalised -> x, or normalised frames [B, T, C, H, W]."""
        c = self.config
        if c.coding == "constant":
            return x
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        draws = generator(c.seed, "coding", state.scores.images, x.device.type)
        return state.spiking.normalise(encode(c.coding, pixels, c.steps, draws))

    def finish(self, state: State) -> Result:
        save_converted(self.services.trial_dir / "model", state.spiking, state.about, self.how)
        curve, exits, priced = self._curve(state), state.exits.rows(), self._costs(state)
        last = curve[-1]
        metrics = {
            "snn/accuracy": last["accuracy"],
            "ann/accuracy": last["ann_accuracy"],
            "accuracy_drop": last["drop_points"],
            "spikes_per_neuron_per_step": last["spikes_per_neuron_per_step"],
            "synaptic_operations": last["synaptic_operations"],
            "analog_macs": priced[-1]["macs"],
            "macs": priced[0]["macs"],
            "effective_macs": priced[1]["macs"],
            "silent_channels": sum(int(neurons.silent.sum()) for neurons in state.net.neurons().values()),
        }
        self.services.table(CAPTION, priced)
        preflight = inspect(state.analog.backbone, state.analog.head, self.config.hybrid)
        return Result(
            metrics={name: float(value) for name, value in metrics.items()},  # type: ignore[arg-type]
            tables={
                "accuracy_vs_steps": curve,
                "layers": self._layers(state),
                "early_exit": exits,
                "costs": priced,
                "preflight": preflight.rows,
                **({"cautions": state.cautions} if state.cautions else {}),
            },
            figures={"accuracy_vs_steps": _figure(curve), "early_exit": figure(exits, self._all_stop(curve))},
            artifacts={"model": "model/model.safetensors", "manifest": "model/model.json"},
        )

    def state_dict(self, state: State) -> dict[str, Any]:
        return {
            "analog": state.analog_scores.state_dict(),
            "spiking": state.scores.state_dict(),
            "exits": state.exits.state_dict(),
            "tally": state.tally.state_dict(),
            "layers": state.layers.state_dict(),
            "effective_macs": state.effective_macs,
        }

    def load_state_dict(self, state: State, saved: Mapping[str, Any]) -> None:
        state.analog_scores.load_state_dict(saved["analog"])
        state.scores.load_state_dict(saved["spiking"])
        state.exits.load_state_dict(saved["exits"])
        state.tally.load_state_dict(saved["tally"])
        state.layers.load_state_dict(saved["layers"])
        state.effective_macs = int(saved["effective_macs"])
        state.stream = None

    def _curve(self, state: State) -> list[Row]:
        (analog,) = state.analog_scores.rows()
        images, reference = state.scores.images, float(analog["accuracy"])  # type: ignore[arg-type]
        sent = spikes_sent(state.structure, state.tally, images)
        caused = operations(state.structure, state.tally, images)
        return [
            {
                "steps": row["steps"],
                "accuracy": row["accuracy"],
                "ann_accuracy": reference,
                "drop_points": 100 * (reference - float(row["accuracy"])),  # type: ignore[arg-type]
                "spikes_per_neuron_per_step": sent[k] / (state.structure.neurons * self._simulated(self.points[k])),
                "synaptic_operations": caused[k],
            }
            for k, row in enumerate(state.scores.rows())
        ]

    def _layers(self, state: State) -> list[Row]:
        rows, images, steps = state.layers.rows(), state.scores.images, self._simulated(self.points[-1])
        for row in rows:
            spikes, operations = state.tally.of(row["layer"])
            row["firing_rate"] = spikes / (images * row["neurons"] * steps)
            row["synaptic_operations"] = operations / images
        return [*rows]

    def _simulated(self, steps: int) -> int:
        """All steps an image takes: those beforehand are counted, priced and waited for like any others."""
        return self.config.pre_simulation + steps

    def _all_stop(self, curve: list[Row]) -> list[Row]:
        """Rows of an accuracy curve with all steps an image takes."""
        return [{**row, "steps": self._simulated(int(row["steps"]))} for row in curve]  # type: ignore[arg-type]

    def _costs(self, state: State) -> list[Row]:
        """What one image costs after each of the points."""
        head: nn.Linear = state.spiking.head  # type: ignore[assignment]
        graph = state.net.graph
        layer: InputLayer = "once" if self.config.coding == "constant" else "every step"
        return costs(
            analog(state.graph, head, state.net.in_shape, state.effective_macs / state.scores.images),
            state.structure,
            spiking_memory(graph, head, state.structure, layer),
            [self._simulated(steps) for steps in self.points],
            operations(state.structure, state.tally, state.scores.images),
            input_layer=layer,
        )


def exit_steps(steps: int) -> list[int]:
    """Where an early exit may happen: every step up to 64, then where the accuracy curve is measured."""
    return sorted({*range(1, min(steps, 64) + 1), *curve_steps(steps)})


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
