"""The board: shared memory in which a child says what it does, for its parent to read when it cannot say it any more.

A child that is killed by a signal leaves the names of the tasks that ran in it; one that hangs, when it last got on.
Written without a lock or a system call: a slot is a length and a text, the length is written last and cleared first.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from typing import Final

from headrace.work.pool.limits import BOARD_SLOTS_MAX, BOARD_TEXT_BYTES

_HEAD: Final = struct.Struct("=dd")
"""Monotonic seconds of the last poll that ended, and of the last that succeeded (0: none yet)."""
_ENTRY: Final = struct.Struct(f"=dB{BOARD_TEXT_BYTES}s")
_SIZE: Final = _HEAD.size + BOARD_SLOTS_MAX * _ENTRY.size


class SharedStatus:
    """One child's. Made by the parent, passed on as a descriptor; each side opens it."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _SIZE)

    @staticmethod
    def make() -> int:
        """A descriptor of a new one, without a name on the disk."""
        with tempfile.TemporaryFile(prefix="headrace-board-") as file:
            file.truncate(_SIZE)
            descriptor = os.dup(file.fileno())
        _HEAD.pack_into(mmap.mmap(descriptor, _SIZE), 0, time.monotonic(), 0.0)
        return descriptor

    # The child writes

    def fetched(self, *, progress_s: float, succeeded_s: float) -> None:
        """When fetching last got on, and when a poll last succeeded (0: never)."""
        _HEAD.pack_into(self._memory, 0, progress_s, succeeded_s)

    def begin(self, slot: int, text: bytes, now_s: float) -> None:
        """A run begins. Slots beyond the board's are not shown."""
        if slot < BOARD_SLOTS_MAX:
            text = text[:BOARD_TEXT_BYTES]
            _ENTRY.pack_into(self._memory, _HEAD.size + slot * _ENTRY.size, now_s, len(text), text)

    def end(self, slot: int) -> None:
        if slot < BOARD_SLOTS_MAX:
            self._memory[_HEAD.size + slot * _ENTRY.size + 8] = 0

    # The parent reads

    @property
    def fetched_s(self) -> float:
        return float(_HEAD.unpack_from(self._memory, 0)[0])

    @property
    def succeeded_s(self) -> float:
        """0: no poll has succeeded yet."""
        return float(_HEAD.unpack_from(self._memory, 0)[1])

    def running(self) -> list[tuple[str, float]]:
        """(`task id`, monotonic second of its begin) of what runs, the oldest first."""
        found = []
        for slot in range(BOARD_SLOTS_MAX):
            since_s, length, text = _ENTRY.unpack_from(self._memory, _HEAD.size + slot * _ENTRY.size)
            if length:
                found.append((text[:length].decode("utf-8", "replace"), since_s))
        return sorted(found, key=lambda run: run[1])

    def close(self) -> None:
        self._memory.close()
