"""An app for tests: tasks that succeed, fail in every way, send others, and remember what they did."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.work import App, GiveUp, Retry, current


def build(**options: Any) -> tuple[App, list[tuple[Any, ...]]]:
    """A new app and the list of what its tasks did."""
    app = App(**options)
    did: list[tuple[Any, ...]] = []

    @app.task(name="add", result_ttl="1h")
    def add(a: int, b: int = 2) -> int:
        did.append(("add", a, b))
        return a + b

    @app.task(name="double", result_ttl="1h")
    async def double(a: int) -> int:
        await asyncio.sleep(0)
        did.append(("double", a))
        return 2 * a

    @app.task(name="fail", retries=2, result_ttl="1h")
    def fail(text: str = "no") -> None:
        did.append(("fail", current().attempt))
        raise ValueError(text)

    @app.task(name="give_up")
    def give_up() -> None:
        raise GiveUp("not worth it")

    @app.task(name="again", retries=3)
    def again(times: int) -> None:
        did.append(("again", current().attempt))
        if current().attempt <= times:
            raise Retry("not yet", delay="10s")

    @app.task(name="outbox", outbox=True, retries=1)
    def outbox(*, fails: bool) -> None:
        add.send(1)
        add.send(2)
        if fails and current().attempt == 1:
            raise ValueError("after sending")

    @app.task(name="slow", timeout=0.01, retries=0)
    async def slow() -> None:
        await asyncio.sleep(60)

    return app, did
