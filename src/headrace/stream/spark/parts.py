"""Messages cut into parts that fit into a state value and into a transaction; dead letters that are kept so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from headrace.errors import OutcomeUnknown
from headrace.native.client import Client
from headrace.queue.model import Entry
from headrace.queue.operations import Transact
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


def keep_letters(client: Client, name: str, prefix: str, letters: Iterable[Entry]) -> None:
    """In a task: dead letters into the state `name`, as keys that start with `prefix`. Idempotent."""
    for number, (part, _) in enumerate(cut(letters, lambda letter: len(letter.body))):
        put(client, name, [(f"{prefix}{number:06d}".encode(), msgspec.msgpack.encode(part))])


def put(client: Client, name: str, state: list[tuple[bytes, bytes | None]]) -> None:
    """Write state that nobody else writes. Done twice it is as done once, so it is tried until it is known to be done."""
    for attempt in range(1, limits.UNKNOWN_MAX + 1):
        try:
            client.call(Transact(name=name, state=state))
        except OutcomeUnknown:
            if attempt == limits.UNKNOWN_MAX:
                raise
        else:
            return


def letters_of(kept: dict[bytes, bytes]) -> list[Entry]:
    """The letters of a state's keys and values."""
    return [letter for part in kept.values() for letter in msgspec.msgpack.decode(part, type=list[Entry])]
