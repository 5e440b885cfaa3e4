"""docs/python.md: its examples run, and it names every method and setting."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import headrace
from headrace.native.client import Transaction
from headrace.native.settings import SettingValues
from tests.native.served import ServedBroker

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


def test_examples_run_from_top_to_bottom(
    served: ServedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "example"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    for block in blocks:
        source = block.replace("http://127.0.0.1:9324", served.url)
        exec(compile(source, "docs/python.md", "exec"), names)

    printed = capsys.readouterr().out
    assert len(blocks) >= 10
    assert printed.startswith("2\n")
    assert "{1: MessageTooLong(size_bytes=2000000, bound_bytes=1048576)}" in printed
    assert """{b'last order': b'{"book":7,"copies":2}'}""" in printed
    assert printed.count("{'job': ") == 100


def test_every_setting_is_in_the_table() -> None:
    assert [name for name in SettingValues.__annotations__ if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize(
    "kind", [headrace.Client, headrace.Queue, headrace.Topic, headrace.ReceivedMessage, Transaction]
)
def test_every_method_is_named(kind: type) -> None:
    methods = [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]

    assert [name for name in methods if not re.search(rf"\b{name}\b", PAGE)] == []
