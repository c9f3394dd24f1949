"""The command line: argv to one handler, errors to one line and an exit code. Nothing heavy is imported here.

Exit codes: 0 done; 1 a trial failed; 2 wrong usage or configuration; 3 a gate failed; 4 another engram holds the sweep;
130 and 143 stopped by a signal.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from collections.abc import Sequence
from functools import cache

from engram.backbone.errors import TrialError, UserError, nearest
from engram.benchmarks.commands.command import invoke
from engram.benchmarks.plugin import PLUGIN, discover
from engram.benchmarks.records.layout import BUSY, Busy
from engram.benchmarks.worker.disk import trouble

_PLAIN = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{INFINITY}": "inf",
}  # signs of `engram.benchmarks.drawing.numbers`


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _write_any_text()
    try:
        return _dispatch(words)
    except UserError as error:
        return _complain(error, 2)
    except TrialError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing to complain about
        return 128 + signal.SIGPIPE
    except Busy as error:
        return _complain(error, BUSY)
    except OSError as error:
        said, code = trouble(error)
        if not said:
            raise
        return _complain(UserError(said), code)


def _dispatch(words: list[str]) -> int:
    name, *rest = words or ["help"]
    if name == "--version":
        from importlib.metadata import version

        print(f"engram {version('engram')}")
        return 0
    if name in ("-h", "--help"):
        name = "help"
    registry = cache(discover)
    command = PLUGIN.commands.get(name) or registry().commands().get(name)  # of our own none waits for plugins
    if command is None:
        known = [known for known, command in registry().commands().items() if command.summary]
        hint = nearest(name, known)
        raise UserError(f"command must be one of those offered; got {name}. {hint} See: engram --help")
    code = invoke(name, command, rest, registry)
    return code if words else 2


def _write_any_text() -> None:
    """Let an encoding that lacks a sign (ASCII, or any for a file's name that is no text) cost that sign alone."""
    codecs.register_error("engram", _in_other_signs)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="engram")


def _in_other_signs(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and (plain := _PLAIN.get(error.object[error.start])):
        return plain, error.start + 1
    return codecs.backslashreplace_errors(error)


def _complain(error: Exception, code: int) -> int:
    for line in str(error).splitlines():
        print(f"engram: {line}", file=sys.stderr)
    return code
