"""Where Lava is: an environment of its own on Python 3.10, found, made and looked into.

`ENGRAM_LAVA` names its python; else it is the one in the user's cache that ``engram doctor --install lava`` makes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

from engram.backbone.caching import user_cache
from engram.backbone.contract import Check, Places
from engram.backbone.errors import TrialError, UserError, must

VARIABLE = "ENGRAM_LAVA"
VERSION = "0.10.0"
INSTALL = "Give engram doctor --install lava."
_SAYS = "import sys; print('%d.%d' % sys.version_info[:2])"
_LAVA = (
    "import lava.proc.lif.process, lava.proc.conv.models, lava.proc.sdn.models; "
    "from importlib.metadata import version; print(version('lava-nc'))"
)


def folder() -> Path:
    """Where the environment is made."""
    return user_cache(f"lava-{VERSION}")


def find() -> Path:
    """The python of Lava's environment; whether it works is not tried (`fault`).

    Raises:
        UserError: there is none.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise must(VARIABLE, "the python of an environment with Lava", named, f"Unset it, or {_lower(INSTALL)}")
        return Path(named)
    python = _python_of(folder())
    if not python.is_file():
        raise must("Lava", "in an environment of its own on Python 3.10", f"nothing in {folder()}", INSTALL)
    return python


def fault(python: Path) -> str | None:
    """Why Lava cannot be used there, in one line; None where it can. It takes a second or two."""
    try:
        found = _told([str(python), "-I", "-c", _LAVA])
    except UserError as error:
        return str(error)
    return None if found == VERSION else f"lava-nc {VERSION} is needed, and {found} is there"


def install(say: Callable[[str], None]) -> str:
    """Make the environment anew, and say where it is.

    Args:
        say: is told what is being done.

    Raises:
        UserError: there is no Python 3.10.
        TrialError: pip failed, or what it installed does not work.
    """
    python, target = python310(), folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".lava-", dir=target.parent))
    try:
        say(f"making an environment with {python}")
        _run([python, "-m", "venv", str(making)])
        say(f"installing lava-nc {VERSION} and what it needs")
        with as_file(files("engram.snn.loihi.lava") / "lava-constraints.txt") as pinned:
            _run([str(_python_of(making)), "-m", "pip", "install", "-r", str(pinned)])
        if why := fault(_python_of(making)):
            raise TrialError(f"the new environment does not work: {why}")
        if target.exists():
            shutil.rmtree(target)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return f"Lava {VERSION} in {target}"


def python310() -> str:
    """A Python 3.10 that runs: on PATH, of pyenv, or of uv.

    Raises:
        UserError: there is none.
    """
    for each in _candidates():
        try:
            if _told([each, "-I", "-c", _SAYS]) == "3.10":
                return each
        except UserError:
            continue
    ways = "uv python install 3.10, pyenv install 3.10, or the system's package python3.10 with python3.10-venv"
    raise must("Python 3.10", "on PATH, in pyenv or in uv, for Lava", "none that runs", f"Install it: {ways}.")


def check(places: Places) -> Iterator[Check]:
    """The row of ``engram doctor``."""
    without = "networks of chip integers are simulated, not checked against it"
    try:
        python = find()
    except UserError as error:
        if os.environ.get(VARIABLE):
            yield Check("Lava", "bad", str(error))
        else:
            yield Check("Lava", "ok", f"not installed: {without}; engram doctor --install lava makes an environment")
        return
    if why := fault(python):
        remedy = f"Unset {VARIABLE}, or mend that environment." if os.environ.get(VARIABLE) else INSTALL
        yield Check("Lava", "bad", why, remedy)
    else:
        yield Check("Lava", "ok", f"lava-nc {VERSION} with {python}")


def _candidates() -> Iterator[str]:
    """Pythons that may be 3.10; a shim on PATH need not run."""
    if sys.version_info[:2] == (3, 10):
        yield sys.executable
    if found := shutil.which("python3.10"):
        yield found
    roots = [Path(root) for root in (os.environ.get("PYENV_ROOT"),) if root] + [Path.home() / ".pyenv"]
    for root in dict.fromkeys(roots):
        yield from (str(_python_of(version)) for version in sorted(root.glob("versions/3.10*"), reverse=True))
    if uv := shutil.which("uv"):
        try:
            yield _told([uv, "python", "find", "3.10"])
        except UserError:
            return


def _python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _told(command: list[str]) -> str:
    """What a short command prints last.

    Raises:
        UserError: it cannot run, or fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{command[0]} does not run ({error})") from error
    if done.returncode:
        raise UserError(f"{command[0]} fails: {_last(done.stderr)}")
    return _last(done.stdout)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise TrialError(f"{command[0]} does not run ({error})") from error
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if "error" in line.lower()]
        why = " ".join(said[-2:]) or _last(done.stderr or done.stdout)
        raise TrialError(f"{' '.join(command[1:4])} failed: {why}")


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["nothing said"])[-1].strip()


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
