"""The broker beside the web server: its socket is its folder's, and its port is nobody's."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import uvloop

import headrace
from headrace.web.own_broker import OwnBroker


def test_port_of_the_own_broker_is_closed_to_other_users_of_the_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def trial() -> None:
        ended = asyncio.Event()
        broker = OwnBroker(tmp_path / "data", keys=tmp_path / "keys.json", on_ended=ended.set)
        await broker.start()
        try:
            async with headrace.connect_async(f"unix://{tmp_path}/data/headrace.sock") as client:
                await client.queue("stored", create=True)
            log = ""
            async with asyncio.timeout(10):
                while (ready := re.search(r"127\.0\.0\.1:(\d+)", log)) is None:
                    await asyncio.sleep(0.01)
                    log += capfd.readouterr().err
            await asyncio.to_thread(refused, int(ready[1]))
            assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
        finally:
            broker.stop()
            while not broker.over:  # the supervisor does this at SIGCHLD
                await asyncio.sleep(0.01)
                broker.reap()
        assert ended.is_set()

    uvloop.run(trial())


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
