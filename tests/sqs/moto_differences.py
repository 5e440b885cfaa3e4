"""Where Moto differs from AWS, by example. `docs/sqs.md` has the names, what AWS does, and how that is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.sqs.moto_programs import ADVANCE, TRACE, Step, arn, policy, redrive_policy, step

# ------------------------------------------------------------------------------------------------------- odd, and alike


def _create(name: str = "c", **attributes: str) -> Step:
    return step("create_queue", QueueName=name, Attributes=attributes)


def _send(queue: str = "a", **members: Any) -> Step:
    return step("send_message", queue, **{"MessageBody": "x", **members})


def _batch(operation: str, *entries: dict[str, Any], queue: str = "a") -> Step:
    return step(operation, queue, Entries=list(entries))


def _message(entry_id: str = "1", **members: Any) -> dict[str, Any]:
    return {"Id": entry_id, "MessageBody": "x", **members}


def _receipt(entry_id: str = "1", handle: int | str = 0, **members: Any) -> dict[str, Any]:
    return {"Id": entry_id, "ReceiptHandle": handle, **members}


def _attribute(name: str = "m", **value: Any) -> Step:
    return _send(MessageAttributes={name: value})


def _permit(queue: str = "a", **members: Any) -> Step:
    given = {"Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"], **members}
    return step("add_permission", queue, **given)


_SEND, _DELETE, _CHANGE = "send_message_batch", "delete_message_batch", "change_message_visibility_batch"
_TIMEOUT: Final[dict[str, Any]] = {"VisibilityTimeout": 1}
_FIFO = {"FifoQueue": "true"}
_DEDUP = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}

ALIKE: Final[tuple[Step, ...]] = (
    *[_create(name) for name in ("", "a b", "a/b", "é", "c.x", ".fifo", "x" * 81)],
    _create("c", **_FIFO),
    _create("a", VisibilityTimeout="31"),
    _create("a", VisibilityTimeout="030"),
    _create("a", Policy=policy("s")),
    _create("c.fifo", FifoQueue="True"),
    _create("x" * 75 + ".fifo", **_FIFO),
    _create("x" * 76 + ".fifo", **_FIFO),
    _create("c.fifo", **_FIFO, FifoThroughputLimit="perMessageGroupId", DeduplicationScope="messageGroup"),
    *[_create(MaximumMessageSize=size) for size in ("1023", "1048577")],
    *[_create(RedrivePolicy=json.dumps(p)) for p in ({"maxReceiveCount": 1}, {"deadLetterTargetArn": arn("dead")})],
    step("get_queue_url", QueueName="a b"),
    step("list_queues", QueueNamePrefix="a b"),
    step("get_queue_attributes", "a"),
    *[step("get_queue_attributes", "a", AttributeNames=names) for names in ([], ["FifoQueue"], ["MaximumMessageSize"])],
    *[step("get_queue_attributes", "a", AttributeNames=names) for names in ([""], ["Colour"], ["All", "Colour"])],
    _send("never"),
    _send(MessageBody="x" * 1_048_576),
    _send(MessageBody="x" * 1_048_577),
    _send(DelaySeconds=901),
    _send(MessageAttributes={"m": {"DataType": "", "StringValue": "x"}}),
    _send(MessageAttributes={"m": {"DataType": "Text", "StringValue": "x"}}),
    _attribute("a b", DataType="String", StringValue="x"),
    _send("a.fifo"),
    _send("a.fifo", MessageGroupId="g"),
    _send("a.fifo", MessageGroupId="g", MessageDeduplicationId=""),
    _send("a.fifo", MessageGroupId="", MessageDeduplicationId="d"),
    _send("a.fifo", MessageDeduplicationId="d"),
    _send("a.fifo", **_DEDUP, DelaySeconds=5),
    _batch(_SEND),
    *[_batch(_SEND, _message(entry_id)) for entry_id in ("", "a b", "x" * 81)],
    _batch(_SEND, _message(), _message()),
    _batch(_SEND, *[_message(str(number)) for number in range(11)]),
    _batch(_SEND, *[_message(str(number), MessageBody="x" * 600_000) for number in range(2)]),
    _batch(_SEND, _message("1"), _message("2", DelaySeconds=901)),
    _batch(_SEND, _message(MessageGroupId="g"), queue="a.fifo"),
    *[step("receive_message", "a", WaitTimeSeconds=0, MaxNumberOfMessages=number) for number in (-1, 0, 11)],
    *[step("receive_message", "a", WaitTimeSeconds=seconds) for seconds in (-1, 21)],
    step("receive_message", "a", WaitTimeSeconds=0, VisibilityTimeout=43_201),
    step("receive_message", "a", WaitTimeSeconds=0, MessageSystemAttributeNames=["Colour"]),
    *[step("delete_message", queue, ReceiptHandle="garbage") for queue in ("a", "a.fifo", "never")],
    _batch(_DELETE),
    _batch(_DELETE, _receipt(handle="garbage")),
    *[step("change_message_visibility", "a", ReceiptHandle=0, VisibilityTimeout=s) for s in (43_200, 43_201)],
    step("change_message_visibility", "a", ReceiptHandle="garbage", **_TIMEOUT),
    step("change_message_visibility", "never", ReceiptHandle="garbage", VisibilityTimeout=1),
    _batch(_CHANGE, _receipt(VisibilityTimeout=43_201)),
    _batch(_CHANGE, _receipt(handle="garbage", **_TIMEOUT)),
    *[step(name, "never") for name in ("purge_queue", "delete_queue", "list_queue_tags")],
    step("list_dead_letter_source_queues", "never"),
    step("tag_queue", "a", Tags={}),
    step("tag_queue", "a", Tags={str(number): "" for number in range(51)}),
    step("tag_queue", "a", Tags={"a b/é": "ö ✓"}),
    step("tag_queue", "never", Tags={"k": "v"}),
    step("untag_queue", "a", TagKeys=[]),
    step("untag_queue", "a"),
    step("untag_queue", "never", TagKeys=["k"]),
    _permit("never"),
    _permit(AWSAccountIds=[]),
    _permit(Actions=[]),
    _permit(Actions=["SendMessage"] * 8),
    *[_permit(Actions=[action]) for action in ("CreateQueue", "DeleteQueue", "TagQueue", "Colour", "sendmessage")],
    step("remove_permission", "a", Label="absent"),
    step("remove_permission", "never", Label="l"),
)
"""Single faults and edges, after a message was received from `a`."""

# ------------------------------------------------------------------------------------------ what Moto does not check

_BAD_VALUES: Final = {
    "DelaySeconds": ("-1", "901", "x", "1.5", ""),
    "MessageRetentionPeriod": ("59", "1209601"),
    "ReceiveMessageWaitTimeSeconds": ("-1", "21"),
    "VisibilityTimeout": ("-1", "43201"),
    "KmsDataKeyReusePeriodSeconds": ("59", "86401"),
    "SqsManagedSseEnabled": ("yes",),
    "Policy": ("x", "{}"),
}
_TEXT: Final = {"DataType": "String", "StringValue": "x"}

REFUSED: Final[dict[str, list[tuple[Step, str]]]] = {
    "queue names": [
        (_create("c.fifo"), "InvalidParameterValue"),
        (_create("c.fifo", FifoQueue="yes"), "InvalidParameterValue"),
    ],
    "attribute values": [
        *[(_create(**{name: text}), "InvalidAttributeValue") for name, texts in _BAD_VALUES.items() for text in texts],
        (step("set_queue_attributes", "a", Attributes={"MaximumMessageSize": "1023"}), "InvalidAttributeValue"),
        (_create("c.fifo", **_FIFO, FifoThroughputLimit="perMessageGroupId"), "InvalidAttributeValue"),
        (_create("c.fifo", **_FIFO, DeduplicationScope="x"), "InvalidAttributeValue"),
    ],
    "attribute names": [
        *[(_create(**{name: "true"}), "InvalidAttributeName") for name in ("Colour", "QueueArn")],
        (_create(FifoQueue="false"), "InvalidAttributeName"),
        (_create(ContentBasedDeduplication="true"), "InvalidAttributeName"),
        (step("set_queue_attributes", "a", Attributes={"Colour": "x"}), "InvalidAttributeName"),
        (step("set_queue_attributes", "a", Attributes=_FIFO), "InvalidAttributeName"),
        (step("set_queue_attributes", "a.fifo", Attributes={"FifoQueue": "false"}), "InvalidAttributeValue"),
        (step("set_queue_attributes", "a", Attributes={}), "MissingParameter"),
    ],
    "redrive policies": [
        (_create(RedrivePolicy="x"), "InvalidAttributeValue"),
        *[(_create(RedrivePolicy=text), "InvalidParameterValue") for text in ("{}", redrive_policy("never", 1))],
        *[(_create(RedrivePolicy=redrive_policy("dead", n)), "InvalidParameterValue") for n in (0, 1_001, "x")],
        (_create(RedrivePolicy=redrive_policy("dead.fifo", 1)), "InvalidParameterValue"),
        (_create("c.fifo", **_FIFO, RedrivePolicy=redrive_policy("dead", 1)), "InvalidParameterValue"),
    ],
    "message contents": [
        (_send(MessageBody=""), "MissingParameter"),
        (_send(MessageBody="\0"), "InvalidMessageContents"),
        (_send(DelaySeconds=-1), "InvalidParameterValue"),
        (_send(MessageDeduplicationId="d"), "InvalidParameterValue"),
        (_send(MessageSystemAttributes={"Other": _TEXT}), "InvalidParameterValue"),
    ],
    "message attributes": [
        (_attribute(**value), "InvalidParameterValue")
        for value in (
            {"DataType": "String", "StringValue": ""},
            {"DataType": "String"},
            {"DataType": "Number", "StringValue": "many"},
            {"DataType": "Binary", "BinaryValue": b""},
            {"DataType": "Binary", "StringValue": "x"},
            {"StringValue": "x"},
        )
    ]
    + [(_attribute(name, **_TEXT), "InvalidParameterValue") for name in (".a", "AWS.x", "x" * 257)]
    + [(_send(MessageAttributes={str(number): _TEXT for number in range(11)}), "InvalidParameterValue")],
    "ids": [
        (_send("a.fifo", **{**_DEDUP, name: text}), "InvalidParameterValue")
        for name in _DEDUP
        for text in ("a b", "x" * 129)
    ],
    "batches": [
        (_batch(_SEND, _message("é")), "InvalidBatchEntryId"),
        (_batch(_SEND, _message(), queue="a.fifo"), "InvalidParameterValue"),
        *[(_batch(_DELETE, _receipt(entry_id)), "InvalidBatchEntryId") for entry_id in ("", "a b", "x" * 81)],
        (_batch(_DELETE, _receipt(handle="x"), _receipt(handle="y")), "BatchEntryIdsNotDistinct"),
        (_batch(_DELETE, *[_receipt(str(n), str(n)) for n in range(11)]), "TooManyEntriesInBatchRequest"),
        (_batch(_CHANGE), "EmptyBatchRequest"),
        (_batch(_CHANGE, _receipt("a b", **_TIMEOUT)), "InvalidBatchEntryId"),
        (_batch(_CHANGE, _receipt(**_TIMEOUT), _receipt(**_TIMEOUT)), "BatchEntryIdsNotDistinct"),
        (_batch(_CHANGE, *[_receipt(str(n), **_TIMEOUT) for n in range(11)]), "TooManyEntriesInBatchRequest"),
    ],
    "empty values": [
        (step("delete_message", "a", ReceiptHandle=""), "MissingParameter"),
        (step("change_message_visibility", "a", ReceiptHandle="", VisibilityTimeout=1), "MissingParameter"),
        (_permit(Label=""), "MissingParameter"),
        (step("remove_permission", "a", Label=""), "MissingParameter"),
    ],
    "timeouts": [
        (step("receive_message", "a", WaitTimeSeconds=0, VisibilityTimeout=-1), "InvalidParameterValue"),
        (step("change_message_visibility", "a", ReceiptHandle=0, VisibilityTimeout=-1), "InvalidParameterValue"),
        (step("change_message_visibility", "a", ReceiptHandle=0), "MissingParameter"),
    ],
    "tags": [
        (step("tag_queue", "a", Tags=tags), "InvalidParameterValue")
        for tags in ({"": "v"}, {"x" * 129: "v"}, {"k": "x" * 257}, {"aws:k": "v"})
    ],
    "permissions": [
        *[(_permit(Label=label), "InvalidParameterValue") for label in ("a b", "x" * 81)],
        (_permit(AWSAccountIds=["x"]), "InvalidParameterValue"),
    ],
    "pages": [
        *[(step("list_queues", MaxResults=number), "InvalidParameterValue") for number in (0, 1_001)],
        (step("list_queues", NextToken="x"), "InvalidParameterValue"),
    ],
}
"""By name: what headrace refuses, as AWS does, with the code; Moto takes it, fails, or answers another code."""

# ---------------------------------------------------------------------------------------------------- other differences


@dataclass(frozen=True)
class Difference:
    """`program` ends in a step whose answers differ: `pick` takes out of them what `ours` and `moto` are."""

    name: str
    program: tuple[Step, ...]
    ours: Any
    moto: Any
    pick: Callable[[dict[str, Any]], Any] = lambda answer: answer.get("Error", "accepted")


def _bodies(answer: dict[str, Any]) -> list[str]:
    return [message["Body"] for message in answer.get("Messages", [])]


def _get(queue: str, name: str) -> Step:
    return step("get_queue_attributes", queue, AttributeNames=[name])


def _set(queue: str, **attributes: str) -> Step:
    return step("set_queue_attributes", queue, Attributes=attributes)


def _of(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda answer: answer.get("Attributes", {}).get(name)


def _fifo(body: str, group: str = "g", dedup_id: str | None = None) -> Step:
    return _send("a.fifo", MessageBody=body, MessageGroupId=group, MessageDeduplicationId=dedup_id or body)


def _receive(queue: str = "a.fifo", number: int = 1, **members: Any) -> Step:
    given = {"WaitTimeSeconds": 0, "MaxNumberOfMessages": number, "MessageSystemAttributeNames": ["All"], **members}
    return step("receive_message", queue, **given)


_DELETE_FIRST = step("delete_message", "a.fifo", ReceiptHandle=0)

DIFFERENCES: Final[tuple[Difference, ...]] = (
    Difference("created again", (step("delete_queue", "b"), _create("b")), "QueueDeletedRecently", "accepted"),
    Difference(
        "tags of a queue that exists",
        (
            step("create_queue", QueueName="c", tags={"k": "v"}),
            step("create_queue", QueueName="c", tags={"l": "w"}),
            step("list_queue_tags", "c"),
        ),
        {"k": "v"},
        {"l": "w"},
        lambda answer: answer["Tags"],
    ),
    Difference("RedriveAllowPolicy", (_get("a", "RedriveAllowPolicy"),), "accepted", "InvalidAttributeName"),
    Difference(
        "encryption",
        (_set("a", KmsMasterKeyId="key"), _get("a", "SqsManagedSseEnabled")),
        "false",
        "true",
        _of("SqsManagedSseEnabled"),
    ),
    Difference(
        "policy",
        (_set("a", Policy=policy("s")), _set("a", DelaySeconds="0"), _get("a", "Policy")),
        True,
        False,
        lambda answer: bool(_of("Policy")(answer)),
    ),
    Difference("actions of batches", (_permit(Actions=["SendMessageBatch"]),), "accepted", "InvalidParameterValue"),
    Difference("letters beyond ASCII", (_attribute("é", **_TEXT),), "accepted", "InvalidParameterValue"),
    Difference(
        "size",
        (_set("a", MaximumMessageSize="1024"), _send(MessageBody="é" * 1_024)),
        "InvalidParameterValue",
        "accepted",
    ),
    Difference(
        "system attributes of a batch",
        (_batch(_SEND, _message(MessageSystemAttributes=TRACE)), _receive("a")),
        True,
        False,
        lambda answer: "AWSTraceHeader" in answer["Messages"][0]["Attributes"],
    ),
    Difference(
        "a receipt twice in a batch",
        (_send(), _receive("a"), _batch(_DELETE, _receipt("1"), _receipt("2"))),
        "accepted",
        "BatchEntryIdsNotDistinct",
    ),
    Difference(
        "visibility of a deleted message",
        (
            _send(),
            _receive("a"),
            step("delete_message", "a", ReceiptHandle=0),
            step("change_message_visibility", "a", ReceiptHandle=0, VisibilityTimeout=1),
        ),
        "InvalidParameterValue",
        "ReceiptHandleIsInvalid",
    ),
    Difference(
        "twelve hours",
        (
            _send(),
            Step(ADVANCE, {"Seconds": 5_000}),
            _receive("a"),
            step("change_message_visibility", "a", ReceiptHandle=0, VisibilityTimeout=43_000),
        ),
        "accepted",
        "InvalidParameterValue",
    ),
    Difference(
        "retention",
        (_send(), Step(ADVANCE, {"Seconds": 345_601}), _get("a", "ApproximateNumberOfMessages")),
        "0",
        "1",
        _of("ApproximateNumberOfMessages"),
    ),
    Difference(
        "source of a dead letter",
        (
            _set("a", RedrivePolicy=redrive_policy("dead", 1)),
            _send(),
            _receive("a", VisibilityTimeout=0),
            _receive("a"),
            _receive("dead"),
        ),
        True,
        False,
        lambda answer: "DeadLetterQueueSourceArn" in answer["Messages"][0]["Attributes"],
    ),
    Difference(
        "deduplication",
        (_fifo("x"), _receive(), _DELETE_FIRST, _fifo("y", dedup_id="x"), _receive()),
        [],
        ["y"],
        _bodies,
    ),
    Difference(
        "order of groups",
        (_fifo("1", "g"), _fifo("2", "h"), _fifo("3", "g"), _receive(number=2)),
        ["1", "3"],
        ["1", "2"],
        _bodies,
    ),
    Difference(
        "groups after a timeout",
        (_fifo("1"), _fifo("2"), _receive(number=10, VisibilityTimeout=1), Step(ADVANCE, {"Seconds": 2}), _receive()),
        ["1"],
        ["2"],
        _bodies,
    ),
)
