"""The JSON files of trials and sweeps: written whole, with a checksum, and read with their shape checked.

The checksum is the last entry, the sha256 of all lines before it (``head -n -2 FILE | sha256sum``). Files that engram
0.2.0 wrote have none and are taken as they are.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from engram.backbone.atomic import write_atomically
from engram.backbone.errors import UserError
from engram.benchmarks.records.inside import open_inside
from engram.benchmarks.records.shapes import shape_of

_SEAL = re.compile(rb' "(.{6})": "([0-9a-f]{64})"\n\}\n', re.DOTALL)
_SEAL_SIZE = 80
_LONGEST_INTEGER = 300  # digits: all of them are floats, too


class Damaged(UserError):
    """A file is not what was written, or says something of another shape; ``why`` is what is wrong with it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} must be whole; got {why}. Bring it back, or run what made it again.")
        self.why = why


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = False) -> None:
    """Replace a file in one step; ``durable`` also survives a power cut."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    head = f"{text[:-2]},\n".encode() if value else b"{\n"
    write_atomically(path, head + f' "sha256": "{sha256(head).hexdigest()}"\n}}\n'.encode(), durable=durable)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``, of the shape that files of its name have; empty where there is no such file.

    Raises:
        Damaged: its bytes are not what was written, or what it says has another shape.
    """
    try:
        raw = read_bytes(path)
        value, checked = _unsealed(raw, path.name)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Damaged(path, f"a file that is not readable here ({error.strerror})") from None
    except ValueError as error:
        raise Damaged(path, str(error)) from None
    if not checked and (why := misfit(path.name, raw)):
        raise Damaged(path, why)
    return value


def held(path: Path) -> dict[str, Any]:
    """As `read_json`, for what is made anew where it is damaged: empty then."""
    try:
        return read_json(path)
    except Damaged:
        return {}


def misfit(name: str, raw: bytes | str) -> str:
    """What is wrong with the shape of JSON for a file of that name; "" when nothing is."""
    try:
        shape_of(name).validate_json(raw, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return f"{_where(json.loads(raw), found[0]['loc'])} {_what(found)}"
    return ""


def _where(value: Any, loc: tuple[int | str, ...]) -> str:
    """The path to an entry; what pydantic tried there beside is no part of it."""
    parts = []
    for part in loc:
        try:
            value = value[part]
        except (LookupError, TypeError):
            continue
        parts.append(str(part))
    return ".".join(parts) or "a file"


def _what(errors: list[Any]) -> str:
    first = errors[0]
    if first["type"] == "missing":
        return f"without {first['loc'][-1]}"
    return "of another type" if len(errors) > 1 else f"that is wrong ({first['msg'][0].lower()}{first['msg'][1:]})"


def read_bytes(path: Path) -> bytes:
    """All of a file, and of no other folder's.

    Raises:
        OSError: it cannot be read.
    """
    with open_inside(path.parent, path.name) as file:
        return file.read()


def decoded(text: bytes) -> dict[str, Any]:
    """The JSON object in ``text``; numbers that no float holds and endless nesting are errors like any other.

    Raises:
        ValueError: there is none.
    """
    try:
        value = _DECODER.decode(text.decode())
    except UnicodeDecodeError:
        raise ValueError("bytes that are no text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no whole JSON ({error})" if text else "an empty file") from None
    except RecursionError:
        raise ValueError("endless nesting") from None
    if not isinstance(value, dict):
        raise ValueError(f"{_NAMES[type(value)]} instead of an object")
    return value


def _unsealed(raw: bytes, name: str) -> tuple[dict[str, Any], bool]:
    """(the object in a file without its checksum, which must be right where there is one, whether its shape was looked
    at).

    Raises:
        ValueError: it is not what was written.
    """
    seal = _SEAL.fullmatch(raw, max(0, len(raw) - _SEAL_SIZE))
    if seal is not None and (seal[1], seal[2].decode()) != (b"sha256", sha256(raw[: seal.start()]).hexdigest()):
        raise ValueError("other bytes than were written (sha256)")
    value = _quickly(raw, name)
    checked = value is not None
    value = decoded(raw) if value is None else value
    if seal is None and "sha256" in value:
        raise ValueError("a damaged checksum")
    value.pop("sha256", None)
    return value, checked


def _quickly(raw: bytes, name: str) -> dict[str, Any] | None:
    """As `decoded` and `misfit`, in half of their time, for what nothing is wrong with; else None.

    Numbers that no float holds are no `Leaf` of any shape, but for integers: of those with more digits than
    `_LONGEST_INTEGER` one block of half as many is digits alone.
    """
    half = _LONGEST_INTEGER // 2
    if any(raw[at : at + half].isdigit() for at in range(0, len(raw), half)):
        return None
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) and not misfit(name, raw) else None


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text}, which no float holds")
    return value


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float)
_NAMES = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value", type(None): "null"}
