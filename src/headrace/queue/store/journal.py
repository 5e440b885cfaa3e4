"""The lease journal: who has which message, kept across a kill without a sync.

A receive is answered after its lease is written here; `kill -9` spares what the kernel has, so counts, order and
exclusivity hold exactly. A power cut may take the tail: a standard queue then delivers early, which at-least-once
allows. A FIFO queue must never have two owners of a group: its leases are synced before the answer.

Format: 8 bytes of magic, then records: length (u32), CRC-32 of the payload (u32), payload (msgpack of LeaseRecord). The
file only grows until a snapshot of the live leases replaces it. A record that does not check is skipped if good ones
follow (it is damaged, and reported); at the end it is a torn tail, which was never acknowledged on a FIFO queue.
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

log = logging.getLogger("headrace.store")

MAGIC: Final = b"HRLEASE1"
SNAPSHOT_MIN_BYTES: Final = 8 * 1_048_576  # below, a snapshot saves nothing worth its sync
SNAPSHOT_GROWTH: Final = 8  # a snapshot when the file is so many times the last one: amortised, and bounded on disk
RECORD_BYTES_MAX: Final = 64 * 1_048_576

_header = struct.Struct("<II")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LeaseRecord).decode


def frame(record: LeaseRecord) -> bytes:
    payload = _encode(record)
    return _header.pack(len(payload), crc32(payload)) + payload


def parse(data: bytes) -> tuple[list[LeaseRecord], int, int]:
    """(the good records, where the good part ends, how many damaged records lie between good ones)."""
    records: list[LeaseRecord] = []
    position = good = len(MAGIC)
    damaged = pending = 0
    while position + _header.size <= len(data):
        length, checksum = _header.unpack_from(data, position)
        payload = data[position + _header.size : position + _header.size + length]
        if length > RECORD_BYTES_MAX or len(payload) < length:
            break  # the length itself is damaged, or torn: nothing behind it can be found
        position += _header.size + length
        record = _check(payload, checksum)
        if record is None:
            pending += 1
            continue
        records.append(record)
        damaged, pending, good = damaged + pending, 0, position
    return records, good, damaged


def _check(payload: bytes, checksum: int) -> LeaseRecord | None:
    if crc32(payload) != checksum:
        return None
    try:
        return _decode(payload)
    except msgspec.DecodeError:
        return None


class LeaseJournal:
    """The journal of one store. `note` gathers, `flush` writes, `sync` makes durable.

    Does not know which leases are alive: `snapshot` is told.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted: list[bytes] = []
        data = path.read_bytes() if path.exists() else b""
        if data and not data.startswith(MAGIC):
            log.error("the lease journal is not readable and begins anew", extra={"action": "journal.damaged"})
            data = b""
        self.records, good, damaged = parse(data) if data else ([], 0, 0)
        if damaged:
            log.error("%d damaged records in the lease journal", damaged, extra={"action": "journal.damaged"})
        self._fd = files.open_file(path, append=True)
        os.ftruncate(self._fd, good)
        if not good:
            files.write(self._fd, MAGIC)
        self._size = max(good, len(MAGIC))
        self._snapshot_size = 0

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
            os.ftruncate(self._fd, self._size)
            raise
        self._noted.clear()
        self._size += len(data)

    def forget_noted(self) -> None:
        """What was noted could not be written and is not answered."""
        self._noted.clear()

    def sync(self) -> None:
        """What was flushed survives a power cut."""
        files.sync_data(self._fd)

    def wants_snapshot(self) -> bool:
        return self._size > max(SNAPSHOT_MIN_BYTES, SNAPSHOT_GROWTH * self._snapshot_size)

    def snapshot(self, records: Iterable[LeaseRecord]) -> None:
        """Replace the file by one that holds just `records`, the live leases. Atomic."""
        data = MAGIC + b"".join([frame(record) for record in records])
        files.replace(self._path, data)
        os.close(self._fd)
        self._fd = files.open_file(self._path, append=True)
        self._size = self._snapshot_size = len(data)

    def size_bytes(self) -> int:
        return self._size

    def close(self) -> None:
        os.close(self._fd)
