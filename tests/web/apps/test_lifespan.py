"""The application's start and stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from headrace.web.apps.app_call import Receive, Scope, Send
from headrace.web.apps.lifespan import Lifespan, LifespanFailed
from tests.patience import PATIENCE_S

Mode = Literal["auto", "on", "off"]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), PATIENCE_S)

    asyncio.run(limited())


class App:
    """Follows a script: what it sends after each message, or raises."""

    def __init__(self, *script: str) -> None:
        self.script = script
        self.got: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["pool"] = "open"
        for step in self.script:
            self.got.append((await receive())["type"])
            if step == "raise":
                raise ValueError("no database")
            if step == "hang":
                await asyncio.Event().wait()
            if step:
                await send({"type": step, "message": "no database"})


def test_startup_and_shutdown() -> None:
    async def test() -> None:
        app = App("lifespan.startup.complete", "lifespan.shutdown.complete")
        lifespan = Lifespan(app, "on")
        await lifespan.startup()
        assert lifespan.state == {"pool": "open"} and app.got == ["lifespan.startup"]
        await lifespan.shutdown()
        await lifespan.shutdown()
        assert app.got == ["lifespan.startup", "lifespan.shutdown"]

    run(test)


@pytest.mark.parametrize("script", [("raise",), ("",), ()])
def test_auto_goes_on_without_a_lifespan(script: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        lifespan = Lifespan(App(*script), "auto")
        await lifespan.startup()
        assert lifespan.state == {}
        await lifespan.shutdown()

    with caplog.at_level(logging.INFO, "headrace.web"):
        run(test)
    assert [record.__dict__["action"] for record in caplog.records] == ["web.lifespan.absent"]


@pytest.mark.parametrize(("script", "words"), [(("raise",), "no database"), (("",), "without reporting")])
def test_on_insists(script: tuple[str, ...], words: str) -> None:
    async def test() -> None:
        with pytest.raises(LifespanFailed, match=words):
            await Lifespan(App(*script), "on").startup()

    run(test)


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_failed_startup_fails_in_every_mode(mode: Mode) -> None:
    async def test() -> None:
        with pytest.raises(LifespanFailed, match="did not start: no database"):
            await Lifespan(App("lifespan.startup.failed"), mode).startup()

    run(test)


def test_off_never_asks() -> None:
    async def test() -> None:
        app = App("raise")
        lifespan = Lifespan(app, "off")
        await lifespan.startup()
        await lifespan.shutdown()
        assert app.got == []

    run(test)


def test_a_startup_may_be_given_a_limit() -> None:
    async def test() -> None:
        with pytest.raises(LifespanFailed, match=r"longer than 0\.01 s"):
            await Lifespan(App("hang"), "on").startup(timeout_s=0.01)

    run(test)


@pytest.mark.parametrize(
    ("step", "actions"),
    [
        ("lifespan.shutdown.failed", ["web.lifespan.failed"]),
        ("hang", ["web.lifespan.slow"]),
        ("raise", ["web.lifespan.ended"]),
    ],
)
def test_a_shutdown_that_goes_wrong_is_logged(step: str, actions: list[str], caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        lifespan = Lifespan(App("lifespan.startup.complete", step), "auto")
        await lifespan.startup()
        await lifespan.shutdown(timeout_s=0.05)

    with caplog.at_level(logging.INFO, "headrace.web"):
        run(test)
    assert [record.__dict__["action"] for record in caplog.records] == actions


def test_messages_out_of_turn_are_refused() -> None:
    errors: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for kind in (
            "lifespan.shutdown.complete",
            "lifespan.nonsense",
            "lifespan.startup.complete",
            "lifespan.startup.complete",
        ):
            try:
                await send({"type": kind})
            except RuntimeError as error:
                errors.append(str(error))

    async def test() -> None:
        await Lifespan(app, "on").startup()

    run(test)
    assert len(errors) == 3
