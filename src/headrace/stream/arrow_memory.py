"""Where Arrow has its memory from, in a process that is headrace's own.

Its default, mimalloc, takes huge pages, which the kernel clears whole: of Nexmark's q0 over a million rows that was 230 of
300 ms of CPU on a virtual machine. With jemalloc the same took 110 ms and 50 MiB less; batches of one row take as long.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import pyarrow as pa

CHOSEN: Final = "ARROW_DEFAULT_MEMORY_POOL"
"""The environment variable that chooses the allocator; Arrow reads it itself."""


def pool_of(environ: Mapping[str, str]) -> pa.MemoryPool | None:
    """What to take memory from. None: what is there; it was chosen, or this build of Arrow has no other."""
    if environ.get(CHOSEN):
        return None
    try:
        return pa.jemalloc_memory_pool()
    except NotImplementedError:
        return None


def choose_allocator() -> None:
    """Take all memory from there from now on. For programs alone: a library does not choose for who calls it."""
    pool = pool_of(os.environ)
    if pool is not None:
        pa.set_memory_pool(pool)
