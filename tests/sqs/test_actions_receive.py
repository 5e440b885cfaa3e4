from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from headrace.queue import limits as queue_limits
from headrace.queue.model import Entry
from headrace.queue.operations import Send
from tests.patience import PATIENCE_S
from tests.sqs.harness import FakeRequest, Harness, json_request, refused

ARN = "arn:aws:sqs:us-east-1:000000000000:q"


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="q")["QueueUrl"])


def text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def test_empty_receive_has_no_messages(sqs: Any, url: str) -> None:
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def test_receive_without_names_shows_body_digest_and_receipt_only(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="msg", MessageAttributes={"a": text("b")})
    message = sqs.receive_message(QueueUrl=url)["Messages"][0]
    assert message.keys() == {"MessageId", "ReceiptHandle", "MD5OfBody", "Body"}
    assert message["MD5OfBody"] == "6e2baaf3b97dbeef01c0043275f9a0e7"


def test_receive_hides_the_message_until_its_timeout(harness: Harness, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="a")
    assert sqs.receive_message(QueueUrl=url, VisibilityTimeout=5)["Messages"]
    harness.advance(4_999)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    harness.advance(1)
    assert sqs.receive_message(QueueUrl=url)["Messages"]


def test_receive_takes_one_message_if_not_told(sqs: Any, url: str) -> None:
    for body in ("a", "b"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1


# What AWS answered for these filters: each set of attributes with the digest of what is shown.
FILTERS = [
    ([], None, set()),
    (["All"], "4c360f3fdafd970e05fae2f149d997f5", {"General", "Hello", "Help.Me"}),
    ([".*"], "4c360f3fdafd970e05fae2f149d997f5", {"General", "Hello", "Help.Me"}),
    (["*"], "4c360f3fdafd970e05fae2f149d997f5", {"General", "Hello", "Help.Me"}),
    (["Foo", "Help"], None, set()),
    (["Hello", "General"], "fca026605781cb4126a1e9044df24232", {"General", "Hello"}),
    (["Foo", "Hello"], "a311262e065454b75da111d535b8dacd", {"Hello"}),
    (["Hel.*"], "83fee93c1bcd8b9a5a923ffacdc636c7", {"Hello", "Help.Me"}),
    (["AWS."], None, set()),
    (["..foo"], None, set()),
]


@pytest.mark.parametrize(("names", "digest", "shown"), FILTERS)
def test_message_attribute_filters(sqs: Any, url: str, names: list[str], digest: str | None, shown: set[str]) -> None:
    attributes = {"Help.Me": text("Me"), "Hello": text("There"), "General": text("Kenobi")}
    sent = sqs.send_message(QueueUrl=url, MessageBody="msg", MessageAttributes=attributes)
    assert sent["MD5OfMessageAttributes"] == "4c360f3fdafd970e05fae2f149d997f5"
    message = sqs.receive_message(QueueUrl=url, MessageAttributeNames=names)["Messages"][0]
    assert message.get("MD5OfMessageAttributes") == digest
    assert message.get("MessageAttributes", {}) == {name: attributes[name] for name in shown}


def test_binary_attributes_come_back_as_bytes(sqs: Any, url: str) -> None:
    value = b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01"
    sqs.send_message(
        QueueUrl=url, MessageBody="test", MessageAttributes={"attr1": {"DataType": "Binary", "BinaryValue": value}}
    )
    message = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"][0]
    assert message["MessageAttributes"] == {"attr1": {"DataType": "Binary", "BinaryValue": value}}
    assert message["MD5OfMessageAttributes"] == "8cbe4db156db8a94db8b801b7addb984"  # as AWS answers


@pytest.mark.parametrize("parameter", ["AttributeNames", "MessageSystemAttributeNames"])
def test_system_attributes(harness: Harness, sqs: Any, url: str, parameter: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="msg")
    harness.advance(7)
    message = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, **{parameter: ["All"]})["Messages"][0]
    assert message["Attributes"] == {
        "SenderId": "000000000000",
        "SentTimestamp": "1700000000000",
        "ApproximateReceiveCount": "1",
        "ApproximateFirstReceiveTimestamp": "1700000000007",
    }
    harness.advance(1)
    message = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, **{parameter: ["ApproximateReceiveCount", "None"]})
    assert message["Messages"][0]["Attributes"] == {"ApproximateReceiveCount": "2"}


def test_both_names_of_the_parameter_count(harness: Harness) -> None:
    url = harness.create()
    harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    answer = harness.json(
        "ReceiveMessage", QueueUrl=url, AttributeNames=["SenderId"], MessageSystemAttributeNames=["SentTimestamp"]
    )
    assert answer.json()["Messages"][0]["Attributes"].keys() == {"SenderId", "SentTimestamp"}


def test_fifo_system_attributes(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    sent = sqs.send_message(QueueUrl=url, MessageBody="a", MessageGroupId="group-1", MessageDeduplicationId="dedup-1")
    attributes = sqs.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"][0]["Attributes"]
    assert attributes["MessageGroupId"] == "group-1"
    assert attributes["MessageDeduplicationId"] == "dedup-1"
    assert attributes["SequenceNumber"] == sent["SequenceNumber"]


@pytest.mark.parametrize(
    ("parameter", "value", "rule"),
    [
        ("MaxNumberOfMessages", 0, "Must be between 1 and 10, if provided."),
        ("MaxNumberOfMessages", 11, "Must be between 1 and 10, if provided."),
        ("WaitTimeSeconds", -1, "Must be >= 0 and <= 20, if provided."),
        ("WaitTimeSeconds", 21, "Must be >= 0 and <= 20, if provided."),
        ("VisibilityTimeout", -1, "Must be >= 0 and <= 43200, if provided."),
        ("VisibilityTimeout", 43_201, "Must be >= 0 and <= 43200, if provided."),
    ],
)
def test_numbers_out_of_range_are_refused(sqs: Any, url: str, parameter: str, value: int, rule: str) -> None:
    seen = refused(sqs.receive_message, QueueUrl=url, **{parameter: value})
    assert (seen.code, seen.status) == ("InvalidParameterValue", 400)
    assert seen.message == f"Value {value} for parameter {parameter} is invalid. Reason: {rule}"


def test_attempt_id_replays_on_fifo_and_is_ignored_on_standard(sqs: Any, url: str) -> None:
    fifo = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    sqs.send_message(QueueUrl=fifo, MessageBody="a", MessageGroupId="g", MessageDeduplicationId="d")
    first = sqs.receive_message(QueueUrl=fifo, ReceiveRequestAttemptId="try")["Messages"]
    again = sqs.receive_message(QueueUrl=fifo, ReceiveRequestAttemptId="try")["Messages"]
    assert first == again
    assert "Messages" not in sqs.receive_message(QueueUrl=url, ReceiveRequestAttemptId="try")
    assert refused(sqs.receive_message, QueueUrl=fifo, ReceiveRequestAttemptId="a b").code == "InvalidParameterValue"


def test_too_many_in_flight_is_over_limit(sqs: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_limits, "IN_FLIGHT_MAX", 1)
    for body in ("a", "b"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    assert sqs.receive_message(QueueUrl=url)["Messages"]
    seen = refused(sqs.receive_message, QueueUrl=url)
    assert (seen.code, seen.status, seen.exception) == ("OverLimit", 403, "OverLimit")


# --- bodies that SQS could not have sent ---


@pytest.mark.parametrize("body", [b"\xff\xfe", b"nul \x00", "\ufffe".encode(), b"\xed\xa0\x80"])
def test_body_that_is_no_sqs_text_is_shown_in_base64(harness: Harness, sqs: Any, url: str, body: bytes) -> None:
    harness.loop.run_until_complete(harness.broker.call(Send(ARN, [Entry(body)])))
    message = sqs.receive_message(QueueUrl=url)["Messages"][0]
    assert base64.b64decode(message["Body"], validate=True) == body


# --- long polls ---


def receive_request(url: str, wait_s: int | None) -> FakeRequest:
    members: dict[str, Any] = {} if wait_s is None else {"WaitTimeSeconds": wait_s}
    return json_request("ReceiveMessage", QueueUrl=url, **members)


def test_long_poll_is_answered_by_the_next_send(harness: Harness) -> None:
    url = harness.create()
    poll = receive_request(url, 20)
    harness.begin(poll)
    assert not poll.answers
    harness.json("SendMessage", QueueUrl=url, MessageBody="now")
    assert [message["Body"] for message in poll.answers[0].json()["Messages"]] == ["now"]


def test_queues_own_wait_counts_if_the_request_has_none(harness: Harness) -> None:
    url = harness.create(ReceiveMessageWaitTimeSeconds="20")
    waiting, short = receive_request(url, None), receive_request(url, 0)
    harness.begin(waiting)
    assert not waiting.answers
    assert harness.serve(short).json() == {}


def test_poll_whose_client_left_takes_nothing(harness: Harness) -> None:
    url = harness.create()
    gone = receive_request(url, 20)
    harness.begin(gone)
    assert gone.on_disconnect is not None
    gone.on_disconnect()
    harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    assert not gone.answers
    assert harness.json("ReceiveMessage", QueueUrl=url).json()["Messages"][0]["Body"] == "a"


def test_poll_whose_socket_is_dead_takes_nothing(harness: Harness) -> None:
    url = harness.create()
    dead = receive_request(url, 20)
    harness.begin(dead)
    dead.here = False
    harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    assert harness.json("ReceiveMessage", QueueUrl=url).json()["Messages"][0]["Body"] == "a"


def test_waiting_polls_are_answered_empty_when_the_broker_stops(harness: Harness) -> None:
    poll = receive_request(harness.create(), 20)
    harness.begin(poll)
    harness.broker.drain()
    assert (poll.answers[0].status, poll.answers[0].body) == (200, b"{}")


def test_broker_that_stops_asks_clients_to_try_again(harness: Harness) -> None:
    url = harness.create()
    harness.broker.drain()
    answer = harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    assert (answer.status, answer.headers["x-amzn-query-error"]) == (503, "ServiceUnavailable;Receiver")


def test_long_poll_keeps_silent_about_the_in_flight_limit(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_limits, "IN_FLIGHT_MAX", 1)
    url = harness.create()
    for body in ("a", "b"):
        harness.json("SendMessage", QueueUrl=url, MessageBody=body)
    harness.json("ReceiveMessage", QueueUrl=url)
    poll = receive_request(url, 1)
    harness.begin(poll)
    harness.loop.run_until_complete(asyncio.wait_for(_answered(poll), PATIENCE_S))
    assert (poll.answers[0].status, poll.answers[0].json()) == (200, {})


async def _answered(request: FakeRequest) -> None:
    done = asyncio.Event()
    request.answered = done.set
    if not request.answers:
        await done.wait()
