"""Every command, flag and value that anything prints exists: what a remedy advises can be typed."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from engram.backbone.brought import is_code
from engram.backbone.contract import KINDS
from engram.backbone.options.schema import schema
from engram.backbone.options.spelling import spell
from engram.backbone.registry import resolve
from engram.benchmarks.commands.argv import Place, places
from engram.benchmarks.commands.reproduce import is_in
from engram.benchmarks.planning.config import experiment_config
from engram.benchmarks.plugin import discover

TREE = Path(__file__).parents[2]
REGISTRY = discover()
EXPERIMENTS = REGISTRY.names("experiments")
HOLE = "\N{WHITE SQUARE}"  # what an f-string puts there
FLAG = re.compile(
    rf"(?<![\w-])(?<!var\()--((?:no-)?[a-z{HOLE}](?:[\w.*{HOLE}-]*[\w*{HOLE}])?)(?:[ =]([\w.:/{HOLE}-]*[\w{HOLE}]))?"
)
COMMAND = re.compile(r"(?:^|[:;`(]) *engram ([a-z]+)(?: ([a-z][\w.:/-]*\w))?")
EXTRAS = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]["optional-dependencies"]
EXTRA = re.compile(r"engram\[(\w+)\]")
# What may follow a flag in a sentence without being its value.
PROSE = [
    "a",
    "aims",
    "and",
    "as",
    "beside",
    "by",
    "comes",
    "for",
    "goes",
    "has",
    "have",
    "if",
    "in",
    "is",
    "it",
    "makes",
    "must",
    "needs",
    "none",
    "of",
    "on",
    "or",
    "out",
    "resizes",
    "shows",
    "takes",
    "that",
    "the",
    "they",
    "this",
    "to",
    "what",
    "where",
    "which",
    "whose",
    "with",
    "without",
]
# Flags of other programs, and what stands for any flag.
FOREIGN = [
    "query-gpu",
    "format",
    "nnodes",
    "nproc-per-node",
    "rdzv-backend",
    "rdzv-endpoint",
    "serve-artifacts",
    "app-name",
    "artifact-uri",
    "dst-path",
    "kills",
    "trials",
    "noheader",
    "states",
    "user",
    "state",
    "test-only",
    "wrap",
    "signal",
    "full",
    "batch",
    "jobs",
    "address",
    "no-deps",
    "error-unmatch",
    "experiment-id",
    "porcelain",
    "version",
    "host",
    "port",
    "backend-store-uri",
    "help",
    "index-url",
    "tyro-print-completion",
    "option",
    "no",
]


@dataclass(frozen=True)
class Text:
    """A piece of text that somebody may read, and where it stands."""

    where: str
    text: str


def sources() -> Iterator[Path]:
    for package in ("backbone", "snn", "causal", "continual", "feedback", "fewshot", "benchmarks", "engram/face"):
        found = sorted((TREE / package).rglob("*.py"))
        yield from (path for path in found if "perf" not in path.parts and path.name != "style.py")


def strings(path: Path) -> Iterator[Text]:
    """The texts in a module, help and errors alike; neighbouring literals are one already."""
    nodes, name = list(ast.walk(ast.parse(path.read_text()))), path.relative_to(TREE)
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else HOLE for part in node.values]
            yield Text(f"{name}:{node.lineno}", "".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield Text(f"{name}:{node.lineno}", node.value)


@cache
def texts() -> tuple[Text, ...]:
    found = [text for path in sources() for text in strings(path)]
    documents = [TREE / "README.md", TREE / "CONTRIBUTING.md", *sorted((TREE / "docs").rglob("*.md"))]
    for path in [*documents, *sorted((TREE / "benchmarks" / "suites").glob("*.toml"))]:
        code = False
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            code = code != line.startswith("```")
            # a sentence that goes on with "engram ..." in the next line is no command, and what stands in code is one
            found.append(Text(f"{path.relative_to(TREE)}:{number}", f"{'`' if code else ','}{line}"))
    return tuple(found)


@cache
def known() -> dict[str, list[Place]]:
    """Everything that some command line takes: name -> what it may mean."""
    found: dict[str, list[Place]] = {}

    def add(table: dict[str, Place]) -> None:
        for flag, place in table.items():
            found.setdefault(flag[2:], []).append(place)

    for command in REGISTRY.commands().values():
        add(places("command", resolve(command.flags)))
    for experiment in EXPERIMENTS:
        for words in every_choice(experiment):
            add(places("experiment", experiment_config(REGISTRY, experiment), REGISTRY, words))
    return found


def every_choice(experiment: str) -> Iterator[list[str]]:
    """Command lines that together name everything whose options the experiment may take."""
    yield []
    for option in schema(experiment_config(REGISTRY, experiment)):
        if option.kind is not None:
            for _, name, entry in REGISTRY.choices(option.kind):
                if entry.wraps:
                    yield [option.flag, f"{name}:glyphs"]
                elif entry.options:
                    yield [option.flag, f"{name}:x@{'0' * 16}" if entry.takes_path else name]  # as a file is known


def meant(name: str) -> list[Place]:
    """What a flag with holes may be."""
    pattern = re.compile(re.escape(name).replace(HOLE, r"[\w.-]+").replace(r"\*", r".+"))
    return [place for other, found in known().items() if pattern.fullmatch(other) for place in found]


def takes(place: Place, value: str) -> bool:
    """Whether a flag that has choices has this one."""
    option = place.option
    if option.choices:
        return value in option.choices
    if option.kind == "backbones" and is_code(value):
        return True
    if option.kind is not None:
        return value.partition(":")[0] in {
            part for name in REGISTRY.names(option.kind) for part in (name, name.split(".")[-1])
        }
    return True


def wrong_flags(text: str) -> Iterator[str]:
    for written, value in FLAG.findall(text):
        name = spell(written)
        if name in FOREIGN:
            continue
        found = meant(name) or [place for place in meant(name.removeprefix("no-")) if place.option.base is bool]
        if not found:
            yield f"--{name} is no flag"
        elif value and HOLE not in value and value not in PROSE and not value.isupper():
            taken = [any(takes(place, each) for place in found) for each in value.split(",")]
            yield from [] if all(taken) else [f"--{name} takes no {value}"]


def wrong_commands(text: str) -> Iterator[str]:
    for command, word in COMMAND.findall(text):
        if command not in (*REGISTRY.commands(), "cannot"):
            yield f"engram {command} is no command"
        elif command == "run" and word and not word.isupper() and word not in EXPERIMENTS:
            yield f"engram run {word} is no experiment"
        elif command == "list" and word and word not in KINDS:
            yield f"engram list {word} is nothing to list"
        elif command == "reproduce" and word and not any(is_in(target, word) for target in REGISTRY.targets()):
            yield f"engram reproduce {word} is no target"
    yield from (f"engram[{extra}] is no extra" for extra in EXTRA.findall(text) if extra not in EXTRAS)


@pytest.mark.parametrize("wrong", [wrong_flags, wrong_commands])
def test_what_is_named_exists(wrong):
    found = [f"{text.where}: {problem}" for text in texts() for problem in wrong(text.text)]
    assert not found, "\n".join(found)


def test_a_wrong_remedy_is_found():
    """The check itself: names and values that nothing takes, and those that something does."""
    for text in (
        "Use --hed multi.",
        "needs --head linaer",
        "Raise --backbone.widht.",
        "--no-epochs",
        "--dataset.q\N{WHITE SQUARE}",
    ):
        assert list(wrong_flags(text)), text
    for text in ("See: engram runn x", "engram run snn.konvert", "engram list things", "pip install 'engram[aval]'"):
        assert list(wrong_commands(text)), text
    for text in (
        "--head single or multi",
        "--no-normalise",
        "--strategies.\N{WHITE SQUARE}.replay-batch",
        "--dataset folder:x",
        "--by",
    ):
        assert not list(wrong_flags(text)), text
