"""Requests given ahead, with real processes: many clients at once, a worker killed among them, long requests among short."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve, wait_until

pytestmark = pytest.mark.serial

CLIENTS = 12
APP = """
import os, threading, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] == "POST":
        with open("begun", "a") as file:
            file.write(path + chr(10))
    elif path == "/long":
        time.sleep(3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [path.encode()]
"""


class Client:
    """Asks for one thing after the other on a connection of its own."""

    def __init__(self, port: int, number: int) -> None:
        self.outcomes: Counter[tuple[str, int]] = Counter()
        self.posts: dict[str, int] = {}
        self.slowest_s = 0.0
        self.wrong: list[str] = []
        self._port = port
        self._number = number
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._over = threading.Event()
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        turn = 0
        while not self._over.is_set():
            turn += 1
            method, path = "POST" if turn % 4 == 0 else "GET", f"/{self._number}-{turn}"
            begun_s = time.monotonic()
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read().decode()
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun_s)
            self.outcomes[method, answer.status] += 1
            if method == "POST":
                self.posts[path] = answer.status
            if answer.status == 200 and body != path:
                self.wrong.append(f"{path} was answered {body}")
        connection.close()


@contextmanager
def clients(server: WebProcess) -> Iterator[list[Client]]:
    running = [Client(server.port, number) for number in range(CLIENTS)]
    try:
        yield running
    finally:
        for client in running:
            client.end()


def answered(running: list[Client]) -> int:
    return sum(sum(client.outcomes.values()) for client in running)


def pass_by(running: list[Client], count: int) -> None:
    goal = answered(running) + count
    wait_until(lambda: answered(running) >= goal)


def test_worker_killed_in_the_middle_of_a_pipeline_fails_only_posts_that_may_have_begun(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    with serve(tmp_path, "shop:app", "--workers", "2") as server:
        with clients(server) as running:
            for _ in range(4):
                pass_by(running, 500)
                os.kill(next(iter(server.workers())), signal.SIGKILL)
                wait_until(lambda: len(server.workers()) == 2)
            pass_by(running, 500)
        outcomes = sum((client.outcomes for client in running), Counter[tuple[str, int]]())
        assert {outcome for outcome in outcomes if outcome[1] != 200} <= {("POST", 502)}, outcomes
        assert outcomes["POST", 502] <= 4 * 8, "at most what the killed ones had threads"
        assert [client.wrong for client in running if client.wrong] == []
        begun = Counter((tmp_path / "begun").read_text().split())
        assert begun.most_common(1)[0][1] == 1, "no POST begins twice"
        posts = {path: status for client in running for path, status in client.posts.items()}
        assert [path for path, status in posts.items() if status == 200 and path not in begun] == []
        server.stop()


def test_long_requests_among_short_ones_hold_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    with serve(tmp_path, "shop:app", "--workers", "1", "--threads", "4") as server:
        with clients(server) as running:
            pass_by(running, 200)
            for client in running:
                client.slowest_s = 0.0
            assert server.text("/long") == "/long"
        # Behind the long one they would have waited for 3 s; a quiet machine shows 0.01 s.
        assert max(client.slowest_s for client in running) < 2
        server.stop()
