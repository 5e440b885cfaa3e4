"""The broker beside the web server: its socket is its folder's, and its port is nobody's."""

from __future__ import annotations

import asyncio
import errno
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import uvloop

import headrace
from headrace import managed_broker
from headrace.managed_broker import ManagedBroker
from headrace.native.endpoint import is_served
from tests.patience import PATIENCE_S
from tests.web.web_process import serve


def test_port_of_the_own_broker_is_closed_to_other_users_of_the_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def trial() -> None:
        told = asyncio.Event()
        broker = ManagedBroker(tmp_path / "data", keys=tmp_path / "keys.json", on_ended=told.set)
        await broker.start()
        try:
            async with headrace.connect_async(f"unix://{tmp_path}/data/headrace.sock") as client:
                await client.queue("stored", create=True)
            log = ""
            async with asyncio.timeout(PATIENCE_S):
                while (ready := re.search(r"127\.0\.0\.1:(\d+)", log)) is None:
                    await asyncio.sleep(0.01)
                    log += capfd.readouterr().err
            await asyncio.to_thread(refused, int(ready[1]))
            assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
        finally:
            broker.stop()
            await ended(broker)
        assert told.is_set()

    uvloop.run(trial())


def test_broker_of_somebody_else_is_used_and_replaced_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed_broker, "_WATCH_S", 0.01)
    monkeypatch.setattr(managed_broker, "_TAKE_OVER_S", 0.05)

    async def trial() -> None:
        other = ManagedBroker(tmp_path / "data", keys=tmp_path / "other.json", on_ended=lambda: None)
        await other.start()
        broker = ManagedBroker(tmp_path / "data", keys=tmp_path / "keys.json", on_ended=lambda: None)
        await broker.start()
        assert broker.over
        other.kill()
        await ended(other)
        async with asyncio.timeout(PATIENCE_S):
            while broker.over or not is_served(tmp_path / "data"):  # noqa: ASYNC110  # another process does it
                await asyncio.sleep(0.01)
        broker.stop()
        await ended(broker)

    uvloop.run(trial())


def test_broker_that_the_system_has_no_room_for_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []

    def no_room(*_: object) -> None:
        tries.append(None)
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(managed_broker, "spawn", no_room)

    async def trial() -> None:
        broker = ManagedBroker(tmp_path / "data", keys=tmp_path / "keys.json", on_ended=lambda: None)
        await broker.start()
        async with asyncio.timeout(PATIENCE_S):
            while len(tries) < 2:  # noqa: ASYNC110  # a timer does it
                await asyncio.sleep(0.01)
        broker.stop()

    uvloop.run(trial())


@pytest.mark.serial
def test_own_broker_ends_with_the_supervisor(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def app(environ, start_response):\n    raise SystemExit\n", encoding="utf-8")
    with serve(tmp_path, "app:app", "--workers", "1", "--broker", str(tmp_path / "data")) as server:
        assert is_served(tmp_path / "data")
        server.process.kill()
        server.wait_end()
        server.wait_empty()
    assert not is_served(tmp_path / "data")


async def ended(broker: ManagedBroker) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not broker.over:
            await asyncio.sleep(0.01)
            broker.reap()  # the supervisor does this at SIGCHLD


def refused(port: int) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/",
        json.dumps({}).encode(),
        {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.ListQueues"},
    )
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request)
    with answer.value as error:
        assert error.code == 403, error.read()
