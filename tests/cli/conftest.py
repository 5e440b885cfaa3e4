"""Run the command line in this process against a broker over a real socket."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.cli.main import main
from tests.native.served import ServedBroker


class Terminal(io.TextIOWrapper):
    """A stdin at which a person sits."""

    def isatty(self) -> bool:
        return True


class Result:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Calls `headrace`; `--broker` comes from the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: str | bytes = "", terminal: bool = False) -> Result:
        data = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        self._monkeypatch.setattr(sys, "stdin", Terminal(data) if terminal else io.TextIOWrapper(data))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedBroker]:
    broker = ServedBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def run(served: ServedBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.setenv("HEADRACE_BROKER", served.url)
    monkeypatch.setenv("COLUMNS", "160")
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def client(served: ServedBroker) -> Iterator[headrace.Client]:
    with headrace.connect(served.url, patience=0) as client:
        yield client
