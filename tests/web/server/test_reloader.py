"""Reloads at an awkward moment; the supervisor is played by the test, the rest is in test_serve_faults."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from headrace.web.server import control
from headrace.web.server.reloader import Reloader
from headrace.web.server.supervisor import Supervisor
from headrace.web.settings import WebSettings


class EndingSupervisor:
    """Is told to stop while its edge looks at the new settings."""

    def __init__(self) -> None:
        self.settings = WebSettings(app="shop:app", edges=1)
        self.edges = self
        self.apps: list[str] = []
        self.worker_groups: list[Any] = []
        self.draining = False
        self.started = False

    def edge_links(self, _: int) -> list[list[str]]:
        return []

    async def apply(self, _: int, message: control.Apply) -> str:
        assert not message.switch
        self.draining = True
        return ""

    def start_worker_groups(self, _: object) -> list[Any]:
        self.started = True
        return []

    async def wait(self, condition: Any) -> None:
        assert condition()


def test_reload_starts_nothing_when_the_end_has_begun_meanwhile() -> None:
    async def trial() -> None:
        supervisor = EndingSupervisor()
        new = WebSettings(app="shop:app", edges=1, workers=3)
        reloader = Reloader(cast("Supervisor", supervisor), lambda: new)
        reloader.ask()
        assert reloader._task is not None
        await reloader._task
        assert supervisor.draining and not supervisor.started
        assert supervisor.settings.workers != 3

    asyncio.run(trial())
