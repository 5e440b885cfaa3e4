"""The access log: its lines, what it never says, and what happens when it cannot be written as fast as they come."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from headrace.web.frontend import access_log
from headrace.web.frontend.access_log import AccessLog, Format, LogUnusable, open_for
from tests.http.support import on_loop
from tests.web.fakes import FakeExchange

FULL = Path("/dev/full")
COMBINED = re.compile(
    r'(\S+) - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "(.*)" (\d+) (\d+) "(.*)" "(.*)"'
)


def done(
    method: str = "GET", target: str = "/a?b=c", *, status: int = 200, sent: int = 7, **headers: str
) -> FakeExchange:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    exchange = FakeExchange(method, target, named, began_s=10.0)
    exchange.status, exchange.sent_bytes, exchange.route, exchange.waited_s = status, sent, "/", 0.25
    return exchange


def log_to(path: Path | None, form: Format = "combined") -> AccessLog:
    return AccessLog(path, form, loop=asyncio.get_running_loop(), now_s=lambda: 11.5, unix_s=lambda: 1_700_000_000.9)


def lines_of(path: Path, form: Format, *exchanges: FakeExchange) -> list[str]:
    log = log_to(path, form)
    for exchange in exchanges:
        log.record(exchange)
    log.close()
    return path.read_text().splitlines()


@on_loop
async def test_combined(tmp_path: Path) -> None:
    exchange = done(user_agent="curl/8", referer="https://a.example/")
    [line] = lines_of(tmp_path / "log", "combined", exchange)
    found = COMBINED.fullmatch(line)
    assert found is not None
    assert found[1] == "192.0.2.1"
    assert found[2].startswith("14/Nov/2023:") or found[2].startswith("15/Nov/2023:")
    assert found.groups()[2:] == ("GET /a?b=c HTTP/1.1", "200", "7", "https://a.example/", "curl/8")
    [line] = lines_of(tmp_path / "other", "combined", done())
    assert line.endswith('"GET /a?b=c HTTP/1.1" 200 7 "-" "-"')


@on_loop
async def test_json(tmp_path: Path) -> None:
    exchange = done("POST", status=503, user_agent="curl/8", x_request_id="r-1")
    exchange.root_path = "/mount"
    [line] = lines_of(tmp_path / "log", "json", exchange)
    assert msgspec.json.decode(line) == {
        "ts": "2023-11-14T22:13:20Z",
        "client": "192.0.2.1",
        "method": "POST",
        "host": "example.org",
        "target": "/mount/a?b=c",
        "version": "1.1",
        "status": 503,
        "sent_bytes": 7,
        "duration_s": 1.5,
        "wait_s": 0.25,
        "route": "/",
        "referer": "",
        "agent": "curl/8",
        "request_id": "r-1",
    }


@pytest.mark.parametrize("form", ["combined", "json"])
@on_loop
async def test_nothing_that_a_client_sends_breaks_a_line_or_moves_a_cursor(tmp_path: Path, form: Format) -> None:
    nasty = 'a"b\\c\nd\re\x1b[2Jf\x00g\x7fh\x9b2Ji\t\xff'
    exchange = done(target="/" + nasty, user_agent=nasty, referer=nasty, x_request_id=nasty)
    exchange.headers[b"host"] = nasty.encode("latin-1")
    lines_of(tmp_path / "log", form, exchange, exchange)
    data = (tmp_path / "log").read_bytes()
    text = data.decode()
    assert data.count(b"\n") == 2
    assert all(c >= " " and not "\x7f" <= c <= "\x9f" for c in text.replace("\n", ""))
    if form == "combined":
        assert all(COMBINED.fullmatch(line) for line in text.splitlines())
        assert r"a\x22b\x5Cc\x0Ad\x0De\x1B[2Jf\x00g\x7Fh\x9B2Ji\x09\xFF" in text
    else:
        assert all(msgspec.json.decode(line)["status"] == 200 for line in text.splitlines())


@pytest.mark.parametrize("form", ["combined", "json"])
@on_loop
async def test_secrets_and_endless_values_are_not_written(tmp_path: Path, form: Format) -> None:
    exchange = done(target="/" + "x" * 60_000, authorization="Bearer s3cret", cookie="s3cret", user_agent="y" * 60_000)
    [line] = lines_of(tmp_path / "log", form, exchange)
    assert "s3cret" not in line
    assert len(line) < 5_000


class Timers:
    """A loop whose time does not pass."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.due.append((delay_s, callback))
        return asyncio.get_running_loop().call_later(3_600, callback)


@on_loop
async def test_lines_are_written_together_a_moment_later_and_in_order(tmp_path: Path) -> None:
    path, timers = tmp_path / "log", Timers()
    log = AccessLog(path, "combined", loop=cast("asyncio.AbstractEventLoop", timers))
    for number in range(1_000):
        log.record(done(target=f"/{number}"))
    assert log._given == 0
    [(delay_s, flush)] = timers.due
    assert delay_s == 0.1
    flush()
    assert log._given > 0
    log.record(done(target="/1000"))
    assert len(timers.due) == 2
    log.close()
    log.close()
    assert re.findall(r"GET /(\d+) ", path.read_text()) == [str(number) for number in range(1_001)]


@on_loop
async def test_reopen_goes_on_in_a_new_file_and_loses_nothing(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    log = log_to(path)
    log.record(done(target="/before"))
    path.rename(old)
    log.reopen()
    log.record(done(target="/after"))
    log.close()
    assert "/before" in old.read_text() and "/after" not in old.read_text()
    assert "/after" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640


@on_loop
async def test_reopen_that_fails_goes_on_in_the_old_file_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = log_to(folder / "log")
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.record(done())
    log.close()
    assert "/a?b=c" in (tmp_path / "moved" / "log").read_text()
    with caplog.at_level(logging.WARNING, "headrace.web"):
        log._report()
    assert "going on in the old file" in caplog.text


@on_loop
async def test_a_pipe_that_nobody_reads_blocks_no_request_and_costs_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log, "_WAITING_CHARACTERS_MAX", 200_000)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = log_to(fifo)
    with caplog.at_level(logging.WARNING, "headrace.web"):
        for _ in range(200):
            for _ in range(50):
                log.record(done())
            log.flush()
    assert log.dropped > 1_000
    assert log._given < 400_000
    [record] = caplog.records  # one warning a minute, not one a line
    assert "too slowly" in record.getMessage()
    os.set_blocking(reader, True)
    drained = bytearray()

    def drain() -> None:
        while data := os.read(reader, 65_536):
            drained.extend(data)

    thread = threading.Thread(target=drain)
    thread.start()
    log.close()
    thread.join()
    os.close(reader)
    assert drained.count(b"\n") == 10_000 - log.dropped


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@on_loop
async def test_a_full_disk_is_told_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    log = log_to(FULL)
    log.record(done())
    log.record(done())
    log.close()
    with caplog.at_level(logging.WARNING, "headrace.web"):
        log._report()
    assert log.dropped == 2
    assert "/dev/full: No space left on device" in caplog.text


@on_loop
async def test_a_non_blocking_standard_output_loses_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    log = log_to(Path("/dev/null"))
    os.dup2(writer, log._writer._fd)
    os.set_blocking(log._writer._fd, False)
    os.close(writer)
    for _ in range(5_000):
        log.record(done())
    log.flush()
    closing = threading.Thread(target=log.close)
    closing.start()
    count = 0
    while data := os.read(reader, 65_536):
        count += data.count(b"\n")
    closing.join()
    os.close(reader)
    assert count == 5_000


@on_loop
async def test_the_setting_says_where_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.get_running_loop()
    assert open_for("off", "combined", loop=loop) is None
    assert open_for("auto", "combined", loop=loop, terminal=False) is None
    for setting, terminal in (("-", False), ("auto", True)):
        log = open_for(setting, "combined", loop=loop, terminal=terminal)
        assert log is not None
        log.record(done(target=f"/{setting}"))
        log.close()
        assert f"/{setting} " in capfd.readouterr().out
    with pytest.raises(LogUnusable, match="No such file or directory"):
        open_for(str(tmp_path / "no" / "log"), "combined", loop=loop)
