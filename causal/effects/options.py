"""What values are set to; no torch here."""

from __future__ import annotations

from typing import Literal

SetTo = Literal["mean", "resample", "zero"]
"""In place of its own value: the mean over training images, cell by cell and step by step; what the place has for
another picture; zero, which most networks never have everywhere."""
