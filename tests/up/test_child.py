"""One service as a process: what becomes of it when the system has no room for one."""

from __future__ import annotations

import asyncio
import errno
import io
from pathlib import Path
from typing import Any

import pytest

from headrace.up import child as child_module
from headrace.up.child import FAILING_AFTER, Child, State
from headrace.up.lines import Lines
from headrace.up.plan import Service
from tests.patience import PATIENCE_S


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_part_that_cannot_be_started_is_tried_again_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(_try(tmp_path, monkeypatch))


async def _try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    def no_room(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(child_module, "spawn", no_room)
    tried = asyncio.Event()
    lines = Lines(io.StringIO(), text=False)
    child = Child(Service("web", "web", None, {}), notes=tmp_path / "notes", lines=lines, on_change=tried.set)
    before = descriptors()
    try:
        for number in range(1, FAILING_AFTER + 1):
            tried.clear()
            child.start() if number == 1 else await asyncio.wait_for(tried.wait(), PATIENCE_S)
            assert (tries, child.restarts) == (number, number)
        assert child.state is State.FAILING
        assert descriptors() == before
    finally:
        child.stop()
        await child.close()
