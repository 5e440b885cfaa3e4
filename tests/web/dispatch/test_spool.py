"""Bodies that are kept until they are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.web.dispatch.limits import SPOOL_MEMORY_BYTES
from headrace.web.dispatch.spool import SpooledExchange, Spooler
from tests.http.support import on_loop
from tests.web.fakes import FakeExchange


class Rig:
    def __init__(self, folder: Path, **budgets: int) -> None:
        self.passed: list[Exchange] = []
        self.refused: list[str] = []
        self.spooler = Spooler(
            self.passed.append,
            on_refused=self.refused.append,
            folder=folder,
            **budgets,
        )

    def begin(self, method: str = "POST", **kwargs: object) -> FakeExchange:
        exchange = FakeExchange(method, "/up", body=None, **kwargs)  # type: ignore[arg-type]
        self.spooler.collect(exchange)
        return exchange

    @property
    def spooled(self) -> SpooledExchange:
        [exchange] = self.passed
        assert isinstance(exchange, SpooledExchange)
        return exchange


def read(exchange: Exchange) -> bytes:
    pieces = []
    while True:
        ended = exchange.ended
        pieces.append(exchange.take())
        if ended:
            return b"".join(pieces)


@on_loop
async def test_request_waits_until_its_body_is_whole(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin()
    client.arrive(b"ab")
    assert rig.passed == []
    client.arrive(b"cd")
    client.end()
    assert rig.spooled.length == 4, "the length of a chunked body is known"
    assert read(rig.spooled) == b"abcd"


@on_loop
async def test_body_can_be_read_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin()
    body = os.urandom(SPOOL_MEMORY_BYTES + 100_000)
    for start in range(0, len(body), 50_000):
        client.arrive(body[start : start + 50_000])
    client.end()
    assert read(rig.spooled) == body
    rig.spooled.rewind()
    assert read(rig.spooled) == body
    assert os.listdir(tmp_path) == [], "the file has no name"  # noqa: PTH208  # the names are what is asked
    client.leave()


@on_loop
async def test_space_is_given_back_after_the_answer(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for size in (100, SPOOL_MEMORY_BYTES * 3):
        client = rig.begin()
        client.arrive(bytes(size))
        client.end()
        assert rig.spooler.memory_bytes + rig.spooler.file_bytes == size
        rig.passed.pop().respond(200, Fields(), b"ok")
        assert client.whole and client.text == "ok"
        assert rig.spooler.memory_bytes == rig.spooler.file_bytes == 0


@on_loop
async def test_cut_body_is_dropped(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for size in (10, SPOOL_MEMORY_BYTES + 1):
        client = rig.begin()
        client.arrive(bytes(size))
        client.leave()
    assert rig.passed == [] and rig.spooler.memory_bytes == rig.spooler.file_bytes == 0


@on_loop
async def test_expecting_client_is_invited_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin(headers={"Expect": "100-continue"})
    assert client.invited
    client.end()
    assert not rig.spooled.expects


@on_loop
async def test_memory_of_all_bodies_is_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, budget_memory_bytes=150)
    clients = [rig.begin() for _ in range(3)]
    for client in clients:
        client.arrive(bytes(100))
    assert (rig.spooler.memory_bytes, rig.spooler.file_bytes) == (100, 200)
    for client in clients:
        client.leave()
    assert rig.spooler.memory_bytes == rig.spooler.file_bytes == 0


@on_loop
async def test_exhausted_budget_is_503(tmp_path: Path) -> None:
    rig = Rig(tmp_path, budget_bytes=150)
    rig.begin().arrive(bytes(100))
    second = rig.begin()
    second.arrive(bytes(100))
    assert second.status == 503 and second.refused == "spool-full" and second.header("retry-after") == "10"
    assert rig.refused == ["spool-full"] and rig.spooler.memory_bytes == 100


@on_loop
async def test_full_disk_is_507(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    rig = Rig(tmp_path)
    client = rig.begin()
    monkeypatch.setattr("headrace.web.dispatch.spool.os.write", full)
    client.arrive(bytes(SPOOL_MEMORY_BYTES + 1))
    assert client.status == 507 and rig.refused == ["spool-full"]
    assert rig.spooler.memory_bytes == rig.spooler.file_bytes == 0


@on_loop
async def test_no_descriptors_is_503(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "absent")
    client = rig.begin()
    client.arrive(bytes(SPOOL_MEMORY_BYTES + 1))
    assert client.status == 503 and rig.refused == ["spool-failed"]


@on_loop
async def test_file_that_cannot_be_read_is_500(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin()
    client.arrive(bytes(SPOOL_MEMORY_BYTES + 1))
    client.end()
    file = rig.spooled._spool._file
    assert file is not None
    os.ftruncate(file.fileno(), 0)
    assert rig.spooled.take() == b"" and client.status == 500


@on_loop
async def test_answer_passes_through(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin()
    client.end()
    told: list[int] = []
    spooled = rig.spooled
    spooled.notify = lambda: told.append(1)
    spooled.waited_s = 1.5
    spooled.inform(103, Fields())
    client.block()
    spooled.start(200, Fields(length=5))
    assert not spooled.writable
    client.unblock()
    assert told and spooled.writable
    spooled.send(b"hello")
    spooled.finish()
    assert client.log == ["inform 103", "start 200", "send 5", "finish"] and client.waited_s == 1.5


@on_loop
async def test_head_keeps_its_length(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin("HEAD")
    client.end()
    rig.spooled.respond(200, Fields(), b"12345")
    assert client.fields.length == 5 and client.body == b""


@on_loop
async def test_client_that_leaves_is_told_to_the_consumer(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin()
    client.end()
    told: list[tuple[bool, bool]] = []
    spooled = rig.spooled
    spooled.notify = lambda: told.append((spooled.half_closed, spooled.gone))
    client.half_closed = True
    assert client.notify is not None
    client.notify()
    client.leave()
    assert told == [(True, False), (True, True)] and client.status == 499


@on_loop
async def test_abort_ends_the_client_s_connection(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.begin()
    client.end()
    rig.spooled.start(200, Fields())
    rig.spooled.abort()
    assert client.aborted
