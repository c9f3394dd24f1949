"""What `engram stop` leaves in a sweep's folder for its driver, wherever that runs."""

from __future__ import annotations

from pathlib import Path

from engram.benchmarks.records.stored import held, write_json

ORDER = "order.json"
STOP, DRAIN = "stop", "drain"


def give(folder: Path, order: str) -> None:
    """Tell the driver of the sweep in ``folder``: stop, with checkpoints, or drain: start nothing more."""
    write_json(folder / ORDER, {"order": order})


class Orders:
    """The orders for a driver; none for one of no sweep. One given before it began was for another driver."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.clear()

    def given(self) -> str:
        """The order; "" while there is none."""
        return "" if self._folder is None else str(held(self._folder / ORDER).get("order", ""))

    def clear(self) -> None:
        if self._folder is not None:
            (self._folder / ORDER).unlink(missing_ok=True)
