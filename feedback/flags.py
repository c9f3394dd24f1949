"""``--steps`` and ``--connections`` of experiments that train a network with feedback; no torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from annotated_types import Ge

from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.options.named import short
from engram.backbone.registry import Registry
from engram.feedback.connections import Written

PREFIX = "feedback."
"""What the names of adapters begin with that add feedback."""


def with_feedback(adapters: Iterable[str]) -> tuple[str, ...]:
    """Those of some adapters that add feedback, in their order."""
    return tuple(name for name in adapters if name.startswith(PREFIX))


def without_feedback(adapters: Iterable[str]) -> tuple[str, ...]:
    """The other ones."""
    return tuple(name for name in adapters if not name.startswith(PREFIX))


def options_for(options: Mapping[str, Any], adapters: Iterable[str]) -> dict[str, Any]:
    """The options of some adapters among those of more."""
    beginnings = tuple(f"{short(name)}." for name in adapters)
    return {key: value for key, value in options.items() if key.startswith(beginnings)}


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig(TrainConfig):
    """Train a network with an adapter that adds feedback, whose steps and connections have flags of their own."""

    steps: Annotated[int, Ge(1)] | None = None
    """Steps of the adapter that adds feedback, as --adapter.steps says it. None: the adapter's own."""
    connections: Annotated[str, Written()] | None = None
    """What leads back in it, as --adapter.connections says it: layer3>layer1,logits>layer2 and so on. None: the
    adapter's own."""

    @classmethod
    def spelled_out(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, with these two among the options of the adapter, and the other way round.

        Raises:
            UserError: no adapter takes them, or its own options say something else.
        """
        values, problems = dict(given), list[UserError]()
        adapters = with_feedback(values.get("adapter", ()))
        for name in ("steps", "connections"):
            value, taking = values.get(name), [each for each in adapters if _takes(each, name)]
            options = dict(values.get("adapter_options", {}))
            keys = [f"{short(each)}.{name}" for each in taking]
            if value is not None and not keys:
                got = ", ".join(values.get("adapter", ())) or "none"
                rule = f"left out without an adapter that has {name}"
                problems.append(
                    must(f"--{name}", rule, f"{value}, with --adapter {got}", "Add --adapter feedback.gated.")
                )
            problems += [
                must(f"--{name}", "what the adapter's own option says", value, f"Drop it, or --adapter.{name}.")
                for key in keys
                if value is not None and options.get(key, value) != value
            ]
            if value is not None:
                values["adapter_options"] = {**options, **dict.fromkeys(keys, value)}
            elif len(keys) == 1 and keys[0] in options:
                values[name] = options[keys[0]]
        if problems:
            raise UserError("\n".join(map(str, problems)))
        return values


def _takes(adapter: str, option: str) -> bool:
    cls: Any = Registry.discover().options("adapters", adapter)
    return cls is not None and option in {field.name for field in fields(cls)}
