"""A console on a loop in a thread of its own, before a real broker; looked at by a client that keeps cookies as a browser does."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from headrace.console.server import Console
from headrace.console_settings import ConsoleSettings
from tests.patience import PATIENCE_S


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def place(self) -> str:
        return self.headers["location"]


class Browser:
    """Asks one console; keeps its cookie; fills in the token of the page that it saw last."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""
        self.token = ""

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, b"", headers)

    def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> Answer:
        """Args: form: a list is a name that stands several times; the token of the last page is put beside."""
        body = urlencode({"token": self.token, **(form or {})}, doseq=True).encode()
        return self.ask("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded", **headers})

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, ({"Cookie": self.cookie} if self.cookie else {}) | sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        if "set-cookie" in found:
            self.cookie = found["set-cookie"].partition(";")[0]
        token = re.search(r'name="token" value="([0-9a-f]+)"', text)
        self.token = token[1] if token is not None else self.token
        return Answer(answer.status, found, text)

    def follow(self, answer: Answer) -> Answer:
        """The page that a form leads to."""
        assert answer.status == 303, answer
        return self.get(answer.place)


class Served:
    """A running console; `look` makes it ask the broker now, instead of within a second."""

    def __init__(self, console: Console, loop: asyncio.AbstractEventLoop, url: str) -> None:
        self.console = console
        self.loop = loop
        self.url = url
        self.port = int(url.rpartition(":")[2])

    def browser(self) -> Browser:
        return Browser(self.port)

    def look(self) -> None:
        self.call(self.console._sampler.sample())

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    """A console with these settings, on a free port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        console = asyncio.run_coroutine_threadsafe(_make(settings), loop).result(PATIENCE_S)
        url = asyncio.run_coroutine_threadsafe(console.start(), loop).result(PATIENCE_S)
        try:
            yield Served(console, loop, url)
        finally:
            asyncio.run_coroutine_threadsafe(console.close(), loop).result(PATIENCE_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.close()


async def _make(settings: dict[str, Any]) -> Console:
    return Console(ConsoleSettings(port=0, **settings))
