from __future__ import annotations

from typing import Any

import pytest

from headrace.queue.model import Message
from headrace.queue.store import rows

MESSAGE = Message(
    7, bytes(range(16)), b"body", b"\x81", 1_700_000_000_000, 1_700_000_060_000, "g", "d", "trace", "sender", 3,
    1_700_000_000_001, "arn:aws:sqs:us-east-1:000000000000:dead",
)  # fmt: skip
PLAIN = Message(1, bytes(16), b"x", b"", 1)


def row_of(message: Message, queue: int = 2) -> list[Any]:
    return list(rows.to_row(queue, message, 1)[:-1])


@pytest.mark.parametrize("message", [MESSAGE, PLAIN])
def test_message_comes_back_as_it_was(message: Message) -> None:
    key, found = rows.from_row(tuple(row_of(message)))
    assert found == message
    assert key == 2 << 40 | message.seq


@pytest.mark.parametrize("column", range(14))
def test_change_of_any_column_is_noticed(column: int) -> None:
    row = row_of(MESSAGE)
    value = row[column]
    row[column] = value + 1 if isinstance(value, int) else value[:-1] + (b"?" if isinstance(value, bytes) else "?")
    assert rows.from_row(tuple(row))[1] is None


@pytest.mark.parametrize("value", [None, 1, 1.5, "text", "\udcff", b"bytes", -1, 1 << 62])
@pytest.mark.parametrize("column", range(1, 14))
def test_value_of_any_other_type_is_damage_and_no_error(column: int, value: Any) -> None:
    row = row_of(MESSAGE)
    row[column] = value
    assert rows.from_row(tuple(row))[1] is None


def test_row_that_strays_into_another_queue_does_not_check() -> None:
    row = row_of(PLAIN, queue=2)
    row[0] = 3 << 40 | PLAIN.seq
    assert rows.from_row(tuple(row))[1] is None


@pytest.mark.parametrize("field", ["attributes", "receives"])
def test_empty_columns_are_stored_as_nothing(field: str) -> None:
    names = [name.strip() for name in rows.COLUMNS.split(",")]
    assert row_of(PLAIN)[names.index(field)] is None
    assert rows.from_row(tuple(row_of(PLAIN)))[1] == PLAIN
