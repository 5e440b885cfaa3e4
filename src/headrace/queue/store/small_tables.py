"""The small tables of a damaged database: which rows are whole, and what can be put right.

They have no checksum: a row is taken if its columns are of the right types and what is encoded in them decodes. A queue's
name stands in three places, its row, its settings and the index over names, of which two decide.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from headrace.errors import InvalidFilter
from headrace.queue.filters import Policy
from headrace.queue.model import MoveTask, QueueInfo, QueueSettings, Subscription, TopicInfo, arn_of
from headrace.queue.store.disk import key_of, seq_of
from headrace.queue.store.pages import Values
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

log = logging.getLogger("headrace.store")

QUEUE_NUMBER_MAX: Final = (1 << 23) - 1  # a key is 63 bits
RESERVED_MAX: Final = 1 << 39  # half of all numbers: a queue that reserved more has a damaged row
_OPTIONAL_BYTES: Final = (bytes, type(None))
_OPTIONAL_INT: Final = (int, type(None))

# table -> (whether its first column is the row's key, the types of its columns)
SHAPES: Final[dict[str, tuple[bool, tuple[Any, ...]]]] = {
    "meta": (False, (str, bytes)),
    "commit_log": (True, (int, int, int)),
    "queue": (True, (int, str, str, int, _OPTIONAL_INT)),
    "progress": (True, (int, int, int)),
    "dedup": (True, (int, int, str, bytes, int, int)),
    "claim": (False, (int, str, int, bytes)),
    "reader": (False, (int, str, int)),
    "move_task": (False, (str, str, int, str)),
    "state": (False, (str, bytes, bytes)),
    "fence": (False, (str, int)),
    "garbage": (True, (int, int, int)),
    "deleted_queue": (False, (str, int)),
    "quarantine": (True, (int, _OPTIONAL_INT, str, _OPTIONAL_BYTES, _OPTIONAL_BYTES, _OPTIONAL_BYTES)),
    "sqlite_sequence": (False, (str, int)),
    "topic": (True, (int, (str, type(None)), str)),
    "topic_log": (True, (int, int, int, int, int)),
    "subscription": (False, (int, int, str)),
}


def fitting(table: str, key: int, values: Values | None) -> Values | None:
    """The row as it is inserted, or None if it does not have the table's shape."""
    has_key, shape = SHAPES[table]
    if values is None or len(values) != len(shape):
        return None
    row = (key, *values[1:]) if has_key else values
    if not all(isinstance(value, kind) for value, kind in zip(row, shape, strict=True)):
        return None
    return row if all(_is_text(value) for value in row if isinstance(value, str)) else None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def decoded(data: str | bytes, kind: type[Any]) -> Any:
    """JSON (text) or msgpack (bytes) as `kind`; None if it is not."""
    try:
        if isinstance(data, str):
            return msgspec.json.decode(data, type=kind)
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def claim_row(row: Values) -> Values:
    """A claim as it was, or emptied: its number is never bound again, its messages are ready again."""
    if decoded(row[3], list[int]) is not None:
        return row
    log.error(
        "claim %d of reader %s is damaged: its messages are ready again",
        row[2],
        row[1],
        extra={"action": "store.salvaged"},
    )
    return (*row[:3], msgspec.msgpack.encode([]))


def _whole_task(row: Values) -> bool:
    """Whether a move task can be read; one that cannot is forgotten, its messages stay where they are."""
    return decoded(row[3], MoveTask) is not None


def _whole_topic(row: Values) -> bool:
    """Its messages are a topic's still if a queue refers to them, else those of a queue without a name."""
    return 0 < row[0] <= QUEUE_NUMBER_MAX and decoded(row[2], TopicInfo) is not None


def _whole_log(row: Values) -> bool:
    _, first, _, _, reserved = row
    return bool(0 <= first <= max(reserved, 1) < RESERVED_MAX)


def _whole_subscription(row: Values) -> bool:
    details = decoded(row[2], Subscription)
    return details is not None and can_filter(details)


def can_filter(subscription: Subscription) -> bool:
    """Whether its filter is one."""
    try:
        return not subscription.filter or bool(Policy(subscription.filter, subscription.scope))
    except InvalidFilter:
        return False


WHOLE: Final[dict[str, Callable[[Values], bool]]] = {
    "move_task": _whole_task,
    "topic": _whole_topic,
    "topic_log": _whole_log,
    "subscription": _whole_subscription,
}
"""Table -> whether a row that fits can be what was written."""


class FoundQueue(msgspec.Struct):
    """A queue as it will be: `messages` is what it had, None if unknown."""

    number: int
    info: QueueInfo
    floor: int = 0
    purged_ms: int | None = None
    messages: int | None = None
    reserved: int = 0


class Directory:
    """The queues of a damaged database, from all that names them."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._queues: dict[int, FoundQueue] = {}
        self._index: dict[int, str] = {}

    def add_names(self, index: Iterable[Values]) -> None:
        """The rows of the index over names: (name, queue number)."""
        for values in index:
            if len(values) == 2 and isinstance(values[0], str) and isinstance(values[1], int) and _is_text(values[0]):
                self._index[values[1]] = values[0]

    def add_row(self, key: int, values: Values | None) -> None:
        """A row of the table `queue`, of which some columns may be damaged."""
        if values is None or len(values) != 5:
            return
        _, arn, text, floor, purged_ms = values
        info = decoded(text, QueueInfo) if isinstance(text, str) else None
        names = Counter(
            name
            for name in (self._index.get(key), arn, info.arn if info is not None else None)
            if isinstance(name, str) and _is_text(name)
        )
        if not names:
            return
        name = names.most_common(1)[0][0]
        # The row's own number is damaged, if the index has another one for its name.
        key = next((number for number, other in self._index.items() if other == name), key)
        if not 0 < key <= QUEUE_NUMBER_MAX or key in self._queues:
            return
        queue = self._named(key, name, info)
        queue.floor = floor if isinstance(floor, int) and 0 <= floor < RESERVED_MAX else 0
        queue.purged_ms = purged_ms if isinstance(purged_ms, int) else None
        self._queues[key] = queue

    def _named(self, number: int, name: str, info: QueueInfo | None) -> FoundQueue:
        if info is not None:
            return FoundQueue(number, msgspec.structs.replace(info, arn=name))
        log.error("the settings of %s are lost and are the defaults now", name, extra={"action": "store.salvaged"})
        settings = QueueSettings(fifo=name.endswith(".fifo"))
        return FoundQueue(number, QueueInfo(name, settings, {}, self._now_ms, self._now_ms))

    def settle(self, messages: Mapping[int, bool], garbage: list[Values]) -> dict[int, FoundQueue]:
        """The queues, each with a name of its own.

        Args:
            messages: queue number -> whether every message found there has a group, for all that messages were found of.
            garbage: the rows of the table `garbage`: numbers in them without a queue are those of deleted queues.
        """
        deleted = {row[1] >> SEQ_BITS for row in garbage if seq_of(row[1]) == 0 and seq_of(row[2]) == SEQ_MASK}
        for number, name in self._index.items():
            if number not in self._queues and 0 < number <= QUEUE_NUMBER_MAX:
                self._queues[number] = self._named(number, name, None)
        for number, grouped in messages.items():
            if number not in self._queues and number not in deleted:
                name = arn_of(f"recovered-{number}" + (".fifo" if grouped else ""))
                self._queues[number] = self._named(number, name, None)
        names: set[str] = set()
        for queue in self._queues.values():
            if queue.info.arn in names:
                suffix = ".fifo" if queue.info.settings.fifo else ""
                queue.info = msgspec.structs.replace(queue.info, arn=arn_of(f"recovered-{queue.number}{suffix}"))
            names.add(queue.info.arn)
        return self._queues


def good_garbage(row: Values, queues: Mapping[int, FoundQueue]) -> bool:
    """Whether a range of purged keys can be one: below its queue's floor, or all of a deleted queue."""
    _, first, last = row
    number = first >> SEQ_BITS
    if number != last >> SEQ_BITS or seq_of(first) or last < first:
        return False
    queue = queues.get(number)
    return last < key_of(number, queue.floor) if queue is not None else seq_of(last) == SEQ_MASK
