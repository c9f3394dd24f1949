"""What the JSON files of trials and sweeps hold, by their names; a stranger's file may say anything.

Entries that are not listed may be there; those without a default must be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt
from pydantic import BaseModel, Discriminator, Field, FiniteFloat, Tag, TypeAdapter

Leaf = str | int | FiniteFloat | bool | None
Low = Leaf | list[Leaf] | dict[str, Leaf]
Middle = Leaf | list[Low] | dict[str, Low]
Tree = Leaf | list[Middle] | dict[str, Middle]
"""Values as options, facts and cells have them, nested as deep as any of them is."""
Number = Annotated[float, Ge(-1e150), Le(1e150)] | None
"""Of a metric, a figure: null where it was not finite, and of a size whose square is."""
Seconds = Annotated[float, Ge(0), Lt(1e11)]


@dataclass
class ConfigFile:
    experiment: str
    config: dict[str, Tree]
    version: int = 1
    inputs: dict[str, str] = field(default_factory=dict)
    data: dict[str, str | None] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)


@dataclass
class PrunedFile:
    why: str


@dataclass
class LaunchFile:
    device: str = "auto"
    devices: int = 1
    data_root: str = "data"
    download: bool = False
    inputs: dict[str, str] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)
    memory: int | None = None
    seconds: float | None = None
    code: str | None = None
    sweep: str | None = None
    sent: bool = False
    attempt: int = 1


@dataclass
class OrderFile:
    order: Literal["stop", "drain"]


@dataclass
class DriverFile:
    where: str


@dataclass
class LinesShape:
    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[Number, Number]]]
    lines: dict[str, Number] = field(default_factory=dict)
    x_scale: Literal["linear", "log2"] = "linear"


@dataclass
class GridShape:
    title: str
    x_label: str
    y_label: str
    columns: list[str]
    rows: list[str]
    values: list[list[Number]]

    def __post_init__(self) -> None:
        if [len(row) for row in self.values] != [len(self.columns)] * len(self.rows):
            raise ValueError("a row for every name in rows, with a value for every name in columns, is wanted")


@dataclass
class ScatterShape:
    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[Number, Number]]]
    x_ranges: dict[str, list[tuple[Number, Number]]] = field(default_factory=dict)
    y_ranges: dict[str, list[tuple[Number, Number]]] = field(default_factory=dict)
    diagonal: bool = False
    own_axes: bool = False

    def __post_init__(self) -> None:
        points = {name: len(each) for name, each in self.series.items()}
        for ranges in (self.x_ranges, self.y_ranges):
            if any(len(each) != points.get(name) for name, each in ranges.items()):
                raise ValueError("an error bar for every point of a series is wanted")


@dataclass
class BarsShape:
    title: str
    x_label: str
    y_label: str
    names: list[str]
    series: dict[str, list[Number]]
    ranges: dict[str, list[tuple[Number, Number]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held = [*self.series.values(), *self.ranges.values()]
        if any(len(each) != len(self.names) for each in held) or not set(self.ranges) <= set(self.series):
            raise ValueError("a value for every name in names is wanted, in series and in their ranges")


@dataclass
class ConfusionShape:
    title: str
    classes: list[str]
    counts: list[list[Annotated[int, Ge(0), Le(2**53)]]]

    def __post_init__(self) -> None:
        if [len(row) for row in self.counts] != [len(self.classes)] * len(self.classes):
            raise ValueError("a row and a column for every class is wanted")


@dataclass
class RasterShape:
    title: str
    x_label: str
    start: FiniteFloat
    end: FiniteFloat
    groups: dict[str, list[list[FiniteFloat]]]


@dataclass
class PicturesShape:
    title: str
    pictures: list[str]
    captions: list[str]

    def __post_init__(self) -> None:
        if len(self.captions) != len(self.pictures):
            raise ValueError("a caption for every picture is wanted")


def figure_kind(value: Any) -> str | None:
    """The kind of a figure in result.json; engram 0.3.0 and before had lines and grids, and no word for them."""
    held = value if isinstance(value, dict) else {}
    return held.get("kind", "grid" if "values" in held else "lines")


def _tag(value: Any) -> str:
    """A kind as a tag, which stands in the path to an error and is no entry's name."""
    return f"<{figure_kind(value)}>"


FigureShape = Annotated[
    Annotated[LinesShape, Tag("<lines>")]
    | Annotated[GridShape, Tag("<grid>")]
    | Annotated[ScatterShape, Tag("<scatter>")]
    | Annotated[BarsShape, Tag("<bars>")]
    | Annotated[ConfusionShape, Tag("<confusion>")]
    | Annotated[RasterShape, Tag("<raster>")]
    | Annotated[PicturesShape, Tag("<pictures>")],
    Discriminator(_tag),
]


@dataclass
class ResultFile:
    experiment: str
    trial: str
    config: dict[str, Tree]
    metrics: dict[str, Number]
    tables: dict[str, list[dict[str, Tree]]]
    artifacts: dict[str, str]
    figures: dict[str, FigureShape] = field(default_factory=dict)
    seconds: Seconds = 0.0
    ledger: str = ""
    content: str = ""


@dataclass
class ErrorFile:
    kind: str
    message: str
    traceback: str = ""


class ProvenanceFile(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, Tree] = Field(init=False)  # type: ignore[assignment]
    facts: dict[str, Tree] = {}
    resumes: list[dict[str, Tree]] = []


@dataclass
class ProgressFile:
    done: FiniteFloat
    total: FiniteFloat
    text: str
    at: Seconds
    begun: Seconds
    before: FiniteFloat


@dataclass
class CellShape:
    trial: str
    options: dict[str, Tree] = field(default_factory=dict)


@dataclass
class SearchShape:
    method: str
    objectives: list[str]


@dataclass
class PlanFile:
    trials: list[CellShape]
    axes: dict[str, list[Tree]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    suite: str = ""
    search: SearchShape | None = None


_FILES: Mapping[str, Any] = {
    "config.json": ConfigFile,
    "launch.json": LaunchFile,
    "result.json": ResultFile,
    "error.json": ErrorFile,
    "pruned.json": PrunedFile,
    "provenance.json": ProvenanceFile,
    "progress.json": ProgressFile,
    "plan.json": PlanFile,
    "order.json": OrderFile,
    "driver.json": DriverFile,
    "sink.json": dict[str, Tree],
    "contents.json": dict[str, Tree],
}


@cache
def shape_of(name: str) -> TypeAdapter[Any]:
    """The shape of the files of a name."""
    return TypeAdapter(_FILES[name])
