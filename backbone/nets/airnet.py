"""The CIFAR-10 speed-run network, made convertible: ReLU instead of GELU, average instead of max pooling.

Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498), sections 3.1 and 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.backbone.nets.blocks import (
    StaticBackbone,
    activation,
    conv_unit,
    halving_conv,
    need_size,
    scaled,
)
from engram.backbone.nets.options import ConvOptions

EIGENVALUE_FLOOR = 5e-4


class AirNet(StaticBackbone):
    """A fixed 2x2 patch-whitening convolution, then groups of pooled and plain 3x3 convolutions.

    ``prepare`` sets the whitening filters; the other kernels begin as the identity on their first channels.
    """

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """images: [N, C, H, W] normalised training images. Whitening filters: +-eigenvectors / sqrt(eigenvalues).

        Source: Jordan 2024, section 3.1 (patch whitening after Page 2019), with both signs because a ReLU follows.
        """
        conv = self.body[0][0]  # type: ignore[index]
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        for block in images.split(20):  # all patches at once would take many times the memory of the images
            patches = nn.functional.unfold(block.double(), 2).transpose(1, 2).flatten(0, 1)
            count, total, products = count + len(patches), total + patches.sum(0), products + patches.T @ patches
        mean = total / count
        values, vectors = torch.linalg.eigh(products / count - mean.outer(mean))
        filters = (vectors / (values + EIGENVALUE_FLOOR).sqrt()).T.flip(0).float()
        signs = (filters.sum(1, keepdim=True) >= 0).float() * 2 - 1  # eigh leaves the sign open; fix it
        filters = (filters * signs).view(-1, images.shape[1], 2, 2)
        conv.weight.copy_(torch.cat([filters, -filters]))


def airnet(in_shape: tuple[int, int, int], options: ConvOptions) -> AirNet:
    """Groups of 64, 256 and 256 channels, ``depth`` convolutions each (2), the first of them pooled."""
    need_size("airnet", in_shape, 9)
    norm = options.normalisation or "batch"
    whitening = nn.Conv2d(in_shape[0], 8 * in_shape[0], 2)
    whitening.requires_grad_(False)  # no gradient has to be carried back to full resolution: 7 % of a step
    nn.init.zeros_(whitening.bias)  # type: ignore[arg-type]
    stages: list[nn.Module] = [nn.Sequential(whitening, activation(options.activation))]
    cin = 8 * in_shape[0]
    for base in (64, 256, 256):
        cout = scaled(base, options.width)
        layers = [*halving_conv(cin, cout, norm, options.pooling), activation(options.activation)]
        for _ in range((options.depth or 2) - 1):
            layers += conv_unit(cout, cout, options.activation, norm)
        stages.append(nn.Sequential(*layers))
        cin = cout
    tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = AirNet(in_shape, stages, tail)
    for module in net.body[1:].modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight[: module.in_channels])
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad_(False)  # the next layer can scale; a fixed gain trains faster (section 3.3)
    return net
