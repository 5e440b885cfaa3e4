"""Durable requests while everything that takes part in them is killed at random: what was accepted is done, once at least."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve, wait_until

REQUESTS = int(os.environ.get("HEADRACE_TEST_DURABLE", "250"))
"""5,000 is what was promised."""
CLIENTS = 8
KILLS = 12

APP = """
import os
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    if body:
        with open("done", "ab", 0) as file:  # one write, so that lines of several workers do not mix
            file.write(body + b"\\n")
    answer = b"did " + body
    start_response("201 Created", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"""

SETTINGS = """
[web]
app = "shop:app"
workers = 2
broker = "queue"
[[web.durable]]
path = "/orders"
attempts_max = 50
retry_s = 0.05
"""


class Client(threading.Thread):
    """Sends its requests one after the other, each until it is accepted: 503 and a cut connection are none.

    With permits it waits for one for each: so many are on their way when something is killed, however fast the machine is."""

    def __init__(self, port: int, names: list[str], permits: threading.Semaphore | None = None) -> None:
        super().__init__(daemon=True)  # a failing test releases no more permits
        self._port = port
        self._permits = permits
        self._names = names
        self.locations: dict[str, str] = {}
        self.statuses: Counter[object] = Counter()

    def run(self) -> None:
        for name in self._names:
            if self._permits is not None:
                self._permits.acquire()
            while not self._send(name):
                time.sleep(0.05)  # as clients do that are told to come again

    def _send(self, name: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            headers = {"Idempotency-Key": f'"{name}"', "Content-Type": "text/plain"}
            connection.request("POST", "/orders", name.encode(), headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.statuses[type(error).__name__] += 1
            return False
        finally:
            connection.close()
        self.statuses[answer.status] += 1
        if answer.status in (202, 409):  # 409: it was accepted, though its 202 was cut, and is not done yet
            self.locations[name] = answer.headers["Location"]
        elif answer.status == 201:  # the same, and it is done by now
            assert body == b"did " + name.encode()
            self.locations[name] = answer.headers["Content-Location"]
        return name in self.locations


def victims(server: WebProcess) -> Iterator[int]:
    """One kind after the other: a worker, the fork server, the edge, the broker."""
    dice = random.Random(1)
    while True:
        for kind in ("worker", "edge", "broker", "worker", "fork_server", "worker"):
            kinds: dict[str, Callable[[], set[int]]] = {
                "worker": server.workers,
                "fork_server": server.fork_servers,
                "edge": server.edges,
                "broker": lambda: {pid for pid, line in server.processes().items() if " broker " in f"{line} "},
            }
            found = kinds[kind]()
            if found:
                yield dice.choice(sorted(found))


def test_every_accepted_request_is_done_whoever_is_killed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    names = [f"order-{number}" for number in range(REQUESTS)]
    with serve(tmp_path) as server:
        permits = threading.Semaphore(0)
        clients = [Client(server.port, names[place::CLIENTS], permits) for place in range(CLIENTS)]
        for client in clients:
            client.start()
        doomed = victims(server)
        for kill in range(1, KILLS + 1):
            goal = REQUESTS * kill // KILLS
            permits.release(goal - REQUESTS * (kill - 1) // KILLS)
            with suppress(ProcessLookupError):
                os.kill(next(doomed), signal.SIGKILL)
            wait_until(lambda: sum(len(client.locations) for client in clients) >= goal)  # noqa: B023
        for client in clients:
            client.join()
        done = tmp_path / "done"
        began_s = time.monotonic()
        wait_until(lambda: set(names) <= set(done.read_text().split()), within_s=120)
        runs = Counter(done.read_text().split())
        print(
            f"{REQUESTS} accepted, {KILLS} kills, {sum(runs.values())} runs",
            sum((c.statuses for c in clients), Counter()),
        )
        print(f"the last was done {time.monotonic() - began_s:.1f} s after the last was accepted")
        assert set(runs) == set(names), "and nothing that was never sent"
        for client in clients:
            for name, location in client.locations.items():
                wait_until(lambda: _state(server, location)["status"] == "done")  # noqa: B023
                assert server.get(f"{location}/response") == (201, b"did " + name.encode())
        assert server.stop() == 0


def _state(server: WebProcess, location: str) -> dict[str, str]:
    status, body = server.get(location)
    found: dict[str, str] = json.loads(body)
    assert status == 200, (status, body)
    return found
