"""Options of the data sets made here; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt

Seed = Annotated[int, Ge(0), Lt(2**31)]
Share = Annotated[float, Ge(0), Le(1)]
Difficulty = Literal[
    "magnitude-large",
    "magnitude-medium",
    "magnitude-small",
    "variance-low",
    "variance-medium",
    "variance-high",
]
SHORTCUTS = {
    "colour": ("colour",),
    "double-colour": ("foreground_colour", "background_colour"),
    "texture": ("foreground_texture", "background_texture"),
    "patch": ("patch",),
    "background": ("background",),
}
"""The columns of each kind of bias: of which class an image's colour is, and so on; -1: it has none."""
PATCH = "patch"


@dataclass(frozen=True, kw_only=True)
class ColouredOptions:
    """How many digits are coloured, and whether the colour can be seen."""

    environment_images: Annotated[int, Ge(2)] | None = None
    """Images of every environment: the first of all that it has. None: all."""
    grey: bool = False
    """Show every digit in both channels, so that its colour cannot be seen: the grey oracle."""
    seed: Seed = 0
    """Seed of what is drawn by lot, apart from the trial's: which images an environment has, labels and colours."""


@dataclass(frozen=True, kw_only=True)
class BiasedOptions:
    """Which shortcut tells the class, how often, and where."""

    bias: Literal["colour", "double-colour", "texture", "patch", "background"] = "colour"
    """What tells the class of a training image. colour: that of the object. double-colour: that of the object and that
    of what is behind it, each by lots of its own. texture: the same with textures. patch: a square in a corner.
    background: the colour behind the object, as SpuCoMNIST has it."""
    aligned: Share | None = None
    """Share of the training images whose shortcut is that of their class; the others have any other class's. None: 0.99
    for colour and patch, 0.995 for background, all of them for double-colour and texture."""
    watermark: bool = False
    """A square in a corner as well, by lots of its own: several shortcuts at once."""
    colour_severity: Literal[1, 2, 3, 4, 5] = 4
    """How exactly a class's colour is met with colour and double-colour: a standard deviation of 0.05, 0.02, 0.01,
    0.005 or 0.002 in each channel, where white is 1."""
    difficulty: Difficulty = "magnitude-large"
    """How much of what is behind the object has the colour, with background, in 28x28 pixels. magnitude: all of it, a
    corner of 4x4 or of 2x2. variance: a corner of 7x7, or 49 pixels that each image draws anew from a corner of 14x14
    or from all."""
    label_noise: Share = 0.0
    """Share of the training images whose label is any other class."""
    feature_noise: Share = 0.0
    """Share of the training images whose object lacks 6 of 10 pixels."""
    test_bias: Literal["random", "own", "other", "none"] = "random"
    """The shortcut of test images: that of any class, each equally often; of their own class; of any other; or none,
    the object alone."""
    unbiased_validation: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the training images that become a validation part with shortcuts at random. 0: what --validation holds
    out is biased like what is trained on."""
    pairs: bool | None = None
    """Two classes as one, 0 and 1, 2 and 3 and so on. None: with background in a set of ten
    classes, as SpuCoMNIST has it."""
    bias_seed: Seed = 0
    """Seed of what is drawn by lot, apart from the trial's."""

    @property
    def shortcuts(self) -> tuple[str, ...]:
        """The columns of the shortcuts."""
        found = SHORTCUTS[self.bias]
        return (*found, PATCH) if self.watermark and PATCH not in found else found


@dataclass(frozen=True, kw_only=True)
class BackgroundsOptions:
    """What the objects of test images stand before."""

    backgrounds: Literal["random", "same", "none"] = "random"
    """The background of every test image: that of any other one (mixed-random), of another one of its class
    (mixed-same), or black (only the foreground)."""
    background_seed: Seed = 0
    """Seed of the choice, apart from the trial's."""
