"""The contracts between the trunk, the plugins and the runner.

Nothing here imports torch, so that help, listing, planning and validation stay instant. The names are public.
"""

from engram.backbone.contract.commands import Check, Command, Flags, Invocation, Places
from engram.backbone.contract.learning import Strategy
from engram.backbone.contract.networks import (
    ABILITIES,
    Ability,
    AnyLayout,
    Backbone,
    Calibrated,
    Composed,
    Delayed,
    Graphed,
    Initialised,
    Judged,
    Prepared,
    Recomputing,
    Site,
    Staged,
    StageMeans,
    StageSteps,
    Tap,
    Traceable,
    Whole,
)
from engram.backbone.contract.options import (
    UNIT_BOUNDS,
    Bounds,
    Direction,
    ExperimentConfig,
    Flag,
    Metric,
    OptionsOf,
    Registered,
    Requirement,
    SplitName,
)
from engram.backbone.contract.plugins import KINDS, DataFiles, Entry, Kind, Plugin
from engram.backbone.contract.results import Figure, Grid, Result
from engram.backbone.contract.running import Experiment, Services
from engram.backbone.contract.targets import Present, Target
from engram.backbone.contract.values import Named, Row, Scalar

__all__ = [
    "ABILITIES",
    "KINDS",
    "UNIT_BOUNDS",
    "Ability",
    "AnyLayout",
    "Backbone",
    "Bounds",
    "Calibrated",
    "Check",
    "Command",
    "Composed",
    "DataFiles",
    "Delayed",
    "Direction",
    "Entry",
    "Experiment",
    "ExperimentConfig",
    "Figure",
    "Flag",
    "Flags",
    "Graphed",
    "Grid",
    "Initialised",
    "Invocation",
    "Judged",
    "Kind",
    "Metric",
    "Named",
    "OptionsOf",
    "Places",
    "Plugin",
    "Prepared",
    "Present",
    "Recomputing",
    "Registered",
    "Requirement",
    "Result",
    "Row",
    "Scalar",
    "Services",
    "Site",
    "SplitName",
    "StageMeans",
    "StageSteps",
    "Staged",
    "Strategy",
    "Tap",
    "Target",
    "Traceable",
    "Whole",
]
