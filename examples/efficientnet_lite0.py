"""EfficientNet-Lite0, to be used with weights that were trained on ImageNet:

engram run fewshot.episodes --backbone examples/efficientnet_lite0.py:EfficientNetLite0 --weights FILE.pth ...

Its parameters are called as in efficientnet-lite0-57934424.pth (Apache-2.0), whose shapes it has. Pictures are RGB in
[0, 1], of any size; ImageNet's are 224 x 224.

Source: Tan and Le 2019 (arXiv 1905.11946), table 1, without squeeze-and-excitation and with ReLU6, as EfficientNet-Lite
(Google 2020) has it; stem and last convolution keep their widths. Its borders are padded as TensorFlow's "SAME".
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = (
    # kernel, stride of the first block, factor by which a block expands, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, LAST = 32, 1280
EPSILON = 1e-3
Size = tuple[int, int]


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=0.01)


def same(size: Size, kernel: int, stride: int) -> tuple[nn.Module, Size]:
    """The border that makes a convolution give ceil(size / stride) rows and columns, and their numbers."""
    after: Size = (-(-size[0] // stride), -(-size[1] // stride))
    rows, columns = (max((b - 1) * stride + kernel - a, 0) for a, b in zip(size, after, strict=True))
    # of an odd number of rows the greater part is below, and of columns to the right
    return nn.ZeroPad2d((columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)), after


class Block(nn.Module):
    """Expand, convolve each channel by itself, project: [B, cin, H, W] -> [B, cout, H / stride, W / stride]."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expand: int, size: Size) -> None:
        super().__init__()
        inside = cin * expand
        self.expands, self.adds = expand > 1, stride == 1 and cin == cout
        if self.expands:
            self._expand_conv, self._bn0, self.first = nn.Conv2d(cin, inside, 1, bias=False), norm(inside), nn.ReLU6()
        self.border, self.after = same(size, kernel, stride)
        self._depthwise_conv = nn.Conv2d(inside, inside, kernel, stride, groups=inside, bias=False)
        self._bn1, self.second = norm(inside), nn.ReLU6()
        self._project_conv, self._bn2 = nn.Conv2d(inside, cout, 1, bias=False), norm(cout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self.second(self._bn1(self._depthwise_conv(self.border(y))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Pictures [B, 3, H, W] in [0, 1] -> logits [B, classes]; what the last layer gets are 1,280 features."""

    raw = True  # engram normalises nothing: that is done here, as it was when the weights were trained

    def __init__(
        self, in_shape: tuple[int, int, int] = (3, 224, 224), classes: int = 1000, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.edge, size = same(in_shape[1:], 3, 2)
        self._conv_stem, self._bn0 = nn.Conv2d(3, STEM, 3, 2, bias=False), norm(STEM)
        self.first = nn.ReLU6()
        blocks, cin = [], STEM
        for kernel, stride, expand, cout, count in STAGES:
            for number in range(count):
                blocks.append(Block(cin, cout, kernel, stride if number == 0 else 1, expand, size))
                cin, size = cout, blocks[-1].after
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = nn.Conv2d(cin, LAST, 1, bias=False), norm(LAST)
        self.last, self.pool = nn.ReLU6(), nn.AdaptiveAvgPool2d(1)
        self.flat, self.drop = nn.Flatten(), nn.Dropout(dropout)
        self._fc = nn.Linear(LAST, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5) / 0.5
        x = self._blocks(self.first(self._bn0(self._conv_stem(self.edge(x)))))
        x = self.last(self._bn1(self._conv_head(x)))
        return self._fc(self.drop(self.flat(self.pool(x))))
