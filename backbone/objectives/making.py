"""An objective from its registered name."""

from __future__ import annotations

from engram.backbone.contract import Objective, ObjectiveSetting
from engram.backbone.objectives.columns import columns_of
from engram.backbone.objectives.options import ObjectiveOptions
from engram.backbone.options import options_of
from engram.backbone.registry import Registry


def objective_of(chosen: ObjectiveOptions, setting: ObjectiveSetting) -> Objective:
    """The objective that options name.

    Raises:
        UserError: an option cannot be, or the data lack a column that it needs.
    """
    registry = Registry.discover()
    options = options_of(registry, "objectives", chosen.objective, chosen.objective_options)
    found: Objective = registry.load("objectives", chosen.objective)(options, setting)
    columns_of(setting.data, found.columns, "cpu")
    return found
