from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = logging.getLogger("headrace")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def written(stream: io.StringIO, message: str = "it happened", **extra: Any) -> str:
    logging.getLogger("headrace.node").warning(message, extra=extra)
    return stream.getvalue()


def test_json_line_has_action_and_ids() -> None:
    stream = io.StringIO()
    logs.configure(stream, form="json")
    line = written(stream, queue="orders", action="store_full", count=3)
    assert line.endswith("}\n")
    found = json.loads(line)
    assert found["ts"].endswith("+00:00")
    del found["ts"]
    assert found == {
        "level": "warning",
        "logger": "headrace.node",
        "message": "it happened",
        "action": "store_full",
        "queue": "orders",
        "count": 3,
    }


def test_json_line_carries_the_traceback() -> None:
    stream = io.StringIO()
    logs.configure(stream, form="json")
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("headrace").exception("failed", extra={"action": "failed"})
    assert "ValueError: odd" in json.loads(stream.getvalue())["exception"]
    assert stream.getvalue().count("\n") == 1


def test_text_line_on_a_terminal_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    logs.configure(stream)
    assert "\x1b[33mWARNING\x1b[0m it happened" in written(stream, action="x")
    assert "action=x" in stream.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_is_left_out_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    stream = Terminal()
    logs.configure(stream)
    assert "\x1b" not in written(stream)


def test_auto_is_json_where_nobody_reads() -> None:
    stream = io.StringIO()
    logs.configure(stream)
    assert written(stream).startswith("{")


def test_level_and_root_are_respected(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logs.configure(stream, form="text", level="error")
    assert written(stream) == ""
    logs.configure(stream, form="text", level="debug")
    assert written(stream).count("it happened") == 1
    assert capsys.readouterr().err == ""


def test_client_text_cannot_forge_a_line_or_move_the_cursor() -> None:
    stream = io.StringIO()
    logs.configure(stream, form="text")
    line = written(stream, "a\nb\x1b[2J", queue="x y=\r\n\x1b[1A", empty="")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "\r" not in line
    assert r"a\nb\x1b[2J" in line
    assert "empty=''" in line


@given(message=st.text(), value=st.text() | st.binary() | st.integers() | st.none() | st.floats())
def test_any_value_makes_one_line(message: str, value: Any) -> None:
    for form in (logs.TextFormatter(colour=False), logs.JsonFormatter()):
        record = logging.makeLogRecord(
            {"msg": "%s", "args": (message.encode("utf-8", "replace").decode(),), "queue": value}
        )
        line = form.format(record)
        assert "\n" not in line
        line.encode()


def test_long_values_are_cut() -> None:
    record = logging.makeLogRecord({"msg": "m", "queue": "x" * 10_000})
    assert len(logs.JsonFormatter().format(record)) < 1_000
