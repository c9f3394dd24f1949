"""Asking a server several things at once: most of the time of each is waiting for its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def together(work: Callable[[T], R], items: Sequence[T], most: int) -> list[R]:
    """What ``work`` makes of each item, in their order; ``most`` are under way at a time.

    Raises:
        Exception: the first that ``work`` raises. Nothing is begun after it, and what was under way has ended.
    """
    if most == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(most, thread_name_prefix="telling") as pool:
        asked = [pool.submit(work, item) for item in items]
        try:
            return [each.result() for each in asked]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
