"""``engram.convert``: any classifier as a spiking one, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engram.backbone.errors import UserError
from engram.backbone.options import Checker
from engram.backbone.registry import Registry
from engram.face.views import Plot, Table

if TYPE_CHECKING:
    from torch import nn

    from engram.backbone.data.given import Images


@dataclass(frozen=True)
class Converted:
    """A spiking network beside the one it was made from.

    Attributes:
        module: a `torch.nn.Module`, images as the original takes them -> logits [N, classes] after all steps.
        preflight: what became of every layer.
    """

    module: nn.Module
    preflight: Table
    _made: Any = field(repr=False)

    def accuracy(self, images: Images, labels: Any = None) -> Table:
        """Accuracy against simulation steps, beside the original's, with spikes and operations per image.

        Args:
            images: [N, C, H, W], or batches of images and labels.
            labels: [N], for a tensor of images.

        Returns: a row for 1, 2, 4, ... steps.
        """
        return Table("accuracy against simulation steps", tuple(self._made.curve(images, labels)))

    def energy(self, images: Images | None = None) -> Table:
        """Operations, memory and energy of one image in both networks, by the spikes on ``images``.

        By default these are the images that it was converted with.
        """
        return Table("what one image costs", tuple(self._made.costs(images)), self._made.caption)

    def layers(self, images: Images | None = None) -> Table:
        """Thresholds, conversion errors and firing rates of every layer of neurons; images as in `energy`."""
        return Table("layers of neurons", tuple(self._made.layers(images)))

    def plot(self, images: Images | None = None, labels: Any = None) -> Plot:
        """`accuracy` as a chart; without images, how often both networks answer the same (images as in `energy`)."""
        return Plot.of(self._made.figure(images, labels))

    def _repr_html_(self) -> str:
        return self.preflight._repr_html_()


def convert(
    module: nn.Module, images: Images, steps: int = 32, calibration_images: int = 1000, **options: Any
) -> Converted:
    """Turn a trained classifier into a spiking network, as the experiment ``snn.convert`` does.

    Args:
        module: any `torch.nn.Module`, images [N, C, H, W] -> logits [N, classes]; left as it is. Its last Linear layer
            reads the spikes out; a softmax behind it is left out.
        images: training images as the network takes them, a tensor or batches (a DataLoader, say; labels are ignored).
        steps: simulation steps T.
        calibration_images: how many of the images thresholds are chosen on, the first ones.
        options: those of ``engram run snn.convert --help`` that say how to convert: threshold, percentile, per,
            calibration, calibration_steps, start, delay, pre_simulation, hybrid.

    Raises:
        UserError: a layer cannot be converted (the pre-flight says why, and what to do), or an option cannot be.
        TrialError: the converted network would compute something else.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    >>> images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> spiking = convert(net, images, steps=8)
    >>> spiking.module(images).shape, spiking.preflight.column("layer")
    (torch.Size([20, 3]), ['0', '1', '2', 'head'])
    >>> spiking.accuracy(images, net(images).argmax(1)).column("steps")
    [1, 2, 4, 8]
    """
    work, cls = Registry.discover().function("convert")
    problems: list[str] = []
    checker = Checker(Registry({}), str, "See: help(engram.convert)", problems)
    how = checker.build(cls or object, {"steps": steps, **options})
    if calibration_images < 1:
        problems.append(f"calibration_images must be at least 1; got {calibration_images}. Leave it out for 1000.")
    if problems:
        raise UserError("\n".join(problems))
    made = work(module, images, how, calibration_images)
    return Converted(made.module, Table("pre-flight: what becomes of every layer", tuple(made.preflight)), made)
