"""What trials are about and what their metrics mean, as their experiments say; and the names that older trials have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from engram.backbone.contract import Bounds, ExperimentConfig, Kind, Metric, Registered, Scalar
from engram.backbone.errors import UserError
from engram.backbone.options.schema import schema
from engram.backbone.options.spelling import spell
from engram.backbone.registry import Registry

_KNOWN: dict[str, type[ExperimentConfig]] = {}
"""Experiments whose options were looked up in this process."""


def options_of(experiment: str) -> type[ExperimentConfig]:
    """The options of an experiment; those that all have when its plugin is not installed here."""
    if experiment not in _KNOWN:
        try:
            found = Registry.discover().options("experiments", experiment)
        except (UserError, ImportError):
            found = None
        if found is None or not issubclass(found, ExperimentConfig):
            return ExperimentConfig
        _KNOWN[experiment] = found
    return _KNOWN[experiment]


def subject(experiment: str) -> Mapping[str, Kind]:
    """The options that say what a trial is about, its data and its network: flag name -> kind.

    >>> subject("backbone.train")
    {'dataset': 'datasets', 'backbone': 'backbones'}
    """
    return _subject(options_of(experiment))


def is_whole(experiment: str, options: Mapping[str, Scalar]) -> bool:
    """Whether options (by flag name) say everything that a trial works with.

    Until engram 0.3 a trial that only went on with another one's network had None for what that one had been told.

    >>> is_whole("snn.convert", {"from": "0123", "lr": None}), is_whole("snn.convert", {"from": "0123", "lr": 0.1})
    (False, True)
    """
    return all(
        option.optional or option.many or options.get(option.name, 0) is not None
        for option in schema(options_of(experiment))
        if option.options_of is None
    )


@cache
def _subject(cls: type[ExperimentConfig]) -> dict[str, Kind]:
    hints = get_type_hints(cls, include_extras=True)
    marked: dict[str, Kind | None] = {name: next(_kinds(hint), None) for name, hint in hints.items()}
    return {spell(name): kind for name, kind in marked.items() if kind == "datasets" or kind == "backbones"}


def _kinds(hint: Any) -> Iterator[Kind]:
    """The kinds of registered things that an annotation marks."""
    if get_origin(hint) is Annotated:
        for mark in get_args(hint)[1:]:
            if isinstance(mark, Registered):
                yield mark.kind
    for inner in get_args(hint):
        yield from _kinds(inner)


def declared(experiment: str) -> dict[str, Metric]:
    """The metrics an experiment promises, by name; empty when its plugin is not installed here."""
    return {metric.name: metric for metric in options_of(experiment).metrics}


def bounds_of(promised: Mapping[str, Metric], name: str) -> Bounds:
    """Between what a metric lies, by what its experiment promises; without bounds where it promises nothing of it."""
    metric = promised.get(name)
    return (None, None) if metric is None else metric.span


def today(experiment: str, options: Mapping[str, Scalar], name: str) -> str:
    """What a metric is called today that a trial with these options (by flag name) calls ``name``.

    >>> today("backbone.evaluate", {"split": "validation"}, "accuracy"), today("backbone.train", {}, "test/accuracy")
    ('validation/accuracy', 'test/accuracy')
    """
    cls = options_of(experiment)
    if name not in cls.renamed:
        return name
    plain = {field.name: field.default for field in fields(cls)}
    return cls.renamed[name].format_map({key: options.get(spell(key), value) for key, value in plain.items()})


def has_older_names(experiment: str, metrics: Iterable[str]) -> bool:
    """Whether any of them is a name of former days."""
    renamed = options_of(experiment).renamed
    return any(name in renamed for name in metrics)


def by_todays_names(experiment: str, options: Mapping[str, Scalar], metrics: Mapping[str, float]) -> dict[str, float]:
    """A trial's metrics by the names of today; where it has one by both names, the one of today counts."""
    named = {today(experiment, options, name): value for name, value in metrics.items()}
    return {name: metrics.get(name, value) for name, value in named.items()}
