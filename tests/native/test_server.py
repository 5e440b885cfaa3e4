"""The service over a real socket, spoken to without our client."""

from __future__ import annotations

import http.client
import socket
import threading
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import headrace
from headrace.errors import AccessDenied
from headrace.native import protocol
from headrace.native.server import NativeService
from headrace.queue import operations as ops
from headrace.queue.attributes import encode
from headrace.queue.model import Entry, arn_of
from tests.native.served import ServedBroker, eventually
from tests.patience import PATIENCE_S

ARN = arn_of("orders")
MSGPACK = {"content-type": "application/msgpack"}
JSON = {"content-type": "application/json; charset=utf-8"}


def post(served: ServedBroker, body: bytes, headers: dict[str, str] = MSGPACK) -> tuple[int, Any]:
    status, _, data = exchange(served, "POST", protocol.CALL_PATH, body, headers)
    json = headers.get("content-type", "").startswith("application/json")
    return status, msgspec.json.decode(data) if json else msgspec.msgpack.decode(data)


def exchange(
    served: ServedBroker, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, response.headers, data


def call(served: ServedBroker, operation: ops.Operation, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return post(served, protocol.encode_operation(operation), {**MSGPACK, **named})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x81\xa4type\xa1\xff",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"type": "Nonsense"}),
        msgspec.msgpack.encode({"type": "Send", "queue": 5, "entries": []}),
        msgspec.msgpack.encode({"type": "Send", "queue": ARN, "entries": [["text, not bytes"]]}),
        msgspec.msgpack.encode({"type": "Fence", "name": "n"}) + b"more",
        b"\x91" * 100_000,
    ],
)
def test_malformed_body_is_400_with_the_reason_and_the_connection_goes_on(served: ServedBroker, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    for _ in range(2):
        connection.request("POST", protocol.CALL_PATH, body, MSGPACK)
        response = connection.getresponse()
        answer = msgspec.msgpack.decode(response.read())
        assert response.status == 400
        assert answer["error"] == "InvalidParameter"
        assert answer["reason"]
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", protocol.CALL_PATH, MSGPACK, 405),
        ("PUT", protocol.CALL_PATH, MSGPACK, 405),
        ("POST", "/headrace/v1/other", MSGPACK, 404),
        ("POST", protocol.CALL_PATH, {"content-type": "text/html"}, 415),
        ("POST", protocol.CALL_PATH, {}, 415),
    ],
)
def test_what_is_no_call_gets_a_4xx(
    served: ServedBroker, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answered, answer_headers, data = exchange(served, method, path, b"", headers)

    assert answered == status
    assert ("allow" in answer_headers) == (status == 405)
    assert b"InvalidParameter" in data


def test_json_is_spoken_with_bodies_in_base64(served: ServedBroker) -> None:
    post(served, b'{"type": "CreateQueue", "queue": "%s"}' % ARN.encode(), JSON)
    status, answer = post(served, b'{"type":"Send","queue":"%s","entries":[["aGVsbG8="]]}' % ARN.encode(), JSON)
    assert (status, len(answer)) == (200, 1)

    status, answer = post(served, b'{"type":"Receive","queue":"%s"}' % ARN.encode(), JSON)

    assert status == 200
    assert b64decode(answer[0][0][2]) == b"hello"


def test_error_has_its_status_and_its_data(served: ServedBroker) -> None:
    status, answer = call(served, ops.GetQueue(ARN))

    assert status == 404
    assert answer["error"] == "QueueNotFound"
    assert answer["queue"] == ARN
    assert "create it" in answer["message"]


@pytest.mark.parametrize("wait", ["-1", "+5", "5_0", "20001", "x", "", "99999999999999", "٥"])
def test_wait_out_of_range_or_no_number_is_refused(served: ServedBroker, wait: str) -> None:
    call(served, ops.CreateQueue(ARN))

    status, answer = call(served, ops.Receive(ARN), headrace_wait_ms=wait.encode().decode("latin-1"))

    assert status == 400
    assert answer["parameter"] == "headrace-wait-ms"


def test_receive_without_wait_header_takes_the_queues_wait(served: ServedBroker) -> None:
    call(served, ops.CreateQueue(ARN, {"wait_ms": 20_000}))
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(call(served, ops.Receive(ARN))))
    waiting.start()
    eventually(lambda: served.run(lambda broker: broker.waiting()) == 1)
    call(served, ops.Send(ARN, [Entry(b"x")]))
    waiting.join(PATIENCE_S)

    assert answers[0][1][0][0][2] == b"x"


@pytest.mark.parametrize("value", [2**62 + 1, 2**70, -(2**65)])
def test_integers_beyond_any_range_are_refused(served: ServedBroker, value: int) -> None:
    call(served, ops.CreateQueue(ARN))
    body = b'{"type":"Peek","queue":"%s","after":%d}' % (ARN.encode(), value)

    status, answer = post(served, body, JSON)

    assert (status, answer["error"]) == (400, "InvalidParameter")


@pytest.mark.parametrize(
    "blob",
    [
        b"\xc1",
        msgspec.msgpack.encode(["a"]),
        msgspec.msgpack.encode({"a": ["String", b"bytes"]}),
        msgspec.msgpack.encode({"a": ["Binary.png", "text"]}),
        msgspec.msgpack.encode({"": ["String", "x"]}),
        encode({f"a{i}": ("String", "x") for i in range(11)}),
    ],
)
def test_attributes_that_an_sqs_consumer_could_not_read_are_refused(served: ServedBroker, blob: bytes) -> None:
    call(served, ops.CreateQueue(ARN))
    entries = [Entry(b"fine"), Entry(b"x", blob)]

    for operation in (ops.Send(ARN, entries), ops.Transact(sends=[(ARN, entries)])):
        status, answer = call(served, operation)
        assert (status, answer["parameter"]) == (400, "attributes")
    assert call(served, ops.Peek(ARN))[1] == []


def test_ten_thousand_messages_in_one_call(served: ServedBroker) -> None:
    call(served, ops.CreateQueue(ARN))
    status, sent = call(served, ops.Send(ARN, [Entry(b"%d" % i) for i in range(10_000)]))
    assert (status, len(sent)) == (200, 10_000)

    _, received = call(served, ops.Receive(ARN, 10_000))
    assert [delivery[0][2] for delivery in received] == [b"%d" % i for i in range(10_000)]

    _, deleted = call(served, ops.Delete(ARN, [delivery[1] for delivery in received]))
    assert deleted == [None] * 10_000

    status, answer = call(served, ops.Send(ARN, [Entry(b"x")] * 10_001))
    assert (status, answer["error"]) == (400, "InvalidParameter")


def test_a_waiting_client_that_left_is_handed_nothing(served: ServedBroker) -> None:
    call(served, ops.CreateQueue(ARN))
    body = protocol.encode_operation(ops.Receive(ARN))
    gone = socket.create_connection(("127.0.0.1", served.port))
    gone.sendall(
        b"POST /headrace/v1/call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/msgpack\r\n"
        b"headrace-wait-ms: 20000\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    eventually(lambda: served.run(lambda broker: broker.waiting()) == 1)
    gone.close()
    call(served, ops.Send(ARN, [Entry(b"x")]))

    _, received = call(served, ops.Receive(ARN))

    assert [(delivery[0][2], delivery[2]) for delivery in received] == [(b"x", 1)]


def test_statistics_tell_the_time_and_the_commits(served: ServedBroker, client: headrace.Client) -> None:
    client.queue("orders", create=True).send("x")

    statistics = client.statistics()

    assert statistics.now_ms > 1_700_000_000_000
    assert statistics.store.commits >= 2
    status, headers, data = exchange(served, "GET", protocol.STATISTICS_PATH, b"", {})
    assert (status, headers["content-type"]) == (200, "application/json")
    assert msgspec.json.decode(data)["store"]["commits"] == statistics.store.commits


class FakeRequest:
    """A request that notes its answer."""

    def __init__(self, operation: ops.Operation) -> None:
        self.method, self.target, self.path, self.query = "POST", protocol.CALL_PATH, protocol.CALL_PATH, ""
        self.headers = {b"content-type": b"application/msgpack"}
        self.body = protocol.encode_operation(operation)
        self.peer, self.secure = "127.0.0.1", False
        self.on_disconnect: Callable[[], None] | None = None
        self.answer: tuple[int, bytes] | None = None

    def connected(self) -> bool:
        return True

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.answer = (status, body)


def test_who_is_not_authorised_changes_nothing(served: ServedBroker, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True)
    asked: list[object] = []

    def deny(request: object, operation: ops.Operation | None) -> None:
        asked.append(operation)
        raise AccessDenied("not you")

    request = FakeRequest(ops.Send(ARN, [Entry(b"x")]))
    served.run(lambda broker: NativeService(broker, broker.clock, authorize=deny).handle(request))

    assert request.answer is not None
    assert request.answer[0] == 403
    assert asked == [ops.Send(ARN, [Entry(b"x")])]
    assert queue.counts().visible == 0


def test_an_outcome_that_cannot_be_encoded_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Answers:
        def ask(self, operation: ops.Operation, done: Callable[[Any], None], **_: Any) -> None:
            done(object())

    request = FakeRequest(ops.Fence("n"))
    NativeService(Answers(), lambda: 0).handle(request)  # type: ignore[arg-type]

    assert request.answer is not None
    assert request.answer[0] == 500
    assert [record.__dict__["action"] for record in caplog.records] == ["native.encode_failed"]
