"""What the supervisor does about edges that end; the processes are played by the test."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace.web import edges
from headrace.web.control import Boot
from headrace.web.edges import Edges


class EndedProcess:
    """A process that has ended already."""

    def poll(self) -> int:
        return 1


def test_an_edge_that_never_starts_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[Any] = []

    def spawn(*arguments: Any, **more: Any) -> EndedProcess:
        spawned.append(arguments)
        return EndedProcess()

    def boot(number: int, sockets: list[int]) -> Boot:
        raise AssertionError("it never asks")

    monkeypatch.setattr(edges, "spawn", spawn)
    monkeypatch.setattr(edges, "backoff_s", lambda crashes: 0.0)

    async def trial() -> None:
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        some = Edges(
            tmp_path / "control",
            [[3]],
            boot=boot,
            on_change=lambda: None,
            on_ended=lambda _: None,
            on_start_failed=failed.set_result,
            on_hung=lambda _: None,
        )
        some.start()
        while not failed.done():  # the restarts are timers of the loop
            some.reap()
            await asyncio.sleep(0)
        assert "exit code 1" in failed.result()
        assert len(spawned) == edges._START_TRIES

    asyncio.run(trial())
