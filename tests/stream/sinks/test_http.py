"""HTTP as a sink: what is posted, what is tried again, and where it may not go."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pytest

from headrace.stream import limits
from headrace.stream.errors import SinkFailed, UnsupportedQuery
from headrace.stream.plan import HttpSink
from headrace.stream.schema import Schema
from headrace.stream.sinks.http import HttpOutbox, pause_s, refusal

SCHEMA = Schema.of("n bigint")
ROWS = pa.table({"n": [1, 2, 3, 4, 5]})


class Server:
    """Answers with `answers`, then 200; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append((self.path, dict(self.headers), json.loads(body)))
                status, headers = server.answers.pop(0) if server.answers else (200, {})
                if status == 0:  # the connection breaks instead of an answer
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {"Content-Length": "2", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def outbox(server: Server, slept: list[float]) -> Iterator[Callable[..., HttpOutbox]]:
    made: list[HttpOutbox] = []

    def make(**more: Any) -> HttpOutbox:
        sink = HttpSink(f"{server.url}/in?x=1", ("127.0.0.1",), **more)
        made.append(HttpOutbox(sink, SCHEMA, sleep=slept.append))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


Make = Callable[..., HttpOutbox]


def test_rows_are_posted_as_arrays_each_with_a_key_that_its_repeat_has(server: Server, outbox: Make) -> None:
    sink = outbox(rows_max=2, headers=(("Authorization", "secret"),))
    staged = sink.stage(1, ROWS)
    sink.deliver(1, staged)
    sink.deliver(1, staged)
    bodies = [[row["n"] for row in body] for _, _, body in server.asked]
    assert bodies == [[1, 2], [3, 4], [5]] * 2
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.asked]
    assert keys[:3] == keys[3:] and len(set(keys)) == 3
    path, headers, _ = server.asked[0]
    assert (path, headers["Authorization"], headers["Content-Type"]) == ("/in?x=1", "secret", "application/json")
    sink.deliver(2, sink.stage(2, ROWS))
    assert server.asked[6][1]["Idempotency-Key"] not in keys


def test_what_may_pass_is_tried_again_with_the_same_key(server: Server, outbox: Make, slept: list[float]) -> None:
    server.answers = [(500, {}), (429, {"Retry-After": "7"}), (0, {}), (503, {"Retry-After": "3600"})]
    sink = outbox()
    sink.deliver(1, sink.stage(1, ROWS))
    assert len(server.asked) == 5 and len({headers["Idempotency-Key"] for _, headers, _ in server.asked}) == 1
    assert slept[1] == 7 and slept[3] == limits.POST_PAUSE_MAX_S


def test_a_pause_that_is_no_number_is_not_one(server: Server, outbox: Make, slept: list[float]) -> None:
    server.answers = [(503, {"Retry-After": "²"})]
    sink = outbox()
    sink.deliver(1, sink.stage(1, ROWS))
    assert len(server.asked) == 2 and len(slept) == 1


def test_a_server_that_listens_on_one_of_its_addresses_is_found(server: Server, slept: list[float]) -> None:
    sink = HttpOutbox(
        HttpSink(server.url.replace("127.0.0.1", "localhost"), ("localhost",)),
        SCHEMA,
        resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"],
        sleep=slept.append,
    )
    sink.deliver(1, sink.stage(1, ROWS))
    sink.close()
    assert len(server.asked) == 1 and slept == []


def test_tries_are_bounded(server: Server, outbox: Make, slept: list[float]) -> None:
    server.answers = [(500, {})] * 20
    sink = outbox()
    with pytest.raises(SinkFailed, match="500"):
        sink.deliver(1, sink.stage(1, ROWS))
    assert (len(server.asked), len(slept)) == (limits.POST_ATTEMPTS_MAX, limits.POST_ATTEMPTS_MAX - 1)


@pytest.mark.parametrize("status", [400, 401, 404, 301, 307])
def test_what_a_repeat_would_not_help_fails_at_once(server: Server, outbox: Make, status: int) -> None:
    server.answers = [(status, {"Location": f"{server.url}/elsewhere"})]
    sink = outbox()
    with pytest.raises(SinkFailed, match=str(status)):
        sink.deliver(1, sink.stage(1, ROWS))
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_tried_again(server: Server, outbox: Make, slept: list[float]) -> None:
    sink = outbox()
    staged = sink.stage(1, ROWS)
    server.stop()
    with pytest.raises(SinkFailed, match="ConnectionRefused"):
        sink.deliver(1, staged)
    assert len(slept) == limits.POST_ATTEMPTS_MAX - 1


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("http://example.com/", ()),
        ("http://example.com/", ("other.com", "*.example.com")),
        ("http://example.com.evil.com/", ("example.com", "*.example.com")),
        ("http://notexample.com/", ("*.example.com",)),
        ("http://example.com@evil.com/", ("example.com",)),
        ("http://user:secret@example.com/", ("example.com",)),
        ("ftp://example.com/", ("example.com",)),
        ("file:///etc/passwd", ("",)),
        ("http://example.com:99999/", ("example.com",)),
    ],
)
def test_a_url_that_is_not_allowed_is_refused(url: str, allow: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedQuery):
        HttpOutbox(HttpSink(url, allow), SCHEMA)


def test_a_name_that_means_a_private_address_is_not_connected_to(slept: list[float]) -> None:
    for addresses in (["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]):
        sink = HttpOutbox(
            HttpSink("http://x.example.com/", ("*.example.com",)),
            SCHEMA,
            resolve=lambda host, port, found=addresses: found,  # type: ignore[misc]  # bound early
            sleep=slept.append,
        )
        with pytest.raises(SinkFailed, match="address"):
            sink.deliver(1, sink.stage(1, ROWS))
    assert slept == []


@pytest.mark.parametrize(
    ("host", "address", "named", "allowed"),
    [
        ("example.com", "93.184.215.14", False, True),
        ("example.com", "2606:2800:21f:cb07::1", False, True),
        ("example.com", "10.0.0.1", False, False),
        ("example.com", "127.0.0.1", False, False),
        ("example.com", "::1", False, False),
        ("example.com", "fd00::1", False, False),
        ("example.com", "::ffff:10.0.0.1", False, False),
        ("example.com", "0.0.0.0", True, False),
        ("example.com", "100.64.0.1", False, False),
        ("example.com", "224.0.0.1", True, False),
        ("hooks", "10.0.0.1", True, True),
        ("localhost", "127.0.0.1", True, True),
        ("hooks", "169.254.169.254", True, False),
        ("169.254.169.254", "169.254.169.254", True, True),
        ("169.254.169.254", "169.254.169.254", False, False),
        ("fe80::1", "fe80::1", True, True),
    ],
)
def test_addresses_are_checked_by_what_they_are(host: str, address: str, named: bool, allowed: bool) -> None:
    assert (refusal(host, ipaddress.ip_address(address), named=named) == "") is allowed


def test_pauses_double_with_jitter_within_their_bound() -> None:
    first = limits.POST_PAUSE_FIRST_S
    assert [pause_s(attempt, None, chance=0.5) for attempt in (1, 2, 3)] == [first, 2 * first, 4 * first]
    assert pause_s(1, None, chance=0) == first / 2
    assert pause_s(30, None, chance=1) == limits.POST_PAUSE_MAX_S
