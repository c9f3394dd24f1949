"""What the trunk itself offers, registered the way every plugin does it."""

from __future__ import annotations

from engram.backbone.contract import Ability, Asks, Entry, Plugin, Target

_TORCHVISION = "engram.backbone.data.torchvision_sets"
_KNOWN = "engram.backbone.data.known"
_CHECKING = "engram.backbone.data.checking"
_MADE_OF = "engram.backbone.data.made_of"
_CONV = "engram.backbone.nets.options:ConvOptions"
_CONFIGS = "engram.backbone.experiments.configs"
_OPTIONS = "engram.backbone.data.options"
_EVENTS = "engram.backbone.data.event_options"
_OURS = "engram's own acceptance figure"
_STAGES: tuple[Ability, ...] = ("Traceable", "Staged", "StageSteps")


def _network(where: str, summary: str, *, options: str = _CONV, offers: tuple[Ability, ...] = _STAGES) -> Entry:
    return Entry(target=f"engram.backbone.nets.{where}", options=options, offers=offers, summary=summary)


def _accuracy(dataset: str, backbone: str, value: float, protocol: str, minutes: float) -> Target:
    return Target(
        name=f"backbone/{dataset}-{backbone}",
        experiment="backbone.train",
        options={"dataset": dataset, "backbone": backbone},
        metric="test/accuracy",
        value=value,
        tolerance=0.0,
        seeds=(0,),
        protocol=protocol,
        source=_OURS,
        minutes=minutes,
        needs_data=dataset != "digits",
    )


PLUGIN = Plugin(
    name="backbone",
    checks={"torch": "engram.backbone.checks:torch", "data sets": "engram.backbone.checks:data_sets"},
    targets=(
        _accuracy("digits", "lenet5", 0.97, "engram-digits/1: fixed stratified 20 % test", 0.3),
        _accuracy("mnist", "lenet5", 0.99, "MNIST's own split, 10 % of train held out", 3),
        _accuracy("cifar10", "airnet", 0.92, "5,000 of the training images as test, 10 % of the rest held out", 20),
    ),
    experiments={
        "backbone.train": Entry(
            target="engram.backbone.experiments.train:Train",
            options=f"{_CONFIGS}:TrainConfig",
            summary="Train a network",
            data_parallel=True,
        ),
        "backbone.evaluate": Entry(
            target="engram.backbone.experiments.evaluate:Evaluate",
            options=f"{_CONFIGS}:EvaluateConfig",
            summary="Score a trained network on any data",
        ),
    },
    backbones={
        "mlp": _network("mlp:mlp", "Fully connected, 256-256", options="engram.backbone.nets.options:MLPOptions"),
        "lenet5": _network("lenet5:lenet5", "LeNet-5, LeCun et al. 1998"),
        "vgg-tiny": _network("vgg:vgg_tiny", "VGG, 16-32-64 channels"),
        "vgg-small": _network("vgg:vgg_small", "VGG, 32-32-64-64-128-128 channels"),
        "resnet-tiny": _network("resnet:resnet_tiny", "ResNet, 16-32-64 channels"),
        "resnet18": _network("resnet:resnet18", "ResNet-18 with a stem for small pictures"),
        "conv4": _network(
            "conv4:conv4", "Conv4-64 of the few-shot papers", options="engram.backbone.nets.options:Conv4Options"
        ),
        "resnet12": _network(
            "resnet12:resnet12",
            "ResNet-12 of the few-shot papers",
            options="engram.backbone.nets.options:ResNet12Options",
        ),
        "airnet": _network(
            "airnet:airnet",
            "The CIFAR-10 speed-run network with ReLU and average pooling, after Jordan 2024",
            offers=(*_STAGES, "Prepared"),
        ),
    },
    heads={
        "linear": Entry(target="engram.backbone.nets.heads:linear", layer=True, summary="One linear layer"),
        "logistic": Entry(
            target="engram.backbone.nets.heads:Logistic",
            summary="One linear layer with a logit less than classes: of two classes a single one",
        ),
        "cosine": Entry(
            target="engram.backbone.nets.heads:Cosine",
            options="engram.backbone.nets.head_options:CosineOptions",
            summary="Cosine of the angle to a vector for each class, Gidaris and Komodakis 2018",
            linear=False,
            support=True,
        ),
    },
    objectives={
        "cross-entropy": Entry(
            target="engram.backbone.objectives.cross_entropy:cross_entropy",
            asks=Asks(by_rows=True),
            summary="Cross-entropy with the labels, smoothed by --label-smoothing",
            data_parallel=True,
        ),
        "present": Entry(
            target="engram.backbone.objectives.present:present",
            asks=Asks(columns=("present",), by_rows=True),
            summary="Binary cross-entropy of every output with the column present: which classes are in the image",
            data_parallel=True,
        ),
    },
    datasets={
        "digits": Entry(
            target="engram.backbone.data.digits:open_digits",
            known=f"{_KNOWN}:pictures_alone",
            summary="1,797 digits of 8x8, always there (scikit-learn)",
        ),
        "mnist": Entry(
            target=f"{_TORCHVISION}:open_mnist",
            check=f"{_CHECKING}:check_mnist",
            files=f"{_MADE_OF}:mnist_files",
            known=f"{_KNOWN}:pictures_alone",
            summary="70,000 digits of 28x28",
        ),
        "fashion-mnist": Entry(
            target=f"{_TORCHVISION}:open_fashion_mnist",
            check=f"{_CHECKING}:check_fashion_mnist",
            files=f"{_MADE_OF}:fashion_mnist_files",
            known=f"{_KNOWN}:pictures_alone",
            summary="70,000 garments of 28x28",
        ),
        "kmnist": Entry(
            target=f"{_TORCHVISION}:open_kmnist",
            check=f"{_CHECKING}:check_kmnist",
            files=f"{_MADE_OF}:kmnist_files",
            known=f"{_KNOWN}:pictures_alone",
            summary="70,000 kuzushiji of 28x28",
        ),
        "cifar10": Entry(
            target=f"{_TORCHVISION}:open_cifar10",
            check=f"{_CHECKING}:check_cifar10",
            files=f"{_MADE_OF}:cifar10_files",
            known=f"{_KNOWN}:pictures_alone",
            summary="60,000 colour pictures of 32x32, 10 classes",
        ),
        "cifar100": Entry(
            target=f"{_TORCHVISION}:open_cifar100",
            check=f"{_CHECKING}:check_cifar100",
            files=f"{_MADE_OF}:cifar100_files",
            known=f"{_KNOWN}:pictures_alone",
            summary="60,000 colour pictures of 32x32, 100 classes",
        ),
        "omniglot": Entry(
            target="engram.backbone.data.omniglot:open_omniglot",
            check=f"{_CHECKING}:check_omniglot",
            files=f"{_MADE_OF}:omniglot_files",
            options=f"{_OPTIONS}:OmniglotOptions",
            summary="32,460 drawings of 105x105, 1,623 characters",
        ),
        "glyphs": Entry(
            target="engram.backbone.data.glyphs:open_glyphs",
            check=f"{_CHECKING}:check_glyphs",
            options=f"{_OPTIONS}:GlyphsOptions",
            summary="Characters made here, 1,400 of random strokes by 20 writers each, 28x28; for few-shot episodes",
        ),
        "parquet": Entry(
            target="engram.backbone.data.parquet:open_parquet",
            options=f"{_OPTIONS}:PartOptions",
            check=f"{_CHECKING}:check_parquet",
            files=f"{_MADE_OF}:parquet_files",
            takes_path=True,
            known=f"{_KNOWN}:known_parquet",
            summary="Image table as the Hugging Face hub stores it: parquet:PATH",
        ),
        "folder": Entry(
            target="engram.backbone.data.folders:open_folder",
            options=f"{_OPTIONS}:FolderOptions",
            check=f"{_CHECKING}:check_folder",
            files=f"{_MADE_OF}:folder_files",
            takes_path=True,
            known=f"{_KNOWN}:known_folder",
            summary="One folder of pictures per class: folder:PATH",
        ),
        "moving-shapes": Entry(
            target="engram.backbone.data.moving_shapes:open_moving_shapes",
            options=f"{_EVENTS}:MovingShapesOptions",
            known=f"{_KNOWN}:pictures_alone",
            summary="Events of shapes made here; six classes that only the order of frames tells apart",
        ),
        "saccades": Entry(
            target="engram.backbone.data.saccades:open_saccades",
            check=f"{_CHECKING}:check_another",
            files=f"{_MADE_OF}:saccades_files",
            options=f"{_EVENTS}:SaccadesOptions",
            takes_path=True,
            known=f"{_KNOWN}:known_saccades",
            summary="Any set of stills before a simulated event camera: saccades:mnist",
        ),
        "corrupted": Entry(
            target="engram.backbone.data.corrupted:open_corrupted",
            check=f"{_CHECKING}:check_wrapped",
            files=f"{_MADE_OF}:corrupted_files",
            options="engram.backbone.data.corruptions.options:CorruptedOptions",
            takes_path=True,
            wraps=True,
            known=f"{_KNOWN}:known_corrupted",
            summary="Any set of stills with noise, blur, occlusion and more, as CIFAR-10-C has them: corrupted:cifar10",
        ),
        "digit-clutter": Entry(
            target="engram.backbone.data.digit_clutter:open_digit_clutter",
            check=f"{_CHECKING}:check_another",
            files=f"{_MADE_OF}:digit_clutter_files",
            options=f"{_OPTIONS}:DigitClutterOptions",
            takes_path=True,
            known=f"{_KNOWN}:known_digit_clutter",
            summary="Digits that occlude one another or lie under fragments, after Spoerer 2017: digit-clutter:mnist",
        ),
        "events": Entry(
            target="engram.backbone.data.event_folders:open_events",
            check=f"{_CHECKING}:check_events",
            files=f"{_MADE_OF}:events_files",
            options=f"{_EVENTS}:EventsOptions",
            takes_path=True,
            summary="One folder of event recordings per class: events:PATH",
        ),
        "tonic": Entry(
            target="engram.backbone.data.tonic_sets:open_tonic",
            options=f"{_EVENTS}:TonicOptions",
            files=f"{_MADE_OF}:tonic_files",
            takes_path=True,
            summary="Recorded events, with the extra 'tonic': tonic:nmnist, tonic:dvs128-gesture, tonic:shd",
        ),
    },
)
