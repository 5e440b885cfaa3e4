"""The parent, with children that exist only in the test: what it starts them with, and what it tells of them."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.settings import load
from headrace.work.pool import control
from headrace.work.pool import parent as parent_module
from headrace.work.pool.parent import Parent
from headrace.worker_settings import WorkerSettings
from tests.patience import PATIENCE_S


class Yard:
    """A parent whose children do what the test says, and the settings file that it reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parent_module, "spawn", self._spawn)
        monkeypatch.setattr(parent_module, "end_group", lambda _: None)
        self.file = WorkerSettings(app="shop:app")
        self.started_with: list[str] = []
        """The app of each child."""
        self.room = True
        """Whether the system has room for a process."""
        self.parent = Parent(self.file, reread=lambda: self.file)
        self.parent._step()

    def _spawn(self, arguments: Sequence[str], **_: Any) -> Any:
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        self.started_with.append(load(WorkerSettings, arguments[3].encode()).app)
        return SimpleNamespace(pid=len(self.started_with))

    def says(self, number: int, message: control.Message) -> None:
        self.parent._heard(self.parent._processes[number], message)

    def ends(self, number: int, code: int) -> None:
        self.parent._gone(number, self.parent._processes[number], code)
        self.parent._step()

    async def hang_up(self, app: str) -> None:
        self.file = WorkerSettings(app=app)
        self.parent._reload()
        await asyncio.sleep(0)

    async def started(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.started_with) < number:  # noqa: ASYNC110  # a timer does it
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self.parent._reconciler.drain()
        for number in list(self.parent._processes):
            self.ends(number, 0)
        self.parent._folder.rmdir()


def test_reload_that_follows_a_failed_one_has_the_settings_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trial() -> None:
        yard = Yard(monkeypatch)
        yard.says(1, control.Working())
        await yard.hang_up("wrong:app")
        await yard.hang_up("right:app")  # corrected while the first try goes on
        yard.says(2, control.Failed("no module"))
        yard.ends(2, 1)
        await asyncio.sleep(0)
        assert yard.started_with == ["shop:app", "wrong:app", "right:app"]
        yard.says(3, control.Working())
        yard.ends(1, 0)
        assert yard.parent.settings.app == "right:app"
        yard.close()

    asyncio.run(trial())


def test_reload_that_fails_after_one_that_was_done_goes_back_to_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trial() -> None:
        yard = Yard(monkeypatch)
        yard.says(1, control.Working())
        await yard.hang_up("second:app")
        await yard.hang_up("wrong:app")
        yard.says(2, control.Working())
        yard.ends(1, 0)
        await asyncio.sleep(0)
        yard.says(3, control.Failed("no module"))
        assert yard.started_with == ["shop:app", "second:app", "wrong:app"]
        assert yard.parent.settings.app == "second:app"
        yard.close()

    asyncio.run(trial())


def test_child_that_the_system_has_no_room_for_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trial() -> None:
        before = descriptors()
        yard = Yard(monkeypatch)
        yard.says(1, control.Working())
        yard.room = False
        yard.ends(1, -9)
        assert yard.started_with == ["shop:app"]
        assert descriptors() == before
        yard.room = True
        await yard.started(2)
        yard.close()

    asyncio.run(trial())


def test_child_that_cannot_be_loaded_any_more_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def trial() -> None:
        yard = Yard(monkeypatch)
        yard.says(1, control.Working())
        yard.ends(1, -9)
        await yard.started(2)
        yard.says(2, control.Failed("there is no module 'shop'"))
        yard.ends(2, 1)
        yard.close()

    with caplog.at_level(logging.WARNING, "headrace.work"):
        asyncio.run(trial())
    assert "a process has ended (exit code 1): there is no module 'shop'" in caplog.messages


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
