"""Files that an option names, known by their bytes wherever they lie; no torch here.

What was made from one knows it as ``FILE@HASH``: its name without its place, and the beginning of its sha256. Where it
lies stands in an environment variable, which workers inherit.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from engram.backbone.errors import must

_KNOWN = re.compile(r"[^/\\]+@[0-9a-f]{16}")


@dataclass(frozen=True)
class GivenFiles:
    """The files of one kind that were named so far, in this process or in the one that started it.

    Attributes:
        what: what errors call such a file.
        variable: the environment variable that names them, several with semicolons between them.
    """

    what: str
    variable: str

    def known_as(self, text: str) -> str:
        """The name of a file by what is in it, wherever it lies; such a name itself as it is.

        Raises:
            UserError: it cannot be read.
        """
        if is_known(text):
            return text
        path = Path(text).expanduser().absolute()
        name = self._name(path)
        if str(path) not in (words := self._given()):
            os.environ[self.variable] = ";".join([*words, str(path)])
        return name

    def find(self, name: str) -> Path:
        """The file that `known_as` gave this name.

        Raises:
            UserError: it was not given, or has other bytes now.
        """
        wanted = name.rpartition("@")[0]
        for path in map(Path, self._given()):
            if path.name == wanted and self._name(path) == name:
                return path
        remedy = f"Set {self.variable}=PATH/{wanted}."
        raise must(self.what, f"given as it was planned ({name})", "none that is", remedy)

    def _given(self) -> list[str]:
        return [word for word in os.environ.get(self.variable, "").split(";") if word]

    def _name(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
        except OSError as error:
            got = f"{path} ({error.strerror})"
            raise must(self.what, "a file that can be read", got, "Check the path.") from None


def is_known(name: str) -> bool:
    """Whether a name is one that `GivenFiles.known_as` gave.

    >>> is_known("net.nir@0123456789abcdef"), is_known("nets/net.nir")
    (True, False)
    """
    return bool(_KNOWN.fullmatch(name))


NETWORKS = GivenFiles("the file of --backbone", "ENGRAM_NETWORKS")
"""Networks that come as a file of another tool: ``--backbone nir:FILE``."""
