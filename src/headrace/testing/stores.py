"""The stores that headrace ships, as kinds that the suite and the stateful machine run against.

A new store gets a line in `STORES`; nothing else is needed to test it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from headrace.clock import ManualClock
from headrace.queue.store.base import Store
from headrace.testing.driver import StoreKind


def _open_memory(_folder: Path, clock: ManualClock, cooldowns: bool) -> Store:
    from headrace.queue.store.memory import open_memory_store  # noqa: PLC0415 - only those that are tested are loaded

    return open_memory_store(clock, cooldowns=cooldowns)


def _open_sqlite(folder: Path, clock: ManualClock, cooldowns: bool) -> Store:
    from headrace.queue.store.sqlite import open_store  # noqa: PLC0415 - see above

    return open_store(folder, cooldowns=cooldowns, clock=clock, wal_bytes=0)[0]


def _open_postgres(folder: Path, clock: ManualClock, cooldowns: bool) -> Store:
    from headrace.testing.postgres import databases  # noqa: PLC0415 - see above

    return databases().open(folder, clock, cooldowns=cooldowns)


MEMORY: Final = StoreKind("memory", _open_memory, durable=False, in_files=False)

SQLITE: Final = StoreKind("sqlite", _open_sqlite, durable=True, in_files=True, not_copied=("*-shm", "reserve"))

POSTGRES: Final = StoreKind("postgres", _open_postgres, durable=True, in_files=False)
"""Needs the extra `postgres` and the server's programs: `headrace.testing.postgres.find_programs()`."""

STORES: Final = (MEMORY, SQLITE, POSTGRES)
"""Every store that ships."""
