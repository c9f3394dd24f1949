"""Networks that come as code of the user's own, without a package: ``FILE.py:Class`` or ``package.module:Class``.

What was made from such code knows it as ``FILE.py:Class@HASH``, by the file's name without its place and the beginning
of its sha256. Only code that the user named is ever imported: on the command line, in a suite, in Python, or in the
variable ``ENGRAM_CODE``. A saved network names the code it needs; whoever loads it names the code again.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Optional, Union

from engram.backbone.errors import UserError, must

VARIABLE = "ENGRAM_CODE"
"""Environment variable that names code, several with semicolons between them. Workers inherit it."""
_GIVEN = re.compile(r"(?P<where>.+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<cls>[A-Za-z_]\w*)")
_SAVED = re.compile(r"(?P<name>[^/\\]+:[A-Za-z_]\w*)@(?P<hash>[0-9a-f]{16})")
_FILLED = ("in_shape", "in_channels")
"""Arguments that follow from the data: (C, H, W) of an image, and C."""
_TYPES: Mapping[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "None": None, "Literal": Literal}
_TYPES = {**_TYPES, "Optional": Optional, "Union": Union}


@dataclass(frozen=True)
class Code:
    """A class in a file.

    Attributes:
        where: the file or the module as it was given; a file as an absolute path.
        cls: the name of the class.
        path: the file.
        text: its content.
    """

    where: str
    cls: str
    path: Path
    text: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    @property
    def name(self) -> str:
        """What configurations and saved networks call it."""
        base = Path(self.where).name if self.where.endswith(".py") else self.where
        return f"{base}:{self.cls}@{self.sha256[:16]}"

    @property
    def filled(self) -> tuple[str, ...]:
        """The arguments of the constructor that follow from the data."""
        names = [argument.arg for argument, _ in self._arguments()]
        return tuple(name for name in _FILLED if name in names)

    def options(self) -> type | None:
        """The other arguments as a dataclass of options, None where there are none; read from the text, not imported.

        Raises:
            UserError: the file is no Python, has no such class, or an argument's type or default cannot be read.
        """
        fields: list[tuple[str, Any, Any]] = []
        missing: list[str] = []
        for argument, default in self._arguments():
            if argument.arg in _FILLED:
                continue
            if default is None:
                missing.append(argument.arg)
                continue
            what = f"argument {argument.arg!r} of {self.name}"
            value = _literal(what, default)
            fields.append((argument.arg, _type(what, argument.annotation, value), value))
        if missing:
            rule = "given defaults, or be called in_shape or in_channels"
            raise must(f"arguments of {self.name}", rule, ", ".join(missing), "Write one: def __init__(self, n=10).")
        return make_dataclass("Options", fields, frozen=True, kw_only=True) if fields else None

    def _arguments(self) -> list[tuple[ast.arg, ast.expr | None]]:
        try:
            tree = ast.parse(self.text)
        except (SyntaxError, ValueError) as error:
            raise must(f"the file {self.path}", "Python", error, "Mend it.") from None
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        if self.cls not in classes:
            known = ", ".join(classes) or "none"
            raise must(
                f"a class of {self.path}", f"one that is written there ({known})", self.cls, "Name one of these."
            )
        for node in classes[self.cls].body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                places, keys = [*node.args.posonlyargs, *node.args.args][1:], node.args.kwonlyargs
                defaults = [None] * (len(places) - len(node.args.defaults)) + node.args.defaults
                return [*zip(places, defaults, strict=True), *zip(keys, node.args.kw_defaults, strict=True)]
        return []


def is_code(name: str) -> bool:
    """Whether a name is one of code, as it is given or as it is saved.

    >>> [is_code(name) for name in ("nets/mine.py:Net", "package.module:Net", "mine.py:Net@0123456789abcdef", "mlp")]
    [True, True, True, False]
    """
    return bool(_GIVEN.fullmatch(name) or _SAVED.fullmatch(name))


def find(name: str) -> Code:
    """The code of that name; under its saved name only what was given.

    Raises:
        UserError: there is no such file, or the code that a saved network needs was not given, or is another one now.
    """
    if _SAVED.fullmatch(name):
        return _again(name)
    found = _read(name)
    if (word := f"{found.where}:{found.cls}") not in _words():
        os.environ[VARIABLE] = ";".join([*_words(), word])
    return found


def given() -> Iterator[Code]:
    """All code that was named so far, in this process or in `VARIABLE`."""
    for word in _words():
        try:
            yield _read(word)
        except UserError:  # whoever needs it says so
            continue


def _words() -> list[str]:
    return [word for word in os.environ.get(VARIABLE, "").split(";") if word]


def _again(name: str) -> Code:
    match = _SAVED.fullmatch(name)
    assert match is not None  # the caller looked
    alike = [code for code in given() if code.name.partition("@")[0] == match["name"]]
    for code in alike:
        if code.name == name:
            return code
    rule = f"given again as it was (sha256 {match['hash']}...)"
    got = f"{alike[0].path} with sha256 {alike[0].sha256[:16]}..." if alike else "none"
    remedy = f"Set {VARIABLE}=PATH/{match['name']}, or name it in Python: engram.load(TRIAL, code=...)."
    raise must(f"the code {match['name']} of a network", rule, got, remedy)


def _read(name: str) -> Code:
    match = _GIVEN.fullmatch(name)
    if match is None:
        raise must("code", "FILE.py:Class or package.module:Class", repr(name), "Name the class after a colon.")
    where = match["where"]
    if where.endswith(".py"):
        path = Path(where).expanduser().absolute()
        where = str(path)
    else:
        path = _file_of(where)
    try:
        return Code(where, match["cls"], path, path.read_bytes())
    except OSError as error:
        raise must("code", "a Python file that can be read", f"{path} ({error.strerror})", "Check the path.") from None


def _file_of(module: str) -> Path:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        remedy = "Install it, or write FILE.py:Class."
        raise must("code", "of a module that can be found", repr(module), remedy)
    return Path(spec.origin)


def _literal(what: str, default: ast.expr) -> Any:
    try:
        return ast.literal_eval(default)
    except ValueError:
        raise must(
            f"the default of {what}", "a plain value", ast.unparse(default), "Write a number or a text."
        ) from None


def _type(what: str, annotation: ast.expr | None, default: Any) -> Any:
    """A type that options can have, from its annotation, or from the default where there is none."""
    if annotation is None:
        kind = type(default)
        known = kind in (int, float, bool, str)
        annotation = ast.Name(kind.__name__) if known else None
    text = "" if annotation is None else ast.unparse(annotation).strip("'\"")
    words = re.findall(r"[A-Za-z_][\w.]*", re.sub(r"'[^']*'|\"[^\"]*\"", "", text))
    if not text or any(word.rpartition(".")[2] not in _TYPES for word in words):
        rule = "int, float, bool, str, Literal of them, or one of them or None"
        raise must(f"the type of {what}", rule, text or "none", "Annotate it.")
    return eval(re.sub(r"\btyping\.", "", text), {"__builtins__": {}}, dict(_TYPES))  # noqa: S307 - of these words alone
