"""The way in to Avalanche: its strategies by name, and why some of them are refused."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engram.backbone.errors import UserError, must, nearest

INSTALL = "Install it: pip install --no-deps avalanche-lib==0.6.0, then the rest: pip install 'engram[avalanche]'."
OURS = frozenset(
    (
        *("self", "model", "optimizer", "criterion", "train_mb_size", "train_epochs", "eval_mb_size", "device"),
        *("plugins", "evaluator", "eval_every", "peval_mode", "kwargs", "base_kwargs"),
    )
)
"""Arguments of a constructor that are ours to give."""

REFUSED: Mapping[str, str] = {
    "SynapticIntelligence": "in 0.6.0 it does nothing on a CPU, where its copies of the weights are the weights "
    "themselves, and elsewhere it cuts every importance off at 0.001. Use continual.si",
    "BiC": "in 0.6.0 it calls MultiStepLR(verbose=...), which torch no longer has. Use Replay or continual.er",
    "GEM": "it needs the QP solver quadprog (GPL), which is not installed. Use AGEM or continual.agem, or install it",
    "JointTraining": "it can be trained once only, and not task by task. Use Cumulative or continual.joint",
    "AETraining": "it trains an autoencoder, not a classifier. Use Naive",
    "VAETraining": "it trains a generator, not a classifier. Use GenerativeReplay",
    "AR1": "it brings a MobileNet of its own. Use Replay or LwF",
    "LearningToPrompt": "it brings a pretrained transformer of its own. Use Replay",
    "PNNStrategy": "it needs a network that grows a column per task. Use PackNet or continual.packnet",
    "ExpertGateStrategy": "it needs its own pretrained network. Use Replay",
    "CWRStar": "it needs the name of a layer to freeze. Use Replay or EWC",
    "StreamingLDA": "it needs a frozen, pretrained network. Use ICaRL",
    "CoPE": "it needs a network that ends in features. Use ICaRL",
    "SCR": "it needs augmentations and a network that ends in features. Use Replay",
    "ER_AML": "it needs a network that ends in features. Use ER_ACE",
    "FeatureReplay": "it needs a network of its own shape. Use Replay",
    "LFL": "it needs a network whose last but one output is the features. Use LwF",
    "MER": "it trains image by image, with a loop of its own. Use Replay",
}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the deprecation warnings that Avalanche and its imports give, at import and in every task."""
    with warnings.catch_warnings(record=True):  # kept from view: ignoring is not enough, it sets filters of its own
        warnings.simplefilter("ignore")
        yield


def module(name: str) -> Any:
    """Import a module of Avalanche.

    Raises:
        UserError: it, or something it needs, is not installed.
    """
    with quiet():
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise must("avalanche-lib", "installed for strategies of Avalanche", error, INSTALL) from error


def strategies() -> Mapping[str, type]:
    """Avalanche's strategies for classifiers, by name, those that cannot be run here included."""
    found = module("avalanche.training.supervised")
    base = module("avalanche.training.templates.base").BaseTemplate
    return {name: value for name, value in vars(found).items() if isinstance(value, type) and issubclass(value, base)}


def refusal(name: str) -> str | None:
    """Why a strategy is known not to work here, without importing Avalanche; None for others and unknown ones."""
    if name not in REFUSED or (name == "GEM" and importlib.util.find_spec("quadprog")):
        return None
    return f"avalanche:{name} must be a strategy that works; got one that does not: {REFUSED[name]}."


def strategy(name: str) -> type:
    """The class ``name`` of ``avalanche.training.supervised``.

    Raises:
        UserError: there is none, or it is known not to work here.
    """
    if reason := refusal(name):
        raise UserError(reason)
    known = strategies()
    if name not in known:
        offered = sorted(set(known) - set(REFUSED))
        raise must("avalanche:NAME", "a strategy of avalanche.training.supervised", name, nearest(name, offered))
    return known[name]


def arguments(cls: type, text: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, as far as the constructor of ``cls`` takes it, and what the text adds: "NAME=VALUE,NAME=VALUE".

    Values are Python literals, everything else is a string; nothing is evaluated.

    Raises:
        UserError: the text has another form, or names what the constructor does not take; or something is missing.
    """
    parameters = inspect.signature(cls.__init__).parameters
    own = [name for name in parameters if name not in OURS]
    chosen = {name: value for name, value in given.items() if name in parameters}
    flag, takes = "--strategies.avalanche.arguments", f"{cls.__name__} takes {', '.join(own) or 'none'}."
    for part in filter(None, re.split(r",(?![^\[(]*[\])])", text.replace(" ", ""))):
        name, equals, value = part.partition("=")
        if not equals:
            raise must(flag, "NAME=VALUE with commas between", part, takes)
        if name not in own:
            raise must(flag, "arguments of the strategy that are not the stream's", name, takes)
        chosen[name] = _literal(value)
        if isinstance(chosen[name], str) and _is_number(parameters[name]):
            raise must(flag, f"a number for {name}", value, takes)
    missing = [name for name in own if parameters[name].default is inspect.Parameter.empty and name not in chosen]
    if missing:
        raise must(flag, f"given for {cls.__name__}, with {' and '.join(missing)}", repr(text), takes)
    return chosen


def _is_number(parameter: inspect.Parameter) -> bool:
    """Whether a constructor expects a number there, as far as it says."""
    kind, default = parameter.annotation, parameter.default
    return kind in (int, float, "int", "float") or type(default) in (int, float)


def _literal(text: str) -> Any:
    """Read a value.

    >>> _literal("1e-3"), _literal("[0,0.5]"), _literal("True"), _literal("online")
    (0.001, [0, 0.5], True, 'online')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
