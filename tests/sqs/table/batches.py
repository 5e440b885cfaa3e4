"""SendMessageBatch, DeleteMessageBatch and ChangeMessageVisibilityBatch."""

from __future__ import annotations

from typing import Any, Final

from tests.sqs.table.receipts import GONE
from tests.sqs.table.receive import GROUPED, handle, into, take
from tests.sqs.table.rows import (
    ABSENT,
    ANY,
    API,
    BALLERINA,
    HANDLE,
    ISSUE,
    JSON,
    LS,
    NO_QUEUE,
    OURS,
    SNAPSHOT,
    TEXTS,
    Advance,
    Call,
    Error,
    Row,
    bodies,
    call,
    delete,
    like,
    missing,
    queue,
    receive,
    refused,
    row,
    send,
)
from tests.sqs.table.send import DEDUP, text

PREFIX: Final = "AWS.SimpleQueueService."
BAD_ID: Final = Error(
    PREFIX + "InvalidBatchEntryId",
    "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.",
)


def batch(operation: str, *entries: dict[str, Any], of: str = "q") -> Call:
    return call(operation, QueueUrl=f"${{url:{of}}}", Entries=list(entries))


def sending(*entries: dict[str, Any], of: str = "q") -> Call:
    return batch("SendMessageBatch", *entries, of=of)


def failure(entry_id: str, code: str, message: Any) -> dict[str, Any]:
    return {"Id": entry_id, "Code": code, "Message": message, "SenderFault": True}


EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "SendMessageBatch": {"MessageBody": "body"},
    "DeleteMessageBatch": {"ReceiptHandle": "garbage"},
    "ChangeMessageVisibilityBatch": {"ReceiptHandle": "garbage", "VisibilityTimeout": 1},
}


def _whole() -> list[Row]:
    """What fails a batch as a whole, of each of the three operations."""
    rows = []
    for name, example in EXAMPLES.items():
        example = dict(example)  # noqa: PLW2901 - each row has its own
        rows += [
            row(
                f"{name}: no entries",
                batch(name),
                Error(PREFIX + "EmptyBatchRequest", f"There should be at least one {name}RequestEntry in the request."),
                BALLERINA + "testSendMessageBatchWithEmptyList; localstack/localstack#1658",
                setup=[queue()],
            ),
            row(
                f"{name}: ten entries",
                batch(name, *({"Id": str(i), **example} for i in range(10))),
                {},
                API + name,
                setup=[queue()],
            ),
            row(
                f"{name}: eleven entries",
                batch(name, *({"Id": str(i), **example} for i in range(11))),
                Error(
                    PREFIX + "TooManyEntriesInBatchRequest",
                    "Maximum number of entries per request are 10. You have sent 11.",
                ),
                BALLERINA + "testSendMessageBatchExceedsLimit; " + SNAPSHOT + "test_too_many_entries_in_batch_request",
                setup=[queue()],
            ),
            row(
                f"{name}: an id twice",
                batch(name, {"Id": "idA", **example}, {"Id": "idB", **example}, {"Id": "idA", **example}),
                Error(PREFIX + "BatchEntryIdsNotDistinct", "Id idA repeated."),
                BALLERINA + "testSendMessageBatchWithDuplicatemessageId",
                setup=[queue()],
                then=[(receive(), bodies())],
            ),
            row(
                f"{name}: ids that differ by case",
                batch(name, {"Id": "a", **example}, {"Id": "A", **example}),
                {},
                OURS,
                setup=[queue()],
            ),
            row(
                f"{name}: an entry without an id",
                batch(name, {"Id": "1", **example}, example),
                missing(f"{name}RequestEntry.2.Id"),
                ISSUE + "ali-essam/wtsqs#7",
                setup=[queue()],
            ),
            row(
                f"{name}: an id of 80 characters",
                batch(name, {"Id": "aZ09_-" + "i" * 74, **example}),
                {},
                API + name,
                setup=[queue()],
            ),
            row(f"{name}: no queue", batch(name, {"Id": "1", **example}), NO_QUEUE, API + name),
        ]
        rows += [
            row(
                f"{name}: the id {entry_id!r}",
                batch(name, {"Id": entry_id, **example}),
                BAD_ID,
                SNAPSHOT + "test_delete_message_batch_invalid_msg_id, test_invalid_batch_id",
                setup=[queue()],
            )
            for entry_id in ("", "i" * 81, "invalid:id", "é", "a b")
        ]
    return rows


SEND: Final = (
    row(
        "SendMessageBatch: two messages",
        sending({"Id": "1", "MessageBody": "some message"}, {"Id": "2", "MessageBody": "some message 2"}),
        {
            "Failed": ABSENT,
            "Successful": [
                {
                    "Id": "1",
                    "MessageId": ANY,
                    "MD5OfMessageBody": "df49b60423903e095b80d9b4a92eb065",
                    "MD5OfMessageAttributes": ABSENT,
                    "SequenceNumber": ABSENT,
                },
                {"Id": "2", "MessageId": ANY, "MD5OfMessageBody": "36e8a424130490596fc507dba99d2ace"},
            ],
        },
        LS + "test_send_message_batch; digests: " + TEXTS + "SendMessageBatch)",
        setup=[queue()],
        then=[(receive(MaxNumberOfMessages=10), bodies("some message", "some message 2"))],
    ),
    row(
        "SendMessageBatch: digests of attributes and trace header",
        sending(
            {
                "Id": "1",
                "MessageBody": "m",
                "MessageAttributes": {"data1": text("1", "Number"), "data2": text("2", "Number")},
            },
            {
                "Id": "2",
                "MessageBody": "m",
                "MessageAttributes": {"data1": text("1", "Number")},
                "MessageSystemAttributes": {"AWSTraceHeader": text("some-value")},
            },
        ),
        {
            "Successful": [
                {"MD5OfMessageAttributes": "b53b5acf24e7fd9567705bd8027b1c76", "MD5OfMessageSystemAttributes": ABSENT},
                {
                    "MD5OfMessageAttributes": "cc7f712733e0ad2cc9f1fefbd28bab9c",
                    "MD5OfMessageSystemAttributes": "a3263a0cbc09023ccd431feb61438309",
                },
            ]
        },
        TEXTS + "SendMessageBatch): with Attributes",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: an empty body",
        sending({"Id": "1", "MessageBody": "Valid message"}, {"Id": "2", "MessageBody": ""}),
        {
            "Successful": [{"Id": "1"}],
            "Failed": [failure("2", "EmptyValue", "No Value Found for SendMessageBatchRequestEntry.2.MessageBody.")],
        },
        BALLERINA + "testSendMessageBatchPartialFailure; the text: redpanda-data/connect#1070",
        setup=[queue()],
        then=[(receive(MaxNumberOfMessages=10), bodies("Valid message"))],
    ),
    row(
        "SendMessageBatch: no body",
        sending({"Id": "1"}),
        {
            "Successful": ABSENT,
            "Failed": [
                failure(
                    "1",
                    "MissingParameter",
                    "The request must contain the parameter SendMessageBatchRequestEntry.1.MessageBody.",
                )
            ],
        },
        TEXTS + "SendMessageBatch): [Standart Queue] without MessageBody",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: a forbidden character",
        sending(*({"Id": str(i), "MessageBody": str(i)} for i in range(9)), {"Id": "9", "MessageBody": "\x01"}),
        {
            "Successful": [{"Id": str(i)} for i in range(9)],
            "Failed": [failure("9", "InvalidMessageContents", like("Invalid characters found.*"))],
        },
        LS + "test_batch_send_with_invalid_char_should_succeed",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: a delay that is too long",
        sending({"Id": "1", "MessageBody": "a", "DelaySeconds": 1_800}, {"Id": "2", "MessageBody": "b"}),
        {
            "Successful": [{"Id": "2"}],
            "Failed": [
                failure(
                    "1",
                    "InvalidParameterValue",
                    "Value 1800 for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.",
                )
            ],
        },
        "moto, tests/test_sqs/test_sqs.py: test_send_message_batch_with_invalid_delay, from AWS's answer",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: a delay for each entry",
        sending({"Id": "1", "MessageBody": "a", "DelaySeconds": 10}, {"Id": "2", "MessageBody": "b"}),
        {"Successful": [{"Id": "1"}, {"Id": "2"}]},
        API + "SendMessageBatch",
        setup=[queue()],
        then=[(receive(MaxNumberOfMessages=10), bodies("b")), (Advance(10), {}), (receive(), bodies("a"))],
    ),
    row(
        "SendMessageBatch: a deduplication id on a standard queue",
        sending({"Id": "1", "MessageBody": "m", "MessageDeduplicationId": "d"}),
        {
            "Failed": [
                failure(
                    "1",
                    "InvalidParameterValue",
                    "The request include parameter that is not valid for this queue type",
                )
            ]
        },
        ISSUE + "aws/aws-sdk-js#3187",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: groups on a standard queue",
        sending({"Id": "1", "MessageBody": "m", "MessageGroupId": "tenant"}),
        {"Successful": [{"Id": "1"}], "Failed": ABSENT},
        API + "SendMessageBatch, MessageGroupId: fair queues",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: an invalid group on a standard queue",
        sending({"Id": "1", "MessageBody": "m", "MessageGroupId": " "}),
        {
            "Failed": [
                failure(
                    "1",
                    "InvalidParameterValue",
                    "MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length",
                )
            ]
        },
        TEXTS + "SendMessageBatch): [Standart Queue] with invalid MessageGroupId",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: an invalid attribute",
        sending(
            {"Id": "1", "MessageBody": "m", "MessageAttributes": {"a": text("x", "Number")}},
            {"Id": "2", "MessageBody": "n"},
        ),
        {
            "Successful": [{"Id": "2"}],
            "Failed": [
                failure(
                    "1", "InvalidParameterValue", "Can't cast the value of message (user) attribute 'a' to a number."
                )
            ],
        },
        "boto/boto#3348: an attribute's error is its entry's",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: a mebibyte in all",
        sending({"Id": "1", "MessageBody": "a" * 524_288}, {"Id": "2", "MessageBody": "b" * 524_288}),
        {"Successful": [{"Id": "1"}, {"Id": "2"}]},
        API + "SendMessageBatch",
        setup=[queue()],
    ),
    row(
        "SendMessageBatch: more than a mebibyte in all",
        sending(
            {"Id": "1", "MessageBody": "a" * 524_288},
            {"Id": "2", "MessageBody": "b" * 524_230},
            {"Id": "3", "MessageBody": "message3", "MessageAttributes": {"Yolo": text("1" * 20, "Number.customtype")}},
            {"Id": "4", "MessageBody": "message4", "MessageAttributes": {"Yolo": text("c" * 50)}},
        ),
        Error(
            PREFIX + "BatchRequestTooLong",
            "Batch requests cannot be longer than 1048576 bytes. You have sent 1048635 bytes.",
        ),
        TEXTS + "SendMessageBatch); " + SNAPSHOT + "test_send_message_batch_with_oversized_contents",
        setup=[queue()],
        then=[(receive(), bodies())],
    ),
    row(
        "SendMessageBatch: the queue's own limit holds for each message, not for the batch",
        sending(
            {"Id": "1", "MessageBody": "a" * 2_040, "MessageAttributes": {"k": text()}}, {"Id": "2", "MessageBody": "a"}
        ),
        {"Successful": [{"Id": "1"}, {"Id": "2"}], "Failed": ABSENT},
        SNAPSHOT + "test_send_message_batch_with_oversized_contents_with_updated_maximum_message_size",
        setup=[queue(MaximumMessageSize="2048")],
    ),
    row(
        "SendMessageBatch: a message longer than the queue's limit",
        sending({"Id": "1", "MessageBody": "a" * 1_024}, {"Id": "2", "MessageBody": "a" * 1_025}),
        {
            "Successful": [{"Id": "1"}],
            "Failed": [failure("2", "InvalidParameterValue", like(".*Message must be shorter than 1024 bytes."))],
        },
        TEXTS + "SendMessageBatch): [Standart Queue] individual message length",
        setup=[queue(MaximumMessageSize="1024")],
    ),
    row(
        "SendMessageBatch: FIFO, one entry without a group",
        sending(
            {"Id": "1", "MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "1"},
            {"Id": "2", "MessageBody": "m", "MessageDeduplicationId": "2"},
            of="q.fifo",
        ),
        refused("The request must contain the parameter MessageGroupId."),
        SNAPSHOT + "test_send_batch_missing_message_group_id_for_fifo_queue",
        setup=[queue("q.fifo")],
        then=[(receive(of="q.fifo"), bodies())],
    ),
    row(
        "SendMessageBatch: FIFO, one entry without a deduplication id",
        sending(
            {"Id": "1", "MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "1"},
            {"Id": "2", "MessageBody": "m", "MessageGroupId": "g"},
            of="q.fifo",
        ),
        DEDUP,
        SNAPSHOT + "test_send_batch_missing_deduplication_id_for_fifo_queue",
        setup=[queue("q.fifo")],
        then=[(receive(of="q.fifo"), bodies())],
    ),
    row(
        "SendMessageBatch: FIFO, a duplicate within the batch",
        sending(
            {"Id": "1", "MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "d"},
            {"Id": "2", "MessageBody": "n", "MessageGroupId": "g", "MessageDeduplicationId": "d"},
            of="q.fifo",
        ),
        {"Successful": [{"Id": "1", "SequenceNumber": ANY}, {"Id": "2", "SequenceNumber": ANY}]},
        API + "SendMessageBatch",
        setup=[queue("q.fifo")],
        then=[(receive(of="q.fifo", MaxNumberOfMessages=10), bodies("m"))],
    ),
    row(
        "SendMessageBatch: FIFO keeps the order of the entries",
        sending(
            *(
                {"Id": str(i), "MessageBody": str(i), "MessageGroupId": "g", "MessageDeduplicationId": str(i)}
                for i in (3, 1, 2)
            ),
            of="q.fifo",
        ),
        {"Successful": [{"Id": "3"}, {"Id": "1"}, {"Id": "2"}]},
        API + "SendMessageBatch: multiple messages in a batch keep their order",
        setup=[queue("q.fifo")],
        then=[(receive(of="q.fifo", MaxNumberOfMessages=10), bodies("3", "1", "2"))],
    ),
    row(
        "SendMessageBatch: numbers and booleans of JSON as text",
        call(
            "SendMessageBatch",
            QueueUrl="${url:q}",
            Entries=[{"Id": 5, "MessageBody": False, "MessageGroupId": 7654}],
        ),
        {"Successful": [{"Id": "5", "MD5OfMessageBody": "68934a3e9455fa72420237eb05902327"}]},
        TEXTS + "SendMessageBatch): with castable types",
        setup=[queue()],
        then=[(receive(), bodies("false"))],
        only=JSON,
    ),
)

THREE: Final = (queue(), send("1"), send("2"), send("3"), receive(MaxNumberOfMessages=10))


def entry(entry_id: str, receipt: str, **members: Any) -> dict[str, Any]:
    return {"Id": entry_id, "ReceiptHandle": receipt, **members}


def bad_handle(entry_id: str, receipt: str) -> dict[str, Any]:
    return failure(
        entry_id, "ReceiptHandleIsInvalid", f'The input receipt handle "{receipt}" is not a valid receipt handle.'
    )


DELETE: Final = (
    row(
        "DeleteMessageBatch: three messages",
        batch("DeleteMessageBatch", *(entry(f"id-{i}", handle(i)) for i in range(3))),
        {"Successful": [{"Id": "id-0"}, {"Id": "id-1"}, {"Id": "id-2"}], "Failed": ABSENT},
        LS + "test_publish_get_delete_message_batch",
        setup=THREE,
        then=[(Advance(60), {}), (receive(), bodies())],
    ),
    row(
        "DeleteMessageBatch: one of three is no handle",
        batch("DeleteMessageBatch", entry("1", handle(0)), entry("2", "garbage"), entry("3", handle(2))),
        {"Successful": [{"Id": "1"}, {"Id": "3"}], "Failed": [bad_handle("2", "garbage")]},
        BALLERINA + "testDeleteMessageBatchWithInvalidReceiptHandle",
        setup=THREE,
        then=[(Advance(60), {}), (receive(MaxNumberOfMessages=10), bodies("2"))],
    ),
    row(
        "DeleteMessageBatch: no handle",
        batch("DeleteMessageBatch", {"Id": "1"}),
        {"Failed": [failure("1", "MissingParameter", "The request must contain the parameter ReceiptHandle.")]},
        TEXTS + "DeleteMessageBatch): without ReceiptHandle",
        setup=[queue()],
    ),
    row(
        "DeleteMessageBatch: a handle twice",
        batch("DeleteMessageBatch", entry("1", handle(0)), entry("2", handle(0))),
        {"Successful": [{"Id": "1"}, {"Id": "2"}], "Failed": ABSENT},
        API + "DeleteMessage: idempotent",
        setup=THREE,
    ),
    row(
        "DeleteMessageBatch: FIFO, one has run out",
        batch("DeleteMessageBatch", entry("1", handle(0)), entry("2", handle(0, "n")), of="q.fifo"),
        {
            "Successful": [{"Id": "2"}],
            "Failed": [
                failure(
                    "1",
                    "InvalidParameterValue",
                    f"Value {handle(0)} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
                )
            ],
        },
        SNAPSHOT + "test_fifo_delete_message_with_expired_receipt_handle: of one message",
        setup=[
            GROUPED,
            *into("g-m1", "h-m1"),
            take(1, VisibilityTimeout=1),
            take(1, save="n", VisibilityTimeout=100),
            Advance(2),
        ],
    ),
)

CHANGE: Final = (
    row(
        "ChangeMessageVisibilityBatch: three messages",
        batch("ChangeMessageVisibilityBatch", *(entry(f"id-{i}", handle(i), VisibilityTimeout=0) for i in range(3))),
        {"Successful": [{"Id": "id-0"}, {"Id": "id-1"}, {"Id": "id-2"}], "Failed": ABSENT},
        TEXTS + "ChangeMessageVisibilityBatch): with all Entries",
        setup=THREE,
        then=[(receive(MaxNumberOfMessages=10, save="n"), bodies("1", "2", "3"))],
    ),
    row(
        "ChangeMessageVisibilityBatch: one of three is right",
        batch(
            "ChangeMessageVisibilityBatch",
            entry("1", handle(0), VisibilityTimeout=0),
            entry("2", "garbage", VisibilityTimeout=20),
            entry("3", handle(2), VisibilityTimeout=-20),
        ),
        {
            "Successful": [{"Id": "1"}],
            "Failed": [
                bad_handle("2", "garbage"),
                failure(
                    "3",
                    "InvalidParameterValue",
                    "Value -20 for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be an integer "
                    "between 0 and 43200.",
                ),
            ],
        },
        TEXTS + "ChangeMessageVisibilityBatch): with partial failure",
        setup=THREE,
    ),
    row(
        "ChangeMessageVisibilityBatch: no timeout",
        batch("ChangeMessageVisibilityBatch", entry("1", handle(0))),
        {
            "Failed": [
                failure(
                    "1",
                    "MissingParameter",
                    "The request must contain the parameter ChangeMessageVisibilityBatchRequestEntry.1.VisibilityTimeout.",
                )
            ]
        },
        TEXTS + "ChangeMessageVisibilityBatch): without VisibilityTimeout",
        setup=THREE,
    ),
    row(
        "ChangeMessageVisibilityBatch: a message that was deleted",
        batch("ChangeMessageVisibilityBatch", entry("1", HANDLE, VisibilityTimeout=5)),
        {
            "Failed": [
                failure(
                    "1",
                    "InvalidParameterValue",
                    f"Value {HANDLE} for parameter ReceiptHandle is invalid. Reason: {GONE}",
                )
            ]
        },
        LS + "test_change_visibility_on_deleted_message_raises_invalid_parameter_value: of one message",
        setup=[queue(), send(), receive(), delete(HANDLE)],
    ),
    row(
        "ChangeMessageVisibilityBatch: a timeout for each message",
        batch(
            "ChangeMessageVisibilityBatch",
            entry("1", handle(0), VisibilityTimeout=10),
            entry("2", handle(1), VisibilityTimeout=20),
            entry("3", handle(2), VisibilityTimeout=40),
        ),
        {"Successful": [{"Id": "1"}, {"Id": "2"}, {"Id": "3"}]},
        API + "ChangeMessageVisibilityBatch",
        setup=THREE,
        then=[(Advance(20), {}), (receive(MaxNumberOfMessages=10, save="n"), bodies("1", "2"))],
    ),
)

ROWS: Final[tuple[Row, ...]] = (*_whole(), *SEND, *DELETE, *CHANGE)
