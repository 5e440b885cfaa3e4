"""The reading side of the SQLite disk: messages by key and in order, each checked, damage told.

A page that makes no sense to SQLite costs what lies on it: what lies elsewhere is still read. Whoever meets one marks the
database suspect, and the next start checks it whole and rebuilds it (`salvage.py`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import apsw

from headrace.errors import StoreError
from headrace.queue.model import Message
from headrace.queue.store import rows
from headrace.queue.store.disk import CHECKSUM, PAGE, Key, key_of, seq_of
from headrace.queue.timers import SEQ_MASK

log = logging.getLogger("headrace.store")

CORRUPT: Final = (apsw.CorruptError, apsw.TooBigError)  # a page that makes no sense, or a size on it


class SqliteReads(ABC):
    """What a disk reads, by a connection of its own. `_reader` and `_explain` come from the class that opens it."""

    _reader: apsw.Connection
    on_damage: Callable[[Key, str], None]

    @abstractmethod
    def _explain(self, error: Exception) -> StoreError:
        """What an error of SQLite means to the store's caller."""

    @abstractmethod
    def _suspect(self, error: Exception) -> None:
        """The database is to be checked whole at the next start."""

    def read(self, keys: Sequence[Key]) -> dict[Key, Message]:
        if not keys:
            return {}
        if len(keys) == 1:
            sql, values = f"SELECT {rows.SELECTED} FROM message WHERE key = ?", (keys[0],)  # noqa: S608
        else:
            sql = f"SELECT {rows.SELECTED} FROM message WHERE key IN carray(?)"  # noqa: S608
            values = (apsw.carray(array("q", keys)),)  # type: ignore[assignment]
        found: dict[Key, Message] = {}
        try:
            for row in self._reader.execute(sql, values):
                key, message = rows.from_row(row)
                if message is None:
                    self.on_damage(key, CHECKSUM)
                else:
                    found[key] = message
        except (*CORRUPT, UnicodeDecodeError) as error:
            return self._read_one_by_one(keys, error)
        except apsw.Error as error:
            raise self._explain(error) from error
        return found

    def _read_one_by_one(self, keys: Sequence[Key], error: Exception) -> dict[Key, Message]:
        """A page or a text is damaged: what lies elsewhere is still read."""
        self._suspect(error)
        if len(keys) == 1:
            self.on_damage(keys[0], _reason(error))
            return {}
        found: dict[Key, Message] = {}
        for key in keys:
            found.update(self.read([key]))
        return found

    def scan(self, queue: int, *, after: int, limit: int, bytes_max: int) -> tuple[list[Message], int, bool]:
        found: list[Message] = []
        seq, size, looked = after, 0, 0
        try:
            for row in self._reader.execute(
                f"SELECT {rows.SELECTED} FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?",  # noqa: S608
                (key_of(queue, after) + 1, key_of(queue, SEQ_MASK), limit),
            ):
                key, message = rows.from_row(row)
                seq = seq_of(key)
                looked += 1
                if message is None:
                    self.on_damage(key, CHECKSUM)
                    continue
                found.append(message)
                size += len(message.body)
                if size >= bytes_max:
                    return found, seq, True
        except CORRUPT as error:
            self._suspect(error)
            return found, self._behind_damage(queue, seq), True
        except UnicodeDecodeError:
            return found, self._behind_text(queue, seq), True
        except apsw.Error as error:
            raise self._explain(error) from error
        return found, seq, looked == limit

    def _behind_text(self, queue: int, seq: int) -> int:
        """The next message has a text that is none: its checksum cannot be right."""
        next_ = self.first(queue, after=seq)
        assert next_ is not None
        self.on_damage(key_of(queue, next_[0]), CHECKSUM)
        return next_[0]

    def _behind_damage(self, queue: int, seq: int) -> int:
        """The seq before the next readable message, behind a page that cannot be read: found by doubling steps and
        then halving them."""
        step, low = 1, seq
        while seq + step < SEQ_MASK and not self._readable(queue, seq + step):
            low, step = seq + step, step * 2
        high = min(seq + step, SEQ_MASK)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._readable(queue, middle) else (middle, high)
        log.error(
            "messages %d to %d of queue number %d are on damaged pages", seq + 1, high, queue,
            extra={"action": "store.damaged"},
        )  # fmt: skip
        for lost in range(seq + 1, min(high, seq + 1_000) + 1):
            self.on_damage(key_of(queue, lost), PAGE)
        return high

    def _readable(self, queue: int, after: int) -> bool:
        try:
            self._reader.execute(
                f"SELECT {rows.SELECTED} FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 1",  # noqa: S608
                (key_of(queue, after) + 1, key_of(queue, SEQ_MASK)),
            ).fetchall()
        except CORRUPT:
            return False
        except UnicodeDecodeError:
            return True  # `scan` tells that one apart
        return True

    def groups(self, queue: int, seqs: Sequence[int]) -> dict[int, str]:
        keys = array("q", [key_of(queue, seq) for seq in seqs])
        return {
            seq_of(key): group.decode(errors="replace")
            for key, group in self._query(
                "SELECT key, CAST(message_group AS BLOB) FROM message WHERE key IN carray(?) AND message_group IS NOT NULL",
                (apsw.carray(keys),),
            )
        }

    def first(self, queue: int, *, after: int) -> tuple[int, int] | None:
        found = self._query(
            "SELECT key, ifnull(CAST(sent_ms AS INTEGER), 0) FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 1",
            (key_of(queue, after) + 1, key_of(queue, SEQ_MASK)),
        )
        return (seq_of(found[0][0]), found[0][1]) if found else None

    def sent_after(self, queue: int, sent_ms: int) -> list[int]:
        out = []
        newest = self._each(
            "SELECT key, ifnull(CAST(sent_ms AS INTEGER), 0) FROM message WHERE key BETWEEN ? AND ? ORDER BY key DESC",
            (key_of(queue, 0), key_of(queue, SEQ_MASK)),
        )
        for key, sent in newest:
            if sent <= sent_ms:
                break
            out.append(seq_of(key))
        newest.close()
        return out

    def expired(self, queue: int, *, after: int, sent_before_ms: int, limit: int) -> list[int]:
        first, last = key_of(queue, after) + 1, key_of(queue, SEQ_MASK)
        front = self._query(
            "SELECT key, ifnull(CAST(sent_ms AS INTEGER), 0) FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?",
            (first, last, limit),
        )
        out = []
        for key, sent_ms in front:
            if sent_ms > sent_before_ms:
                break
            out.append(key)
        # Sent times rise: only of the last one may a damaged time be what makes it old.
        while out and not self.read(out[-1:]):
            out.pop()
        moved = self._query(
            "SELECT key FROM message WHERE source IS NOT NULL AND sent_ms <= ? AND key BETWEEN ? AND ? LIMIT ?",
            (sent_before_ms, first, last, limit),
        )
        out += [key for (key,) in moved if self.read([key])]
        return list(dict.fromkeys([seq_of(key) for key in out]))

    def log_front(self, topic: int, *, after: int, limit: int) -> list[tuple[int, int, int]]:
        found = self._query(
            "SELECT key, ifnull(CAST(sent_ms AS INTEGER), 0), ifnull(length(body), 0) + ifnull(length(attributes), 0)"
            " FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?",
            (key_of(topic, after) + 1, key_of(topic, SEQ_MASK), limit),
        )
        return [(seq_of(key), sent_ms, size) for key, sent_ms, size in found]

    def state(self, name: str, *, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        found = self._query(
            "SELECT key, value FROM state WHERE name = ? AND key >= ? AND key > ? ORDER BY key LIMIT ?",
            (name, prefix, after, limit),
        )
        return [(key, value) for key, value in found if key.startswith(prefix)]

    def _query(self, sql: str, values: Sequence[Any]) -> list[Any]:
        return list(self._each(sql, values))

    def _each(self, sql: str, values: Sequence[Any]) -> Generator[Any, None, None]:
        """The rows up to a damaged page, if there is one."""
        try:
            yield from self._reader.execute(sql, values)
        except CORRUPT as error:
            self._suspect(error)
        except apsw.Error as error:
            raise self._explain(error) from error


def _reason(error: Exception) -> str:
    return CHECKSUM if isinstance(error, UnicodeDecodeError) else PAGE
