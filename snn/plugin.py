"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from backbone.contract import Entry, Plugin, Target


def _drop(dataset: str, backbone: str, steps: int, points: float, minutes: float) -> Target:
    return Target(
        name=f"snn/convert-{dataset}-{backbone}",
        experiment="snn.convert",
        options={"dataset": dataset, "backbone": backbone, "steps": steps},
        metric="accuracy_drop",
        value=points,
        tolerance=0.0,
        seeds=(0,),
        protocol=f"99.9th percentile per channel, half-threshold start, constant input, T = {steps}",
        source="engram's own acceptance figure",
        minutes=minutes,
    )


PLUGIN = Plugin(
    name="snn",
    targets=(_drop("mnist", "lenet5", 32, 0.3, 4), _drop("cifar10", "airnet", 64, 1.0, 30)),
    experiments={
        "snn.convert": Entry(
            target="snn.convert:Convert",
            options="snn.configs:ConvertConfig",
            summary="Turn a trained network into a spiking one and measure it against simulation length",
        ),
        "snn.train": Entry(
            target="snn.train:SpikingTrain",
            options="snn.train_configs:SpikingTrainConfig",
            summary="Train a spiking network with surrogate gradients",
        ),
    },
    adapters={
        "snn.qcfs": Entry(
            target="snn.qcfs:qcfs",
            options="snn.adapter_options:QCFSOptions",
            summary="Quantised ReLUs with learnable thresholds that spiking neurons repeat in few steps",
        ),
        "snn.spiking": Entry(
            target="snn.adapter:spiking",
            options="snn.adapter_options:SpikingOptions",
            summary="Spiking neurons for activations, trained with surrogate gradients",
        ),
    },
)
