"""Messages cut into parts that fit into a state value and into a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from headrace.stream.spark import limits

T = TypeVar("T")


def cut(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[tuple[list[T], int]]:
    """The items in their order, in parts of at most PART_MESSAGES_MAX and about PART_BYTES_MAX; with each its size."""
    part: list[T] = []
    size = 0
    for item in items:
        length = size_of(item)
        if part and (len(part) == limits.PART_MESSAGES_MAX or size + length > limits.PART_BYTES_MAX):
            yield part, size
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part, size
