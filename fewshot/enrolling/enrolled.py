"""``engram.fewshot.enrol``: a classifier of new classes from a handful of pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engram.backbone.contract import Backbone, Shaped, SupportHead
from engram.backbone.errors import must
from engram.backbone.measures.scoring import SCORING_BATCH
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.backbone.nets.making import build_head
from engram.backbone.nets.parted import Parted, classifier, plainly
from engram.backbone.nets.plain import copied
from engram.backbone.nets.prototypes import class_means
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.fewshot.enrolling.rejection import NONE, distances, left_out, limit
from engram.fewshot.frozen import HEAD

_EXTRA = "_extra_state"

Label = str | int
Labels = Tensor | Sequence[Label]


class Enrolled(Classifier):
    """A classifier of classes that were enrolled: images [B, C, H, W], as its network takes them -> logits [B, K].

    Its state_dict fills that of any other one with the same network and head, whatever classes it has.

    Attributes:
        classes: what the logits stand for.
        support: [S, F] features of all pictures that were enrolled; ``labels``: [S] their classes.
        threshold: the squared distance from the nearest class mean beyond which a picture is none of these; None where
            no class has two pictures, or none was asked for.
    """

    support: Tensor
    labels: Tensor

    def __init__(self, network: Classifier, by: nn.Module, features: int, reject: float | None) -> None:
        """``network`` in front, which is taken over; ``by``: the support head; ``reject``: as in `enrol`."""
        super().__init__(network.backbone, nn.Identity(), network.normalise.mean, network.normalise.std)
        self.by, self.reject = by, reject
        self.classes: tuple[str, ...] = ()
        self.threshold: float | None = None
        device = network.normalise.mean.device
        self.register_buffer("support", torch.empty(0, features, device=device))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64, device=device))
        self.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def add(self, images: Any, labels: Labels) -> None:
        """Enrol more pictures, of classes that are known or of new ones, whose logits come behind those of the others.

        What comes of it is what enrolling all of them at once gives.

        Args:
            images: [N, C, H, W], or N pictures [C, H, W]; labels: N names or whole numbers.

        Raises:
            UserError: they do not go together, or have another shape.
        """
        pictures = stacked(images)
        given = named(labels, len(pictures))
        self._enrol(self.features(pictures), given)

    def _enrol(self, features: Tensor, given: Sequence[Label]) -> None:
        names = [str(label) for label in given]
        new = [str(label) for label in sorted(set(given)) if str(label) not in self.classes]
        self.classes = (*self.classes, *new)
        numbers = torch.tensor([self.classes.index(name) for name in names], device=self.labels.device)
        self.support, self.labels = torch.cat((self.support, features)), torch.cat((self.labels, numbers))
        self._fit()

    @torch.no_grad()
    def _fit(self) -> None:
        ways = len(self.classes)
        head: Any = self.by
        self.head = head.fitted(self.support, self.labels, ways).eval().requires_grad_(False)
        far = None if self.reject is None else left_out(self.support, self.labels, ways)
        self.threshold = None if far is None or self.reject is None else limit(far, self.reject)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W] -> what the network makes of them, [N, F]."""
        return features_of(self, images)

    def predict(self, images: Any) -> list[str]:
        """The class of each of N pictures; ``"none of these"`` where it is too far from all, with a threshold."""
        found = self.features(stacked(images))
        with torch.no_grad():
            answers = self.head(found).argmax(1)
        names = [self.classes[answer] for answer in answers.tolist()]
        if self.threshold is None:
            return names
        means = class_means(self.support, self.labels, len(self.classes))
        far = (distances(found, means) > self.threshold).tolist()
        return [NONE if away else name for name, away in zip(names, far, strict=True)]

    def get_extra_state(self) -> Tensor:
        """What is no tensor, as one: bytes of JSON."""
        said = json.dumps({"classes": self.classes, "reject": self.reject})
        return torch.frombuffer(bytearray(said.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """It was read before anything else was."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if (said := state_dict.get(prefix + _EXTRA)) is not None:
            known = json.loads(bytes(said.tolist()))
            self.classes, self.reject = tuple(known["classes"]), known["reject"]
            kept = (state_dict[f"{prefix}{name}"].to(self.support.device) for name in ("support", "labels"))
            self.support, self.labels = kept
            self._fit()  # tensors of the shapes that come next
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def enrol(
    model: Any,
    support: Any,
    labels: Labels,
    *,
    head: str | None = None,
    head_options: Mapping[str, Any] | None = None,
    reject: float | None = None,
    outputs: Literal["logits", "features"] = "logits",
) -> Enrolled:
    """A classifier of new classes from a handful of pictures of each, one at least.

    Args:
        model: a network that has learned other classes, which is left as it is: what `engram.load` gives, or any
            `torch.nn.Module`. Of one that classifies the last Linear layer is left out, of any other the outputs are
            the features of an image.
        support: S pictures as the network takes them, [S, C, H, W] or S of [C, H, W].
        labels: their classes, names or whole numbers. Classes are sorted; those added later follow.
        head: how classes are told apart by the pictures' features: a head with a support set and a fixed classifier,
            see ``engram list heads``. By default the network's own where it has one, else ``prototype``: the nearest
            mean of a class.
        head_options: of the head.
        reject: with a number, such as 0.05, ``predict`` says "none of these" of pictures that are too far from all
            class means: further from the nearest than all but about this share of the support is, each picture left
            out in turn. That takes two pictures of a class.
        outputs: "features" for a network that ends with a Linear layer and classifies nothing.

    Returns: a `torch.nn.Module`, images -> logits, with ``classes``, ``predict(images)`` for names, and
        ``add(images, labels)`` for more pictures and more classes.

    Raises:
        UserError: pictures and labels do not go together, the network takes others, or the head is of another kind.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())  # anybody's, and trained
    >>> dark, light = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    >>> classifier = enrol(net, [dark, dark + 0.1, light], ["night", "night", "day"])
    >>> classifier.predict([dark + 0.2, light - 0.2])
    ['night', 'day']
    >>> classifier.add([light / 2], ["dusk"])
    >>> classifier.classes, classifier.predict([light - 0.4])
    (('day', 'night', 'dusk'), ['dusk'])
    """
    pictures = stacked(support)
    given = named(labels, len(pictures))
    if reject is not None and not 0 < reject < 1:
        raise must("reject", "greater than 0 and less than 1", reject, "0.05 is usual; leave it out for no threshold.")
    network = network_of(model, pictures, outputs)
    features = features_of(network, pictures)
    made = Enrolled(
        network, support_head(network, features.shape[1], head, head_options or {}), features.shape[1], reject
    )
    made._enrol(features, given)
    return made


def network_of(model: Any, pictures: Tensor, outputs: Literal["logits", "features"]) -> Classifier:
    """A copy of a network in evaluation mode, in front of whatever head it has."""
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        raise must("model", "a torch.nn.Module, or what engram.load gives", type(model).__name__, "Give the network.")
    if isinstance(module, Backbone) or (outputs == "features" and not isinstance(module, Classifier)):
        channels, height, width = pictures.shape[1:]
        net = copied(module)
        found = net if isinstance(net, Backbone) else Parted(net, (channels, height, width))
        return plainly(found, nn.Identity(), pictures)  # type: ignore[arg-type]
    return classifier(module, pictures)


def support_head(network: Classifier, features: int, head: str | None, options: Mapping[str, Any]) -> nn.Module:
    """The head that learns classes from a support set: the network's own, or one of that name.

    Raises:
        UserError: it needs no support set, or makes no fixed classifier.
    """
    if head is None and isinstance(network.head, SupportHead):
        return network.head
    registry = Registry.discover()
    whole = registry.chosen("heads", head or HEAD)
    entry = registry.entry("heads", whole)
    if not (entry.support and entry.fixed):
        fits = [name for _, name, each in registry.choices("heads") if each.support and each.fixed]
        rule = "one that makes a classifier of a support set"
        raise must("head", rule, whole, f"Use {', '.join(fits)}.")
    device = network.normalise.mean.device
    return build_head(in_full(registry, "heads", whole, options), features, 1).to(device)


@torch.no_grad()
def features_of(network: Classifier, images: Tensor) -> Tensor:
    """images: [N, C, H, W] as a network takes them -> [N, F] float32, in the mode that it is in.

    Raises:
        UserError: it takes images of another shape.
    """
    net = network.backbone
    wanted = tuple(net.in_shape) if isinstance(net, Shaped) else tuple(images.shape[1:])
    if tuple(images.shape[1:]) != wanted:
        shapes = ["x".join(map(str, shape)) for shape in (wanted, images.shape[1:])]
        raise must("images", f"of {shapes[0]}, as the network takes them", shapes[1], "Resize them.")
    device = network.normalise.mean.device
    return torch.cat(
        [
            net(network.normalise(arranged(part.to(device), net))).flatten(1).float()
            for part in images.split(SCORING_BATCH)
        ]
    )


def stacked(images: Any) -> Tensor:
    """Pictures as one tensor [N, C, H, W].

    Raises:
        UserError: they are something else, or none.
    """
    rule, step = "a tensor [N, C, H, W], or pictures [C, H, W] of one shape", "Stack them with torch.stack."
    found = images
    if not isinstance(images, Tensor):
        each = list(images) if isinstance(images, Iterable) else []
        if not each or not all(isinstance(one, Tensor) for one in each) or len({one.shape for one in each}) > 1:
            raise must("images", rule, f"{type(images).__name__} of {len(each)}", step)
        found = torch.stack(each)
    if found.ndim != 4 or 0 in found.shape:
        raise must("images", rule, list(found.shape), step)
    return found


def named(labels: Labels, count: int) -> list[Label]:
    """Labels as they are sorted: all of them names, or all whole numbers.

    Raises:
        UserError: they are neither, not as many as pictures, or the name of no class.
    """
    given = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    plain = [int(each) if hasattr(each, "__index__") and not isinstance(each, bool) else each for each in given]
    if not (all(isinstance(each, str) for each in plain) or all(type(each) is int for each in plain)):
        kinds = ", ".join(sorted({type(each).__name__ for each in plain}))
        raise must("labels", "names alone, or whole numbers alone", kinds, "Give one label for each picture.")
    if len(plain) != count:
        raise must("labels", f"one for each of the {count} pictures", len(plain), "Give both in the same order.")
    if NONE in plain:
        raise must("a class", "called otherwise", repr(NONE), "It is what pictures of no class are called.")
    return plain  # type: ignore[return-value]
