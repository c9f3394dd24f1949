"""Options of the datasets made of picture files; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt

Duplicates = Literal["keep", "drop", "refuse"]
Which = Literal["usual", "own", "disjoint"]
"""Which parts of a set are read, see `PartOptions`."""
COLUMNS, BY_GROUP, BY_ENVIRONMENT = "--dataset.columns", "--dataset.group", "--dataset.environment"
"""The options that ask for columns, as they are spelled."""


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """How picture files become tensors."""

    size: Annotated[int, Ge(1), Le(4096)] | None = None
    """Resize every picture to SIZE x SIZE pixels; None: all pictures must have one size already."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; None: as the pictures are."""
    duplicates: Duplicates = "keep"
    """Training images that are test or validation images too, pixel for pixel: keep and count, drop, or refuse."""


@dataclass(frozen=True, kw_only=True)
class PartOptions(PictureOptions):
    """What is read of a set beside pictures and labels."""

    parts: Which = "usual"
    """usual: train and test, of the same classes. own: its validation part too, which is then chosen on, whatever the
    share of --validation. disjoint: all parts, each with classes that no other has, for few-shot episodes; a folder's
    may be lists: train.csv, val.csv, test.csv of filename,label beside images, or splits/NAME/*.txt beside data."""
    columns: str | None = None
    """What else to read of every picture: names of columns, separated by commas. A table's own columns; of a folder
    those of the files metadata.csv in it, which say in file_name what they speak of, and file_name itself."""
    group: str | None = None
    """A column, of those or of a name pattern: what it says of a picture is, with the class, the picture's subgroup
    (cat, indoors)."""
    environment: str | None = None
    """A column, of those or of a name pattern, that says where a picture comes from."""

    @property
    def asked(self) -> dict[str, str]:
        """The names of the columns, each with the option that asks for it."""
        names = tuple(name.strip() for name in (self.columns or "").split(",") if name.strip())
        return {**dict.fromkeys(names, COLUMNS), **{name: flag for flag, name in self.sorting.items()}}

    @property
    def sorting(self) -> dict[str, str]:
        """The columns by which pictures are sorted, by the option that names them."""
        given = {BY_GROUP: self.group, BY_ENVIRONMENT: self.environment}
        return {flag: name for flag, name in given.items() if name is not None}


@dataclass(frozen=True, kw_only=True)
class FolderOptions(PartOptions):
    """What is read of a folder."""

    name_pattern: str | None = None
    """A regular expression that the name of every file begins with; its named groups are columns, for example
    (?P<crystal>mono|poly)-."""


@dataclass(frozen=True, kw_only=True)
class OmniglotOptions(PictureOptions):
    """Which of Omniglot's characters are learned and which are tested."""

    split: Literal["within", "lake", "lake-chosen", "vinyals"] = "within"
    """within: a fifth of every character is the test set. The others have classes of their own in every part, for
    few-shot episodes. lake: the published background and evaluation sets (Lake et al. 2015); lake-chosen: with five
    alphabets of the background set, those of vinyals, to choose options by. vinyals: 1,028, 172 and 423 characters to
    train, choose and test on, each of the four quarter turns of one a class (Vinyals et al. 2016)."""
    background: Literal["small1", "small2", "small", "full"] | None = None
    """Of what lake and vinyals train on, the characters of one of the two minimal background sets of five alphabets
    each, of both (small; Latin and Greek stand in each), or of the whole background set. None: all of it."""


@dataclass(frozen=True, kw_only=True)
class GlyphsOptions:
    """Which characters are made, and how many drawings of them."""

    classes: Annotated[int, Ge(2), Le(100_000)] = 1000
    """Characters to train on; fewer are the first of these."""
    held_out: Annotated[int, Ge(2), Le(10_000)] = 200
    """Characters to choose on, and as many more to test on: the same ones however many are trained on."""
    drawings: Annotated[int, Ge(2), Le(1000)] = 20
    """Drawings of each character, each by another writer."""
    size: Annotated[int, Ge(12), Le(256)] = 28
    """Height and width in pixels."""
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Seed of the characters, apart from the trial's."""


@dataclass(frozen=True, kw_only=True)
class DigitClutterOptions:
    """What occludes the digits, and how many images are made of them."""

    kind: Literal["clutter", "debris"] = "clutter"
    """clutter: 3, 4 or 5 digits of different classes, painted one over another; all of them are asked for. debris: one
    digit under 10, 30 or 50 fragments of digits."""
    amount: Literal["light", "moderate", "heavy"] = "light"
    """How many digits or fragments: light 3 or 10, moderate 4 or 30, heavy 5 or 50."""
    train_images: Annotated[int, Ge(2), Le(10_000_000)] = 100_000
    """Images to train on, made of pictures that no other part shows."""
    validation_images: Annotated[int, Ge(1), Le(10_000_000)] = 10_000
    """Images to choose on, whatever the share of --validation; with --validation 0 nothing is done with them."""
    test_images: Annotated[int, Ge(1), Le(10_000_000)] = 10_000
    """Images to test on, made of the test pictures."""
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Seed of the images, apart from the trial's."""
