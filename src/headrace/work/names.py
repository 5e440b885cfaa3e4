"""Names of the queues around a task queue: priorities and dead letters."""

from __future__ import annotations

from typing import Final

_SUFFIXES: Final = {1: "-high", 0: "", -1: "-low"}


def of_priority(queue: str, priority: int) -> str:
    """The sibling that takes this priority: `tasks-high`, `tasks`, `tasks-low`."""
    return queue + _SUFFIXES[priority]


def in_order(queue: str) -> list[str]:
    """The queue and its siblings, highest priority first. A FIFO queue has none."""
    return [queue] if queue.endswith(".fifo") else [queue + suffix for suffix in _SUFFIXES.values()]


def base(queue: str) -> str:
    """The queue whose sibling this is."""
    suffix = next((one for one in _SUFFIXES.values() if one and queue.endswith(one)), "")
    return queue.removesuffix(suffix)


def dead(queue: str) -> str:
    """Where its dead letters go: one queue for all priorities."""
    if queue.endswith(".fifo"):
        return queue.removesuffix(".fifo") + "-dead.fifo"
    return base(queue) + "-dead"


def is_dead(queue: str) -> bool:
    """Whether this is where dead letters go."""
    return queue.removesuffix(".fifo").endswith("-dead")


def of_dead(queue: str) -> str:
    """The queue whose dead letters go there, as far as its name tells: priorities share one."""
    return queue.removesuffix("-dead.fifo") + ".fifo" if queue.endswith(".fifo") else queue.removesuffix("-dead")
