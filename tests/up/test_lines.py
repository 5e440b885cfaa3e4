from __future__ import annotations

import errno
import io
import json
import logging
import os
from typing import Any

import pytest

from headrace.up.lines import LINE_BYTES_MAX, Handler, Lines, Splitter, fields_of

LOGGED = b'{"ts":"2026-01-01T10:00:00.123+00:00","level":"warning","logger":"headrace.x","message":"full","action":"a.b","n":1}'


def written(line: bytes, *, text: bool, width: int = 0) -> str:
    stream = io.StringIO()
    lines = Lines(stream, text=text)
    lines.width = width
    lines.write("web", line)
    return stream.getvalue()


def test_json_stays_json_with_the_part() -> None:
    assert json.loads(written(LOGGED, text=False)) == {**json.loads(LOGGED), "service": "web"}


def test_what_is_printed_becomes_json() -> None:
    told = json.loads(written(b"hello \xff", text=False))
    assert (told["service"], told["action"], told["message"]) == ("web", "up.output", "hello \\xff")


def test_text_has_the_name_in_front_of_each_row() -> None:
    told = written(LOGGED, text=True, width=6)
    assert told.startswith("web    | ")
    assert told.endswith("WARNING full  action=a.b n=1\n")
    assert written(b"Traceback:\r", text=True) == "web | Traceback:\n"


def test_an_exception_is_told_after_its_line() -> None:
    rows = written(LOGGED[:-1] + b',"exception":"Traceback\\n  boom"}', text=True).splitlines()
    assert len(rows) == 3 and all(row.startswith("web | ") for row in rows)
    assert rows[-1].startswith("web |   boom")


@pytest.mark.parametrize("line", [b"", b"  "])
def test_empty_lines_are_left_out(line: bytes) -> None:
    assert written(line, text=False) == ""


@pytest.mark.parametrize("line", [b"{", b'{"a":1}', b"[]", b'{"ts":1,"level":2}'])
def test_json_that_is_no_log_line_is_what_somebody_printed(line: bytes) -> None:
    assert fields_of(line) == {}
    assert json.loads(written(line, text=False))["message"] == line.decode()


def test_times_and_levels_of_another_kind_do_no_harm() -> None:
    assert "odd" in written(b'{"ts":7,"level":null,"message":"odd"}', text=True)


def test_own_lines_are_among_them() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("headrace.test_lines")
    logger.addHandler(Handler(Lines(stream, text=False)))
    logger.propagate = False
    logger.warning("%s keeps ending", "web", extra={"action": "up.service.failing", "of": "web"})
    told: dict[str, Any] = json.loads(stream.getvalue())
    assert (told["service"], told["of"], told["message"]) == ("up", "web", "web keeps ending")


def test_lines_are_cut_where_they_end_and_where_they_are_too_long() -> None:
    told: list[bytes] = []
    splitter = Splitter(told.append)
    for piece in (b"on", b"e\r\ntwo\n", b"x" * (LINE_BYTES_MAX + 1), b"y\nlast"):
        splitter.data_received(piece)
    splitter.connection_lost(None)
    assert told[:2] == [b"one", b"two"]
    assert b"".join(told[2:-1]) == b"x" * (LINE_BYTES_MAX + 1) + b"y"
    assert told[-1] == b"last" and max(map(len, told)) <= LINE_BYTES_MAX


@pytest.mark.parametrize(("number", "hung_up"), [(errno.EIO, True), (errno.EPIPE, False), (errno.ENOSPC, False)])
def test_a_reader_that_is_gone_ends_nobody(number: int, hung_up: bool) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(number, os.strerror(number))

    lines = Lines(Gone(), text=False)
    lines.write("web", b"hello")
    assert lines.hung_up is hung_up


@pytest.mark.parametrize("text", [True, False])
def test_bytes_of_any_kind_and_lines_of_any_length_are_told_within_bounds(text: bool) -> None:
    stream = io.StringIO()
    lines = Lines(stream, text=text)
    splitter = Splitter(lambda line: lines.write("web", line))
    data = b"\x00\xff\x1b[2J\x85\n" + b"x" * (10 << 20)
    for start in range(0, len(data), 65_536):
        splitter.data_received(data[start : start + 65_536])
        assert len(splitter._rest) <= 2 * LINE_BYTES_MAX
    splitter.connection_lost(None)
    assert stream.getvalue().count("x") >= 10 << 20
