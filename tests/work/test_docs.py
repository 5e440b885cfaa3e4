"""The guide's examples run, in its order, as a reader would type them; its tests pass."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from pathlib import Path

import httpx
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module that the guide writes, block by block: annotations are looked up in it."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, "tasks.md", "exec"), module.__dict__)
    return module


def test_the_guide_runs_from_top_to_bottom(shop: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with shop.app as app:
        app.backend.send("orders", [_entry(b'{"street":"Low Street","number":3}')])
        app.backend.send("clicks", [_entry(b"{}")] * 3)
        dispositions = [run.disposition for run in app.run_pending()]
    assert set(dispositions) == {"succeeded", "dead"}
    assert dispositions.count("dead") == 1  # what is gone
    assert sorted(capsys.readouterr().out.splitlines()) == ["3", "Low Street"]


def test_the_guides_web_handler_sends_before_it_answers(shop: types.ModuleType) -> None:
    async def sign_up() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(shop.web), base_url="http://shop") as client:
            return await client.post("/sign-up?email=ada@example.org")

    with shop.in_memory(shop.app) as tests:
        answer = asyncio.run(sign_up())
        assert (answer.status_code, answer.json()) == (202, {"task": tests.pending()[0].id})
    shop.app.close()


def test_the_guide_shows_the_error_that_there_is(tmp_path: Path, shop: types.ModuleType) -> None:
    [shown] = re.findall(r"print\(error\)  # (.*)", PAGE.read_text())
    with pytest.raises(shop.headrace.CallerError) as caught:
        shop.deliver.send(shop.Address("High Street", 1), "soon")
    assert str(caught.value) == shown
    shop.app.close()


def test_the_tests_of_the_guide_pass(shop: types.ModuleType) -> None:
    tests = [value for name, value in vars(shop).items() if name.startswith("test_")]
    shop.app.close()
    for test in tests:
        test()
    assert len(tests) == 2


def _entry(body: bytes) -> object:
    from headrace.queue.model import Entry

    return Entry(body)
