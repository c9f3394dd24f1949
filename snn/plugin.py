"""What this package adds to engram; its only entry point."""

from __future__ import annotations

from engram.backbone.contract import Command, Entry, Plugin, Scalar, Target

_OURS = "engram's own acceptance figure"
_CONVERSION = "least-squares thresholds per channel, calibrated potentials, half-threshold start, constant input"


def _drop(dataset: str, backbone: str, steps: int, points: float, minutes: float) -> Target:
    return Target(
        name=f"snn/convert-{dataset}-{backbone}-t{steps}",
        experiment="snn.convert",
        options={"dataset": dataset, "backbone": backbone, "steps": steps},
        metric="test/accuracy_drop",
        value=points,
        tolerance=0.0,
        seeds=(0,),
        protocol=f"{_CONVERSION}, T = {steps}",
        source=_OURS,
        minutes=minutes,
    )


def _trained(dataset: str, value: float, minutes: float, protocol: str, **options: Scalar) -> Target:
    return Target(
        name=f"snn/train-{dataset}",
        experiment="snn.train",
        options={"dataset": dataset, **options},
        metric="test/accuracy",
        value=value,
        tolerance=0.0,
        seeds=(0,),
        protocol=protocol,
        source=_OURS,
        minutes=minutes,
        needs_data=dataset != "moving-shapes",
    )


_MNIST: dict[str, Scalar] = {"backbone": "lenet5", "backbone.normalisation": "batch"}
_SHAPES: dict[str, Scalar] = {"backbone": "vgg-tiny", "decay": 0.8}
_RECORDINGS: dict[str, Scalar] = {
    **{"dataset": "events:nmnist-small", "dataset.test": 0.1, "dataset.crop": 32, "dataset.pool": 2, "validation": 0.0},
    **{"backbone": "lenet5", "backbone.normalisation": "batch"},
    **{"decay": 0.8, "reset": "hard", "epochs": 30, "batch_size": 32, "lr": 4e-3, "translate": 2, "border": "black"},
}
"""Those of benchmarks/suites/nmnist-recordings.toml."""


PLUGIN = Plugin(
    name="snn",
    checks={
        "C compiler": "engram.snn.checks:compiler",
        "engines": "engram.snn.checks:engines",
        "Lava": "engram.snn.loihi.lava.environment:check",
    },
    installs={"lava": "engram.snn.loihi.lava.environment:install"},
    targets=(
        _drop("mnist", "lenet5", 8, 0.2, 3),
        _drop("mnist", "lenet5", 32, 0.3, 3),
        _drop("cifar10", "airnet", 8, 3.0, 22),
        _drop("cifar10", "airnet", 16, 1.0, 24),
        _trained("mnist", 0.99, 5, "LeNet-5 of LIF neurons with BatchNorm, T = 4, constant input", **_MNIST),
        _trained(
            "moving-shapes", 0.95, 4, "VGG-tiny of LIF neurons, 16 event frames, six orders of movement", **_SHAPES
        ),
        Target(
            name="snn/train-nmnist-recordings",
            experiment="snn.train",
            options=_RECORDINGS,
            metric="test/accuracy",
            value=0.92,
            tolerance=0.0,
            seeds=(0, 1, 2),
            protocol="900 real recordings of N-MNIST, 100 to test on, 16 frames of 16x16, LIF with hard reset",
            source=_OURS,
            minutes=10,
            needs_data=True,
        ),
    ),
    experiments={
        "snn.convert": Entry(
            target="engram.snn.conversion.experiment:Convert",
            options="engram.snn.conversion.configs:ConvertConfig",
            summary="Turn a trained network into a spiking one and measure it against simulation length",
        ),
        "snn.deploy": Entry(
            target="engram.snn.deploy.experiment:Deploy",
            options="engram.snn.deploy.configs:DeployConfig",
            summary="Put a trained network on a neuromorphic chip, bit for bit, and into files of other tools",
        ),
        "snn.train": Entry(
            target="engram.snn.training.experiment:SpikingTrain",
            options="engram.snn.training.configs:SpikingTrainConfig",
            summary="Train a spiking network with surrogate gradients",
            data_parallel=True,
        ),
    },
    backbones={
        "nir": Entry(
            target="engram.snn.interchange.nir.network:make",
            content="engram.snn.interchange.nir.structure:content",
            options="engram.snn.interchange.nir.options:NirOptions",
            offers=(),
            takes_path=True,
            distributions=("nir",),
            summary="A graph in NIR, as other tools write it, with its weights: nir:FILE",
        ),
        "netx": Entry(
            target="engram.snn.interchange.netx.network:make",
            content="engram.snn.interchange.netx.structure:content",
            options="engram.snn.interchange.netx.options:NetxOptions",
            offers=(),
            takes_path=True,
            distributions=("h5py",),
            summary="A network of lava-dl in Loihi's integers, with its weights: netx:FILE",
        ),
    },
    adapters={
        "snn.qcfs": Entry(
            target="engram.snn.training.qcfs:qcfs",
            options="engram.snn.training.options:QCFSOptions",
            needs=("Traceable",),
            offers=("Traceable", "Staged", "StageSteps", "Prepared", "Calibrated"),
            summary="Quantised ReLUs with learnable thresholds that spiking neurons repeat in few steps",
        ),
        "snn.spiking": Entry(
            target="engram.snn.training.adapter:spiking",
            options="engram.snn.training.options:SpikingOptions",
            needs=("Traceable",),
            offers=("Staged", "StageSteps", "Prepared", "Calibrated", "Spiking"),
            summary="Spiking neurons for activations, trained with surrogate gradients",
        ),
        "snn.convert": Entry(
            target="engram.snn.conversion.storage:restore",
            needs=("Traceable",),
            offers=("Staged", "StageSteps", "Delayed", "Spiking"),
            options="engram.snn.conversion.methods:Conversion",
            summary="A step in the making of networks that snn.convert saved",
            instead="It needs images, and is an experiment: engram run snn.convert --from TRIAL.",
        ),
        "snn.readout": Entry(
            target="engram.snn.readout.adapter:readout",
            options="engram.snn.readout.options:ReadoutOptions",
            needs=("Spiking",),
            summary="Features from rates, latencies or membranes of a spiking network's last neurons",
        ),
    },
    commands={
        "deploy": Command(words="TRIAL", summary="Put a trained network on a chip or into a file", runs="snn.deploy"),
        "nir": Command(
            words="FILE",
            summary="What norse, snnTorch, sinabs and Lava will make of a NIR file",
            flags="engram.snn.interchange.nir.command_flags:NirFlags",
            handler="engram.snn.interchange.nir.command:show",
        ),
    },
    functions={
        "convert": Entry(
            target="engram.snn.conversion.converted:converted",
            options="engram.snn.conversion.methods:Conversion",
            summary="Turn any classifier into a spiking one",
        ),
    },
)
