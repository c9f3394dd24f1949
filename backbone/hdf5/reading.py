"""A stranger's HDF5 file as plain arrays: opened once, screened before it is read, read where it can do no harm.

The screening refuses whatever reaches beyond the file (external values, links, virtual data sets), holds itself (links
in a circle, one object by two names), unfolds (a thousand times as many values as it stores, gigabytes of them) or is
no number and no text. It happens in the process that reads (`worker`), which can open no file, and whose end, by a
crash or a limit, is an error like any other.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from engram.backbone.errors import UserError, must

Tree: TypeAlias = "dict[str, Tree | np.ndarray | str]"
"""A group: names and what they hold. A data set of one text is a str, of several an object array of str, and of numbers
an array of their type (0-dimensional for one number)."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
POINTER = b"version https://git-lfs.github.com/spec"
PATIENCE = 10
"""Times the limit of processor time that the clock may show before a process is given up: the machine may be busy."""


@dataclass(frozen=True)
class Limits:
    """How much a file may ask for.

    Attributes:
        file: bytes of the file.
        values: bytes of all that it holds, unpacked.
        ratio: bytes unpacked for each stored.
        objects: groups and data sets together.
        depth: of groups in groups.
        memory: bytes of address space of the process that reads.
        seconds: processor time for one file.
    """

    file: int = 1 << 29
    values: int = 1 << 30
    ratio: int = 1000
    objects: int = 20_000
    depth: int = 16
    memory: int = 1 << 32
    seconds: int = 60


class Reader:
    """Reads HDF5 files in a process that serves for many; a context manager.

    The process is started for the first file, and anew after one that ended it.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, file: Path, remedy: str = "Make the file again.") -> Tree:
        """What a file holds.

        Args:
            file: read once, whole.
            remedy: ends every error: what to do for another file.

        Raises:
            UserError: it cannot be opened, is no HDF5 file, is damaged, or is refused.
        """
        return self.tree(contents(file, self.limits.file, remedy), str(file), remedy)

    def tree(self, image: bytes, name: str, remedy: str = "Make the file again.") -> Tree:
        """What a file holds whose bytes are there already.

        Raises:
            UserError: as `read`.
        """
        if not any(image.startswith(SIGNATURE, place) for place in _places(len(image))):
            pointer = "; it is a pointer of Git's large-file store" if image.startswith(POINTER) else ""
            got = f"something that is not an HDF5 file{pointer}"
            raise must(name, "an HDF5 file", got, "Fetch it with: git lfs pull" if pointer else remedy)
        if importlib.util.find_spec("h5py") is None:
            raise UserError(f"{name} must be read with h5py, which is not installed. pip install 'engram[snn]'")
        header, values = self._answer(image, name, remedy)
        if "refused" in header:
            raise must(name, "a file that says all of itself, plainly", f"one with {header['refused']}", remedy)
        if "damaged" in header:
            raise must(name, "a whole HDF5 file", f"a damaged one ({header['damaged']})", remedy)
        return _built(header["file"]["group"], io.BytesIO(values))

    def _answer(self, image: bytes, name: str, remedy: str) -> tuple[dict[str, Any], bytes]:
        process = self._begin()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Timer(PATIENCE * self.limits.seconds, process.kill)
        late.start()
        try:
            limits = json.dumps(asdict(self.limits)).encode()
            process.stdin.write(len(limits).to_bytes(8, "little") + len(image).to_bytes(8, "little") + limits)
            process.stdin.write(image)
            process.stdin.flush()
            length = int.from_bytes(_whole(process.stdout, 8), "little")
            header = json.loads(_whole(process.stdout, length))
            return header, _whole(process.stdout, _size(header.get("file", {})))
        except (OSError, EOFError) as error:
            status = self._end()
            reason = f"one that ends the process that reads it (exit status {status})"
            raise must(name, "a whole HDF5 file", reason, remedy) from error
        finally:
            late.cancel()

    def _begin(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            # Filters come as plugins from folders, so there are none; BLAS would reserve address space per thread.
            surroundings = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
            command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=surroundings
            )
        return self.process

    def _end(self) -> int | None:
        process, self.process = self.process, None
        if process is None:
            return None
        assert process.stdin is not None and process.stdout is not None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what could not be written is not missed
                pipe.close()
        return process.wait()


def read(file: Path, limits: Limits | None = None, remedy: str = "Make the file again.") -> Tree:
    """What one HDF5 file holds.

    Raises:
        UserError: as `Reader.read`.
    """
    with Reader(limits) as reader:
        return reader.read(file, remedy)


def contents(file: Path, most: int, remedy: str) -> bytes:
    """A file's bytes, of a plain file of at most so many.

    Raises:
        UserError: it cannot be read, is none, or is larger.
    """
    try:
        if not file.is_file():  # before it is opened: a pipe would wait for its other end
            raise must(str(file), "a file", "a folder or a device" if file.exists() else "nothing there", remedy)
        with file.open("rb") as held:
            image = held.read(most + 1)
    except OSError as error:
        raise must(str(file), "a file that can be read", error.strerror or type(error).__name__, remedy) from error
    if len(image) > most:
        raise must(str(file), f"a file of at most {most} bytes", "a larger one", remedy)
    return image


def _places(size: int) -> list[int]:
    """Where the signature may stand: at the beginning, or behind a block of 512 bytes times a power of two."""
    return [0, *(512 << power for power in range(max(size // 512, 1).bit_length()))]


def _whole(pipe: Any, size: int) -> bytes:
    found = pipe.read(size)
    if len(found) < size:
        raise EOFError
    return found


def _size(node: Mapping[str, Any]) -> int:
    if "group" in node:
        return sum(map(_size, node["group"].values()))
    return np.dtype(node["dtype"]).itemsize * math.prod(node["shape"]) if "dtype" in node else 0


def _built(group: Mapping[str, Any], values: io.BytesIO) -> Tree:
    made: Tree = {}
    for name, node in group.items():
        if "group" in node:
            made[name] = _built(node["group"], values)
        elif "texts" in node:
            texts = np.array(node["texts"], object).reshape(node["shape"])
            made[name] = node["texts"][0] if texts.ndim == 0 else texts
        else:
            flat = np.frombuffer(bytearray(values.read(_size(node))), node["dtype"])
            made[name] = flat.reshape(node["shape"])
    return made
