"""Options of the event data sets; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.data.options import Duplicates

_Frames = Annotated[int, Ge(1), Le(1000)]


@dataclass(frozen=True, kw_only=True)
class MovingShapesOptions:
    """What the moving shapes look like."""

    frames: _Frames = 16
    """Event frames of a recording, a multiple of 4 * STROKE: every direction comes equally often."""
    stroke: Annotated[int, Ge(1)] = 2
    """Frames of a movement into one direction; what has to be remembered gets longer with it."""
    size: Annotated[int, Ge(8), Le(256)] = 16
    """Height and width in pixels."""
    samples: Annotated[int, Ge(6)] = 6000
    """Recordings to train and choose on; a quarter as many more are the test set."""
    order: Literal["natural", "shuffled"] = "natural"
    """shuffled: the frames of each recording in an order drawn by lot, the control in which no class is left."""
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Seed of the recordings, apart from the trial's."""


@dataclass(frozen=True, kw_only=True)
class SaccadesOptions:
    """How still pictures are shown to a simulated event camera."""

    frames: _Frames = 12
    """Event frames of a recording, at most 6 * TRAVEL; its three saccades take a third each."""
    travel: Annotated[int, Ge(1), Le(64)] = 6
    """Pixels that a saccade moves the picture. The sensor is that much larger than the picture."""
    size: Annotated[int, Ge(4), Le(1024)] | None = None
    """Enlarge or shrink pictures to SIZE x SIZE pixels first; None: as they are."""
    threshold: Annotated[float, Gt(0), Le(10)] = 0.35
    """Change of the logarithm of the intensity that makes an event."""
    mismatch: Annotated[float, Ge(0), Lt(0.3)] = 0.03
    """Standard deviation of the pixels' thresholds, as a share of THRESHOLD; it is the same sensor for all pictures."""
    dark: Annotated[float, Gt(0), Le(1)] = 0.2
    """Intensity of black, where white is 1 more: less makes dark pixels more sensitive."""


@dataclass(frozen=True, kw_only=True)
class TonicOptions:
    """How recordings become frames."""

    frames: _Frames = 16
    """Event frames of a recording: equal spans of time between its first and its last event."""
    pool: Annotated[int, Ge(1), Le(64)] = 1
    """Add up the events of POOL x POOL pixels."""


@dataclass(frozen=True, kw_only=True)
class EventsOptions:
    """How recordings of one's own are read and become frames."""

    frames: _Frames = 16
    """Event frames of a recording."""
    by: Literal["time", "count"] = "time"
    """time: equal spans between the first event and the last. count: equally many events."""
    window_ms: Annotated[float, Gt(0), Le(10**6)] | None = None
    """Milliseconds of a frame instead, from the first event on: later events are left out, and where a recording is
    shorter its last frames are empty."""
    most: Annotated[int, Ge(1), Le(255)] = 255
    """More events than this in a pixel of a frame count as this many; 1: whether there was any."""
    pool: Annotated[int, Ge(1), Le(64)] = 1
    """Add up the events of POOL x POOL pixels."""
    width: Annotated[int, Ge(1), Le(4096)] | None = None
    """Columns of the sensor; None: as the files say, or up to the largest of any event where they do not."""
    height: Annotated[int, Ge(1), Le(4096)] | None = None
    """Rows of the sensor; None: as for its columns."""
    crop: Annotated[int, Ge(1), Le(4096)] | None = None
    """The middle CROP x CROP pixels alone, before pooling."""
    test: Annotated[float, Gt(0), Lt(1)] | None = None
    """Share of the recordings that is the test set of a folder without one, always the same ones, of every class alike.
    None: a fifth, as of any set without a test set."""
    camera: Literal["dvs128", "davis240", "davis346"] | None = None
    """The camera of AEDAT 2 files whose text does not name it."""
    unit: Literal["s", "ms", "us", "ns"] = "us"
    """What the times in .npz, .npy and HDF5 files count."""
    duplicates: Duplicates = "keep"
    """Training recordings that are test or validation ones too, byte for byte: keep and count, drop, or refuse."""
