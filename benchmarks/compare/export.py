"""A comparison as a file: CSV and JSON for programs, Markdown and LaTeX for people, JUnit's XML for CI."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from engram.backbone.atomic import write_atomically
from engram.backbone.errors import must
from engram.backbone.tables import as_csv, as_markdown
from engram.benchmarks.compare.comparison import Comparison, group_row, task_rows
from engram.benchmarks.compare.sheets import Sheet, notes, sheets

_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{INFINITY}": r"$\infty$",
}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(comparison: Comparison, path: Path) -> None:
    """Write it in the form that the file's name ends in.

    Raises:
        UserError: the file cannot be written.
    """
    text = FORMS[path.suffix](comparison)
    try:
        write_atomically(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise must("--to", "a file that can be written", f"{path} ({error.strerror})", "Name another one.") from None


def _json(comparison: Comparison) -> str:
    return json.dumps(comparison.to_json(), indent=1) + "\n"


def _csv(comparison: Comparison) -> str:
    """A line for each group; over tasks its columns are those of both tables."""
    over = {} if comparison.tasks is None else {str(row["group"]): row for row in task_rows(comparison.tasks)}
    rows = []
    for group in comparison.groups:
        held = over.get(group.label, {})
        rows.append({**group_row(group), **{f"tasks_{name}": held[name] for name in held if name != "group"}})
    return as_csv(rows)


def _markdown(comparison: Comparison) -> str:
    parts = [f"## {comparison.title}"]
    for sheet in sheets(comparison):
        parts += [sheet.title] if sheet.title != comparison.title else []
        parts.append(as_markdown(sheet.head, sheet.rows))
    parts += notes(comparison)
    if comparison.gate is not None:
        state = "failed" if comparison.gate.tripped else "passed"
        checks = [[check.condition, check.group, check.said, _said(check.tripped)] for check in comparison.gate.checks]
        parts.append(f"Gate {state}: fail if {comparison.gate.condition}")
        parts.append(as_markdown(("fail if", "group", "found", "result"), checks))
    return "\n\n".join(parts) + "\n"


def _said(tripped: bool) -> str:
    return "failed" if tripped else "passed"


def _latex(comparison: Comparison) -> str:
    """A ``tabular`` for each table, which needs no package."""
    return "\n".join(_tabular(sheet) for sheet in sheets(comparison))


def _tabular(sheet: Sheet) -> str:
    columns = "".join("r" if name in sheet.right else "l" for name in sheet.head)
    lines = [_tex_row(row) for row in sheet.rows]
    body = [f"% {' '.join(sheet.title.split())}", f"\\begin{{tabular}}{{{columns}}}", "\\hline", _tex_row(sheet.head)]
    return "\n".join([*body, "\\hline", *lines, "\\hline", "\\end{tabular}", ""])


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(tex(cell) for cell in cells) + r" \\"


def tex(text: str) -> str:
    r"""A text that LaTeX sets as it is.

    >>> print(tex("lr=0.1_a & 95 %"))
    lr=0.1\_a \& 95 \%
    """
    return " ".join("".join(_TEX.get(sign, sign) for sign in text).split())


def _junit(comparison: Comparison) -> str:
    """A test case for every condition and group of the gate, as CI servers read them."""
    checks = comparison.gate.checks if comparison.gate is not None else ()
    failures = str(sum(check.tripped for check in checks))
    suite = ET.Element(
        "testsuite", name=f"engram compare {_plain(comparison.sweep)}", tests=str(len(checks)), failures=failures
    )
    for check in checks:
        name = f"{check.group}: {check.condition}"
        case = ET.SubElement(suite, "testcase", classname=_plain(comparison.sweep), name=_plain(name))
        if check.tripped:
            ET.SubElement(case, "failure", message=_plain(check.said)).text = _plain(
                f"{check.said}, and the gate fails if {check.condition}"
            )
    root = ET.Element("testsuites", tests=str(len(checks)), failures=failures)
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """Without the signs that XML cannot hold."""
    return _NO_XML.sub("?", text)


FORMS: Mapping[str, Callable[[Comparison], str]] = {
    ".csv": _csv,
    ".json": _json,
    ".md": _markdown,
    ".tex": _latex,
    ".xml": _junit,
}
