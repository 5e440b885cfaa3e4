"""DeleteMessage and ChangeMessageVisibility: every state that a message and its receipt can be in."""

from __future__ import annotations

from typing import Final

from tests.sqs.table.queues import redrive
from tests.sqs.table.receive import GROUPED, handle, into, take
from tests.sqs.table.rows import (
    API,
    BALLERINA,
    GUIDE,
    HANDLE,
    ISSUE,
    JSON,
    LS,
    NO_QUEUE,
    OURS,
    SNAPSHOT,
    TEXTS,
    Advance,
    Error,
    Expected,
    Row,
    Step,
    attributes_of,
    bodies,
    call,
    change,
    delete,
    expired,
    invalid,
    missing,
    queue,
    receive,
    row,
    send,
)

NEW: Final = "${n.Messages.0.ReceiptHandle}"
GONE: Final = "Message does not exist or is not available for visibility timeout change."
RECEIVED: Final = (queue(VisibilityTimeout="10"), send(), receive())
RUN_OUT: Final = (*RECEIVED, Advance(11))
AGAIN: Final = (*RUN_OUT, receive(save="n"))
EMPTY: Final[tuple[tuple[Step, Expected], ...]] = ((Advance(60), {}), (receive(MaxNumberOfMessages=10), bodies()))
FIFO_RECEIVED: Final = (
    queue("q.fifo", VisibilityTimeout="10"),
    send(to="q.fifo", MessageGroupId="g", MessageDeduplicationId="d"),
    receive(of="q.fifo"),
)
FIFO_RUN_OUT: Final = (*FIFO_RECEIVED, Advance(11))
FIFO_AGAIN: Final = (*FIFO_RUN_OUT, receive(of="q.fifo", save="n"))


def bad(text: str) -> Error:
    return Error("ReceiptHandleIsInvalid", f'The input receipt handle "{text}" is not a valid receipt handle.', 404)


DELETE: Final = (
    row(
        "DeleteMessage: in flight",
        delete(HANDLE),
        {},
        LS + "test_publish_get_delete_message",
        setup=RECEIVED,
        then=EMPTY,
    ),
    row(
        "DeleteMessage: run out",
        delete(HANDLE),
        {},
        LS + "test_remove_message_with_old_receipt_handle",
        setup=RUN_OUT,
        then=[
            (attributes_of("ApproximateNumberOfMessages"), {"Attributes": {"ApproximateNumberOfMessages": "0"}}),
            *EMPTY,
        ],
    ),
    row(
        "DeleteMessage: received again, with the newer handle",
        delete(NEW),
        {},
        API + "DeleteMessage",
        setup=AGAIN,
        then=EMPTY,
    ),
    row(
        "DeleteMessage: received again, with the older handle",
        delete(HANDLE),
        {},
        API + "DeleteMessage: with an old handle the request succeeds",
        setup=AGAIN,
    ),
    row(
        "DeleteMessage: already deleted",
        delete(HANDLE),
        {},
        LS + "test_delete_message_with_deleted_receipt_handle",
        setup=[*RECEIVED, delete(HANDLE), delete(HANDLE)],
    ),
    row(
        "DeleteMessage: purged",
        delete(HANDLE),
        {},
        API + "DeleteMessage: a message that is gone",
        setup=[*RECEIVED, call("PurgeQueue", QueueUrl="${url:q}")],
    ),
    row(
        "DeleteMessage: its retention is over",
        delete(HANDLE),
        {},
        API + "DeleteMessage: a message that is gone",
        setup=[queue(MessageRetentionPeriod="60"), send(), receive(VisibilityTimeout=100), Advance(61)],
    ),
    row(
        "DeleteMessage: visible again by a timeout of 0",
        delete(HANDLE),
        {},
        API + "DeleteMessage",
        setup=[*RECEIVED, change(HANDLE, 0)],
        then=EMPTY,
    ),
    row(
        "DeleteMessage: moved to the dead-letter queue, at its source",
        delete(HANDLE),
        {},
        OURS,
        setup=[
            queue("d"),
            queue(VisibilityTimeout="0", RedrivePolicy=redrive("d", 1)),
            send(),
            receive(),
            receive(save="n"),
        ],
        then=[(receive(of="d"), bodies("body"))],
    ),
    row(
        "DeleteMessage: a handle of another queue",
        delete(HANDLE, of="r"),
        Error("ReceiptHandleIsInvalid", f'The input receipt handle "{HANDLE}" is not a valid receipt handle.', 404),
        "PyQS#24: a handle is not valid for another queue, 404",
        setup=[*RECEIVED, queue("r")],
        then=[(Advance(11), {}), (receive(), bodies("body"))],
    ),
    *(
        row(
            f"DeleteMessage: the handle {text!r}",
            delete(text),
            bad(text),
            LS
            + "test_delete_message_with_illegal_receipt_handle; status 404: "
            + BALLERINA
            + "testDeleteMessageWithInvalidReceiptHandle",
            setup=[queue()],
        )
        for text in ("garbage", "InvalidReceiptHandle123", "a" * 2_000, "ä")
    ),
    row(
        "DeleteMessage: no handle",
        call("DeleteMessage", QueueUrl="${url:q}"),
        missing("ReceiptHandle"),
        TEXTS + "ChangeMessageVisibility): without ReceiptHandle",
        setup=[queue()],
    ),
    row(
        "DeleteMessage: an empty handle",
        delete(""),
        missing("ReceiptHandle"),
        TEXTS + "ChangeMessageVisibility): with empty ReceiptHandle",
        setup=[queue()],
    ),
    row("DeleteMessage: no queue", delete("garbage"), NO_QUEUE, API + "DeleteMessage"),
    row(
        "DeleteMessage: FIFO, in flight",
        delete(HANDLE, of="q.fifo"),
        {},
        API + "DeleteMessage",
        setup=FIFO_RECEIVED,
        then=[(Advance(60), {}), (receive(of="q.fifo"), bodies())],
    ),
    row(
        "DeleteMessage: FIFO, run out",
        delete(HANDLE, of="q.fifo"),
        expired(HANDLE),
        SNAPSHOT + "test_fifo_delete_message_with_expired_receipt_handle",
        setup=FIFO_RUN_OUT,
        then=[(receive(of="q.fifo"), bodies("body"))],
    ),
    row(
        "DeleteMessage: FIFO, received with a timeout of 0",
        delete(HANDLE, of="q.fifo"),
        expired(HANDLE),
        TEXTS + "DeleteMessage): [FIFO] should fail to delete visible message",
        setup=[
            queue("q.fifo"),
            send(to="q.fifo", MessageGroupId="g", MessageDeduplicationId="d"),
            receive(of="q.fifo", VisibilityTimeout=0),
        ],
    ),
    row(
        "DeleteMessage: FIFO, received again, with the older handle",
        delete(HANDLE, of="q.fifo"),
        expired(HANDLE),
        ISSUE + "aws/aws-sdk-java#1628",
        setup=FIFO_AGAIN,
        then=[(delete(NEW, of="q.fifo"), {})],
    ),
    row(
        "DeleteMessage: FIFO, already deleted",
        delete(HANDLE, of="q.fifo"),
        {},
        API + "DeleteMessage: idempotent",
        setup=[*FIFO_RECEIVED, delete(HANDLE, of="q.fifo")],
    ),
    row(
        "DeleteMessage: FIFO, the second of two in flight first",
        delete(handle(1), of="q.fifo"),
        {},
        API + "DeleteMessage",
        setup=[GROUPED, *into("g-m1", "g-m2", "g-m3"), take(2)],
        then=[(take(save="n"), bodies()), (delete(handle(0), of="q.fifo"), {}), (take(save="n"), bodies("g-m3"))],
    ),
)

CHANGE: Final = (
    row(
        "ChangeMessageVisibility: longer",
        change(HANDLE, 40),
        {},
        LS + "test_extend_message_visibility_timeout_set_in_queue",
        setup=[*RECEIVED, Advance(9)],
        then=[(Advance(39), {}), (receive(save="n"), bodies()), (Advance(1), {}), (receive(save="n"), bodies("body"))],
    ),
    row(
        "ChangeMessageVisibility: 0",
        change(HANDLE, 0),
        {},
        LS + "test_change_message_visibility_not_permanent",
        setup=RECEIVED,
        then=[(receive(save="n"), bodies("body")), (receive(save="n"), bodies())],
    ),
    row(
        "ChangeMessageVisibility: run out, not received again",
        change(HANDLE, 20),
        {},
        SNAPSHOT + "test_change_message_visibility_after_visibility_timeout_expiration",
        setup=RUN_OUT,
        then=[(receive(save="n"), bodies()), (Advance(20), {}), (receive(save="n"), bodies("body"))],
    ),
    row(
        "ChangeMessageVisibility: received again, 0 with the older handle",
        change(HANDLE, 0),
        {},
        LS + "test_terminate_visibility_timeout_after_receive; getmoto/moto#4655",
        setup=[queue(), send(), receive(VisibilityTimeout=0), receive(save="n", VisibilityTimeout=100)],
        then=[(receive(save="o"), bodies("body"))],
    ),
    row(
        "ChangeMessageVisibility: deleted",
        change(HANDLE, 42),
        invalid("ReceiptHandle", HANDLE, GONE),
        LS + "test_change_visibility_on_deleted_message_raises_invalid_parameter_value",
        setup=[*RECEIVED, change(HANDLE, 42), delete(HANDLE)],
    ),
    row(
        "ChangeMessageVisibility: purged",
        change(HANDLE, 42),
        invalid("ReceiptHandle", HANDLE, GONE),
        LS + "test_change_visibility_on_deleted_message_raises_invalid_parameter_value: it is gone",
        setup=[*RECEIVED, call("PurgeQueue", QueueUrl="${url:q}")],
    ),
    row(
        "ChangeMessageVisibility: moved to the dead-letter queue",
        change(HANDLE, 42),
        invalid("ReceiptHandle", HANDLE, GONE),
        OURS,
        setup=[
            queue("d"),
            queue(VisibilityTimeout="0", RedrivePolicy=redrive("d", 1)),
            send(),
            receive(),
            receive(save="n"),
        ],
    ),
    *(
        row(
            f"ChangeMessageVisibility: {timeout}",
            change(HANDLE, timeout),
            invalid("VisibilityTimeout", timeout, "Must be between 0 and 43200."),
            TEXTS + "ChangeMessageVisibility)",
            setup=RECEIVED,
        )
        for timeout in (-1, 43_201)
    ),
    row(
        "ChangeMessageVisibility: 43200 at the time of the receive",
        change(HANDLE, 43_200),
        {},
        API + "ChangeMessageVisibility",
        setup=RECEIVED,
    ),
    row(
        "ChangeMessageVisibility: 43200 ten seconds after the receive",
        change(HANDLE, 43_200),
        invalid(
            "VisibilityTimeout",
            43_200,
            "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]",
        ),
        ISSUE + "localstack/localstack#3956 and aws/aws-sdk-net#794",
        setup=[queue(VisibilityTimeout="30"), send(), receive(), Advance(10)],
    ),
    row(
        "ChangeMessageVisibility: what is left of twelve hours",
        change(HANDLE, 43_190),
        {},
        GUIDE + "Visibility timeout: 12 hours from the time that the message was first received",
        setup=[queue(VisibilityTimeout="30"), send(), receive(), Advance(10)],
    ),
    row(
        "ChangeMessageVisibility: no timeout",
        call("ChangeMessageVisibility", QueueUrl="${url:q}", ReceiptHandle=HANDLE),
        missing("VisibilityTimeout"),
        TEXTS + "ChangeMessageVisibility)",
        setup=RECEIVED,
    ),
    row(
        "ChangeMessageVisibility: no handle",
        call("ChangeMessageVisibility", QueueUrl="${url:q}", VisibilityTimeout=34),
        missing("ReceiptHandle"),
        TEXTS + "ChangeMessageVisibility)",
        setup=[queue()],
    ),
    row(
        "ChangeMessageVisibility: a handle that is none",
        change("INVALID", 60),
        bad("INVALID"),
        LS + "test_invalid_receipt_handle_should_return_error_message",
        setup=[queue()],
    ),
    row(
        "ChangeMessageVisibility: the timeout as text",
        call("ChangeMessageVisibility", QueueUrl="${url:q}", ReceiptHandle=HANDLE, VisibilityTimeout="10"),
        Error("MalformedInput", "STRING_VALUE can not be converted to an Integer"),
        ISSUE + "async-aws/aws#1667",
        setup=RECEIVED,
        only=JSON,
    ),
    row("ChangeMessageVisibility: no queue", change("garbage", 1), NO_QUEUE, API + "ChangeMessageVisibility"),
    row(
        "ChangeMessageVisibility: FIFO, longer",
        change(HANDLE, 40, of="q.fifo"),
        {},
        API + "ChangeMessageVisibility",
        setup=FIFO_RECEIVED,
        then=[
            (Advance(39), {}),
            (receive(of="q.fifo", save="n"), bodies()),
            (Advance(1), {}),
            (receive(of="q.fifo", save="n"), bodies("body")),
        ],
    ),
    row(
        "ChangeMessageVisibility: FIFO, 0",
        change(HANDLE, 0, of="q.fifo"),
        {},
        API + "ChangeMessageVisibility",
        setup=FIFO_RECEIVED,
        then=[(receive(of="q.fifo", save="n"), bodies("body"))],
    ),
    row(
        "ChangeMessageVisibility: FIFO, run out",
        change(HANDLE, 42, of="q.fifo"),
        expired(HANDLE),
        ISSUE + "aws/aws-sdk-java#1628: of changeMessageVisibility",
        setup=FIFO_RUN_OUT,
        then=[(receive(of="q.fifo", save="n"), bodies("body"))],
    ),
    row(
        "ChangeMessageVisibility: FIFO, received again, with the older handle",
        change(HANDLE, 0, of="q.fifo"),
        expired(HANDLE),
        ISSUE + "aws/aws-sdk-java#1628: of changeMessageVisibility",
        setup=FIFO_AGAIN,
        then=[(receive(of="q.fifo", save="o"), bodies())],
    ),
    row(
        "ChangeMessageVisibility: FIFO, deleted",
        change(HANDLE, 42, of="q.fifo"),
        invalid("ReceiptHandle", HANDLE, GONE),
        API + "ChangeMessageVisibility",
        setup=[*FIFO_RECEIVED, delete(HANDLE, of="q.fifo")],
    ),
)

ROWS: Final[tuple[Row, ...]] = (*DELETE, *CHANGE)
