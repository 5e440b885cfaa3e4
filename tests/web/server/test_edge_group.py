"""What the supervisor does about edges that end; the processes are played by the test."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace.web.server import edge_group
from headrace.web.server.control import Boot, ControlChannel, Hello, Ready, Report
from headrace.web.server.edge_group import EdgeGroup


class EndedProcess:
    """A process that has ended already."""

    def poll(self) -> int:
        return 1


class RunningProcess:
    """A process that runs until it is killed."""

    def __init__(self) -> None:
        self.killed = False

    def kill(self) -> None:
        self.killed = True


def test_an_edge_that_does_not_report_any_more_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = RunningProcess()
    monkeypatch.setattr(edge_group, "spawn", lambda *_, **__: process)

    async def trial() -> None:
        some = EdgeGroup(
            tmp_path / "control",
            [[3]],
            boot=lambda number, sockets: Boot(b"{}"),
            on_change=lambda: None,
            on_ended=lambda _: None,
            on_start_failed=lambda _: None,
            on_hung=lambda _: None,
        )
        some.start()
        channel = ControlChannel(on_message=lambda *_: None, on_lost=lambda _: None)
        some.attach(channel, Hello("edge", 1, 0))
        for _ in range(2 * edge_group._SILENT_LOOKS_MAX):
            some._look()
        assert not process.killed, "it starts still"
        channel.on_message(channel, Ready())
        for _ in range(2 * edge_group._SILENT_LOOKS_MAX):
            channel.on_message(channel, Report())
            some._look()
        assert not process.killed
        for _ in range(edge_group._SILENT_LOOKS_MAX - 1):
            some._look()
        assert process.killed

    asyncio.run(trial())


def test_an_edge_that_never_starts_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[Any] = []

    def spawn(*arguments: Any, **more: Any) -> EndedProcess:
        spawned.append(arguments)
        return EndedProcess()

    def boot(number: int, sockets: list[int]) -> Boot:
        raise AssertionError("it never asks")

    monkeypatch.setattr(edge_group, "spawn", spawn)
    monkeypatch.setattr(edge_group, "backoff_s", lambda crashes: 0.0)

    async def trial() -> None:
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        some = EdgeGroup(
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
        assert len(spawned) == edge_group._START_TRIES

    asyncio.run(trial())
