"""What a file cannot say of a network: what it could say in its place, and what it never can."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Losses:
    """Gathered while a network is written; all of them are told together.

    Attributes:
        lines: what can be approximated.
        final: what cannot.
    """

    lines: list[str] = field(default_factory=list)
    final: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Something that is written otherwise where approximations are allowed."""
        self.lines.append(line)

    def never(self, line: str) -> None:
        """Something that nothing in the format stands for."""
        self.final.append(line)

    def refused(self, allow_approximate: bool) -> list[str]:
        """What is in the way of writing."""
        return self.final if allow_approximate else [*self.final, *self.lines]
