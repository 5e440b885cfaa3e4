"""The lease journal: who has which message, kept across a kill without a sync.

A receive is answered after its lease is written here; `kill -9` spares what the kernel has, so counts, order and
exclusivity hold exactly. A power cut may take the tail: a standard queue then delivers early, which at-least-once
allows. A FIFO queue must never have two owners of a group: its leases are synced before the answer.

Format: a header (8 bytes of magic, the journal's number, its CRC-32), then records: length (u32), CRC-32 of the payload
(u32), payload (msgpack of LeaseRecord). The file only grows until a snapshot of the live leases replaces it.

Damage: where a record does not check, the next that does is looked for. Bytes without records between good ones, or
before the length that was noted as synced beside (`folder.Noted`), are leases that were lost; at the end they are a torn
tail, which was never acknowledged on a FIFO queue. Lost leases close the FIFO queues until none of them can be alive: a
record of queue 0 keeps that across restarts.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from headrace.queue.store import files
from headrace.queue.store.disk import LeaseRecord
from headrace.queue.store.folder import Noted

log = logging.getLogger("headrace.store")

MAGIC: Final = b"HRLEASE2"
SNAPSHOT_MIN_BYTES: Final = 8 * 1_048_576  # below, a snapshot saves nothing worth its sync
SNAPSHOT_GROWTH: Final = 8  # a snapshot when the file is so many times the last one: amortised, and bounded on disk
TIGHT_SNAPSHOT_MIN_BYTES: Final = 256 * 1_024  # on a full disk: a fraction of the smallest reserve
TIGHT_SNAPSHOT_GROWTH: Final = 2
RECORD_BYTES_MAX: Final = 64 * 1_048_576
NO_QUEUE: Final = 0  # queues are numbered from 1
_FIVE_FIELDS: Final = b"\x95"  # how msgpack begins a LeaseRecord

_header = struct.Struct("<II")
_head = struct.Struct("<8sQI")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LeaseRecord).decode


def frame(record: LeaseRecord) -> bytes:
    payload = _encode(record)
    return _header.pack(len(payload), crc32(payload)) + payload


def head(number: int) -> bytes:
    """The beginning of journal `number`."""
    return _head.pack(MAGIC, number, crc32(number.to_bytes(8, "little")))


def number_of(data: bytes) -> int | None:
    """The number of the journal that `data` is, None if its beginning is not one."""
    if len(data) < _head.size:
        return None
    magic, number, checksum = _head.unpack_from(data)
    good = magic == MAGIC and crc32(number.to_bytes(8, "little")) == checksum
    return int(number) if good else None


class Parsed(msgspec.Struct):
    """A journal taken apart: the good records, where the last of them ends, and the gaps (start, end) between them."""

    records: list[LeaseRecord] = []
    end: int = _head.size
    gaps: list[tuple[int, int]] = []


def parse(data: bytes) -> Parsed:
    parsed = Parsed()
    position: int | None = _head.size
    while position is not None and position < len(data):
        record, end = _record_at(data, position)
        if record is None:
            position = _next_record(data, position + 1)
            continue
        if position != parsed.end:
            parsed.gaps.append((parsed.end, position))
        parsed.records.append(record)
        parsed.end = position = end
    return parsed


def _record_at(data: bytes, position: int) -> tuple[LeaseRecord | None, int]:
    start = position + _header.size
    if start > len(data):
        return None, position
    length, checksum = _header.unpack_from(data, position)
    if not 0 < length <= min(RECORD_BYTES_MAX, len(data) - start):
        return None, position
    payload = memoryview(data)[start : start + length]
    if crc32(payload) != checksum:
        return None, position
    try:
        return _decode(payload), start + length
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, position


def _next_record(data: bytes, position: int) -> int | None:
    """Where the next record that checks begins: by the byte that each begins with."""
    while (found := data.find(_FIVE_FIELDS, position + _header.size)) >= 0:
        position = found - _header.size
        if _record_at(data, position)[0] is not None:
            return position
        position += 1
    return None


class LeaseJournal:
    """The journal of one store. `note` gathers, `flush` writes, `sync` makes durable.

    Does not know which leases are alive: `snapshot` is told.
    """

    def __init__(self, path: Path, noted: Noted | None = None) -> None:
        """Open the journal, or begin it.

        Args:
            noted: what is known of it from elsewhere. Up to there, bytes that are no records are damage.
        """
        self._path = path
        self._noted: list[bytes] = []
        data = path.read_bytes() if path.exists() else b""
        parsed = parse(data)
        self.records = parsed.records
        number = number_of(data)
        synced = noted.journal_bytes if noted is not None and noted.journal == number else 0
        self.lost = bool(parsed.gaps) or parsed.end < synced
        """Whether leases were lost to damage."""
        if self.lost or (number is None and data):
            log.error(
                "the lease journal is damaged; %s", "leases are lost" if self.lost else "no lease is lost",
                extra={"action": "journal.damaged"},
            )  # fmt: skip
        self._snapshot_size = 0
        if number is None or self.lost:
            self._begin(self.records)
            return
        self.number = number
        self._fd = files.open_file(path, append=True)
        os.ftruncate(self._fd, parsed.end)
        self.size_bytes = parsed.end

    def _begin(self, records: Iterable[LeaseRecord]) -> None:
        """A new file under the old one's name, with just these records. Atomic, synced."""
        number = int.from_bytes(os.urandom(7), "little")
        data = head(number) + b"".join([frame(record) for record in records])
        files.replace(self._path, data)
        self.number = number
        self._fd = files.open_file(self._path, append=True)
        self.size_bytes = len(data)

    def note(self, record: LeaseRecord) -> None:
        self._noted.append(frame(record))

    def flush(self) -> None:
        """Write what was noted: it survives the process. On an error it stays noted, and nothing half-written counts."""
        if not self._noted:
            return
        data = b"".join(self._noted)
        try:
            files.write(self._fd, data)
        except OSError:
            os.ftruncate(self._fd, self.size_bytes)
            raise
        self._noted.clear()
        self.size_bytes += len(data)

    def forget_noted(self) -> None:
        """What was noted could not be written and is not answered."""
        self._noted.clear()

    def sync(self) -> None:
        """What was flushed survives a power cut."""
        files.sync_data(self._fd)

    def wants_snapshot(self, *, tight: bool = False) -> bool:
        """Args: tight: there is little room on the disk."""
        least = TIGHT_SNAPSHOT_MIN_BYTES if tight else SNAPSHOT_MIN_BYTES
        growth = TIGHT_SNAPSHOT_GROWTH if tight else SNAPSHOT_GROWTH
        return self.size_bytes > max(least, growth * self._snapshot_size)

    def snapshot(self, records: Iterable[LeaseRecord]) -> None:
        """Replace the file by one that holds just `records`, the live leases. Atomic."""
        old = self._fd
        self._begin(records)
        os.close(old)
        self._snapshot_size = self.size_bytes

    def close(self) -> None:
        os.close(self._fd)
