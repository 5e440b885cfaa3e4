"""ReceiveMessage: its limits, what it shows, and the order of groups."""

from __future__ import annotations

from typing import Any, Final

from tests.sqs.table.queues import redrive
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
    change,
    delete,
    invalid,
    like,
    one_of,
    queue,
    receive,
    row,
    send,
)
from tests.sqs.table.send import text

LIMITS: Final = (
    *(
        row(
            f"ReceiveMessage: MaxNumberOfMessages {number}",
            receive(MaxNumberOfMessages=number),
            invalid("MaxNumberOfMessages", number, "Must be between 1 and 10, if provided."),
            SNAPSHOT + "test_send_receive_max_number_of_messages; aws/aws-sdk-java#197",
            setup=[queue(), send()],
        )
        for number in (-1, 0, 11, 1_000)
    ),
    row(
        "ReceiveMessage: MaxNumberOfMessages 10 of eleven",
        receive(MaxNumberOfMessages=10),
        bodies(*"abcdefghij"),
        API + "ReceiveMessage",
        setup=[queue(), *(send(body) for body in "abcdefghijk")],
    ),
    row(
        "ReceiveMessage: one by default",
        receive(),
        bodies("a"),
        API + "ReceiveMessage: the default is 1",
        setup=[queue(), send("a"), send("b")],
    ),
    *(
        row(
            f"ReceiveMessage: WaitTimeSeconds {seconds}",
            receive(WaitTimeSeconds=seconds),
            invalid("WaitTimeSeconds", seconds, "Must be >= 0 and <= 20, if provided."),
            TEXTS + "ReceiveMessage)",
            setup=[queue(), send()],
        )
        for seconds in (-1, 21)
    ),
    row(
        "ReceiveMessage: WaitTimeSeconds 20 with a message there",
        receive(WaitTimeSeconds=20, MaxNumberOfMessages=3),
        bodies("a", "b"),
        LS + "test_receive_message_wait_time_seconds_and_max_number_of_messages_does_not_block",
        setup=[queue(), send("a"), send("b")],
    ),
    row(
        "ReceiveMessage: WaitTimeSeconds 0 goes before the queue's wait",
        receive(WaitTimeSeconds=0),
        bodies(),
        API + "ReceiveMessage",
        setup=[queue(ReceiveMessageWaitTimeSeconds="20")],
    ),
    *(
        row(
            f"ReceiveMessage: VisibilityTimeout {seconds}",
            receive(VisibilityTimeout=seconds),
            invalid("VisibilityTimeout", seconds, "Must be >= 0 and <= 43200, if provided."),
            TEXTS + "ReceiveMessage); the same in another emulator in Rust",
            setup=[queue(), send()],
        )
        for seconds in (-1, 43_201)
    ),
    row(
        "ReceiveMessage: VisibilityTimeout 43200",
        receive(VisibilityTimeout=43_200),
        bodies("body"),
        API + "ReceiveMessage",
        setup=[queue(), send()],
        then=[(Advance(43_199), {}), (receive(), bodies()), (Advance(1), {}), (receive(), bodies("body"))],
    ),
    row(
        "ReceiveMessage: VisibilityTimeout 0 leaves it visible",
        receive(VisibilityTimeout=0),
        bodies("body"),
        LS + "test_receive_terminate_visibility_timeout",
        setup=[queue(), send()],
        then=[(receive(), bodies("body")), (receive(), bodies())],
    ),
    row(
        "ReceiveMessage: its VisibilityTimeout is not remembered",
        receive(VisibilityTimeout=0),
        bodies("body"),
        LS + "test_receive_message_with_visibility_timeout_updates_timeout",
        setup=[queue(VisibilityTimeout="3"), send()],
        then=[
            (receive(), bodies("body")),
            (Advance(2), {}),
            (receive(), bodies()),
            (Advance(2), {}),
            (receive(), bodies("body")),
        ],
    ),
    row(
        "ReceiveMessage: text where a number belongs",
        call("ReceiveMessage", QueueUrl="${url:q}", VisibilityTimeout="30"),
        Error("MalformedInput", "STRING_VALUE can not be converted to an Integer"),
        ISSUE + "async-aws/aws#1667",
        setup=[queue()],
        only=JSON,
    ),
    row(
        "ReceiveMessage: a number with a fraction",
        call("ReceiveMessage", QueueUrl="${url:q}", MaxNumberOfMessages=1.5),
        Error("MalformedInput", like(".*")),
        OURS,
        setup=[queue()],
        only=JSON,
    ),
    row(
        "ReceiveMessage: members that are null",
        call(
            "ReceiveMessage",
            QueueUrl="${url:q}",
            MaxNumberOfMessages=None,
            VisibilityTimeout=None,
            WaitTimeSeconds=None,
            AttributeNames=None,
            MessageAttributeNames=None,
            ReceiveRequestAttemptId=None,
        ),
        bodies("body"),
        "AWS JSON protocol: null is the same as left out",
        setup=[queue(), send()],
        only=JSON,
    ),
    row("ReceiveMessage: no queue", receive(), NO_QUEUE, API + "ReceiveMessage"),
    row(
        "ReceiveMessage: nothing there",
        receive(),
        {"Messages": ABSENT},
        LS + "test_send_receive_message_multiple_queues",
        setup=[queue()],
    ),
    row(
        "ReceiveMessage: a message in another queue",
        receive(of="r"),
        bodies(),
        LS + "test_send_receive_message_multiple_queues",
        setup=[queue(), queue("r"), send()],
    ),
    row(
        "ReceiveMessage: an attempt id on a standard queue",
        receive(
            ReceiveRequestAttemptId="attempt-001", MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
        ),
        bodies("body"),
        BALLERINA + "testReceiveMessageWithAllOptionalConfigs",
        setup=[queue(), send()],
    ),
    row(
        "ReceiveMessage: an attempt id of 129 characters",
        receive(of="q.fifo", ReceiveRequestAttemptId="a" * 129),
        invalid(
            "ReceiveRequestAttemptId",
            "a" * 129,
            "ReceiveRequestAttemptId can only include alphanumeric and punctuation characters. 1 to 128 in length.",
        ),
        API + "ReceiveMessage, ReceiveRequestAttemptId",
        setup=[queue("q.fifo")],
    ),
)


def shown(**members: Any) -> dict[str, Any]:
    return {"Messages": [members]}


MESSAGE: Final = (
    queue(VisibilityTimeout="0"),
    send("msg", MessageAttributes={"Help.Me": text("Me"), "Hello": text("There"), "General": text("Kenobi")}),
)
EVERY: Final = shown(
    MD5OfMessageAttributes="4c360f3fdafd970e05fae2f149d997f5",
    MessageAttributes={"General": text("Kenobi"), "Hello": text("There"), "Help.Me": text("Me")},
)
FILTERS: Final = (
    *(
        row(
            f"ReceiveMessage: MessageAttributeNames {names}",
            receive(MessageAttributeNames=names),
            expected,
            SNAPSHOT + "test_receive_message_message_attribute_names_filters",
            setup=MESSAGE,
        )
        for names, expected in (
            ([], shown(MD5OfMessageAttributes=ABSENT, MessageAttributes=ABSENT)),
            (["All"], EVERY),
            (["*"], EVERY),
            ([".*"], EVERY),
            (["Foo", "Help"], shown(MD5OfMessageAttributes=ABSENT, MessageAttributes=ABSENT)),
            (
                ["Hello", "General"],
                shown(
                    MD5OfMessageAttributes="fca026605781cb4126a1e9044df24232",
                    MessageAttributes={"General": text("Kenobi"), "Hello": text("There"), "Help.Me": ABSENT},
                ),
            ),
            (
                ["Foo", "Hello"],
                shown(
                    MD5OfMessageAttributes="a311262e065454b75da111d535b8dacd",
                    MessageAttributes={"Hello": text("There"), "General": ABSENT},
                ),
            ),
            (
                ["Hel.*"],
                shown(
                    MD5OfMessageAttributes="83fee93c1bcd8b9a5a923ffacdc636c7",
                    MessageAttributes={"Hello": text("There"), "Help.Me": text("Me"), "General": ABSENT},
                ),
            ),
            (["AWS."], shown(MD5OfMessageAttributes=ABSENT, MessageAttributes=ABSENT)),
            (["..foo"], shown(MD5OfMessageAttributes=ABSENT, MessageAttributes=ABSENT)),
        )
    ),
    row(
        "ReceiveMessage: MessageAttributeNames in another case",
        receive(MessageAttributeNames=["hello", "all"]),
        shown(MD5OfMessageAttributes=ABSENT, MessageAttributes=ABSENT),
        API + "ReceiveMessage: the name is case-sensitive",
        setup=MESSAGE,
    ),
    row(
        "ReceiveMessage: MessageAttributeNames ['Hel*']",
        receive(MessageAttributeNames=["Hel*"]),
        shown(MessageAttributes=ABSENT),
        API + "ReceiveMessage: a prefix ends in .*",
        setup=MESSAGE,
    ),
    row(
        "ReceiveMessage: attributes stay after a receive that showed them",
        receive(MessageAttributeNames=["All"]),
        EVERY,
        LS + "test_sent_message_retains_attributes_after_receive",
        setup=[*MESSAGE, receive(MessageAttributeNames=["All"])],
    ),
)

SYSTEM: Final = (
    row(
        "ReceiveMessage: AttributeNames All",
        receive(AttributeNames=["All"]),
        shown(
            Attributes={
                "ApproximateFirstReceiveTimestamp": like(r"\d{13}"),
                "ApproximateReceiveCount": "1",
                "SenderId": ANY,
                "SentTimestamp": like(r"\d{13}"),
                "SequenceNumber": ABSENT,
                "MessageGroupId": ABSENT,
                "AWSTraceHeader": ABSENT,
            }
        ),
        SNAPSHOT + "test_receive_message_attribute_names_filters",
        setup=[queue(), send()],
    ),
    row(
        "ReceiveMessage: AttributeNames SenderId and SequenceNumber",
        receive(AttributeNames=["SenderId", "SequenceNumber"]),
        shown(Attributes={"SenderId": ANY, "SequenceNumber": ABSENT, "SentTimestamp": ABSENT}),
        SNAPSHOT + "test_receive_message_attribute_names_filters",
        setup=[queue(), send()],
    ),
    row(
        "ReceiveMessage: both names of the parameter",
        receive(AttributeNames=["SentTimestamp"], MessageSystemAttributeNames=["ApproximateReceiveCount"]),
        shown(Attributes={"SentTimestamp": ANY, "ApproximateReceiveCount": "1", "SenderId": ABSENT}),
        OURS,
        setup=[queue(), send()],
    ),
    row(
        "ReceiveMessage: no names",
        receive(),
        shown(Attributes=ABSENT),
        API + "ReceiveMessage",
        setup=[queue(), send()],
    ),
    row(
        "ReceiveMessage: a name that is none",
        receive(MessageSystemAttributeNames=["Foobar", "SentTimestamp"]),
        shown(Attributes={"SentTimestamp": ANY, "Foobar": ABSENT}),
        OURS,
        setup=[queue(), send()],
    ),
    row(
        "ReceiveMessage: counts of receives",
        receive(AttributeNames=["ApproximateReceiveCount"]),
        shown(Attributes={"ApproximateReceiveCount": "3"}),
        API + "ReceiveMessage",
        setup=[queue(VisibilityTimeout="0"), send(), receive(), receive()],
    ),
    row(
        "ReceiveMessage: the first receive stays the first",
        receive(AttributeNames=["ApproximateFirstReceiveTimestamp"]),
        shown(
            Attributes={
                "ApproximateFirstReceiveTimestamp": "${m.Messages.0.Attributes.ApproximateFirstReceiveTimestamp}"
            }
        ),
        API + "ReceiveMessage",
        setup=[
            queue(VisibilityTimeout="1"),
            send(),
            receive(AttributeNames=["ApproximateFirstReceiveTimestamp"]),
            Advance(5),
        ],
    ),
    row(
        "ReceiveMessage: system attributes of a FIFO message",
        receive(of="q.fifo", AttributeNames=["All"]),
        shown(
            Attributes={
                "ApproximateReceiveCount": "2",
                "MessageDeduplicationId": "dedup-1",
                "MessageGroupId": "group-1",
                "SequenceNumber": "${s.SequenceNumber}",
            }
        ),
        SNAPSHOT + "test_fifo_message_attributes",
        setup=[
            queue(
                "q.fifo",
                ContentBasedDeduplication="true",
                VisibilityTimeout="0",
                DeduplicationScope="messageGroup",
                FifoThroughputLimit="perMessageGroupId",
            ),
            send("m", to="q.fifo", save="s", MessageGroupId="group-1", MessageDeduplicationId="dedup-1"),
            receive(of="q.fifo"),
        ],
    ),
    row(
        "ReceiveMessage: the trace header",
        receive(MessageSystemAttributeNames=["AWSTraceHeader"], MessageAttributeNames=["All"]),
        shown(Attributes={"AWSTraceHeader": "Root=1-abc"}, MessageAttributes=ABSENT),
        API + "ReceiveMessage",
        setup=[queue(), send(MessageSystemAttributes={"AWSTraceHeader": text("Root=1-abc")})],
    ),
    row(
        "ReceiveMessage: every receive gives another handle",
        receive(save="n"),
        shown(ReceiptHandle=ANY, MessageId="${m.Messages.0.MessageId}"),
        LS + "test_receive_after_visibility_timeout",
        setup=[queue(VisibilityTimeout="1"), send(), receive(), Advance(2)],
        then=[(delete(HANDLE), {}), (receive(), bodies())],
    ),
)

DEAD: Final = (
    row(
        "ReceiveMessage: once more than maxReceiveCount moves it to the dead-letter queue",
        receive(),
        bodies(),
        LS + "test_dead_letter_queue_max_receive_count",
        setup=[
            queue("d"),
            queue(VisibilityTimeout="0", RedrivePolicy=redrive("d", 1)),
            send(save="s"),
            receive(),
        ],
        then=[
            (
                receive(of="d", MessageSystemAttributeNames=["All"]),
                shown(
                    MessageId="${s.MessageId}",
                    Attributes={"DeadLetterQueueSourceArn": "${arn:q}", "ApproximateReceiveCount": "2"},
                ),
            )
        ],
    ),
    row(
        "ReceiveMessage: a dead letter keeps body, attributes and trace header",
        receive(of="d", MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"]),
        shown(
            Body="Hello World",
            MD5OfMessageAttributes="${s.MD5OfMessageAttributes}",
            Attributes={"AWSTraceHeader": "trace-id=1234"},
        ),
        TEXTS + "DLQ): should move messages to DLQ after x receive",
        setup=[
            queue("d"),
            queue(VisibilityTimeout="1", RedrivePolicy=redrive("d", 1)),
            send(
                "Hello World",
                save="s",
                MessageAttributes={"attrib1": text("dummy value")},
                MessageSystemAttributes={"AWSTraceHeader": text("trace-id=1234")},
            ),
            receive(),
            Advance(2),
            receive(),
        ],
    ),
    row(
        "ReceiveMessage: FIFO, the third receive of two moves it",
        receive(of="q.fifo", VisibilityTimeout=0),
        bodies(),
        LS + "test_dead_letter_queue_with_fifo_and_content_based_deduplication",
        setup=[
            queue("d.fifo", ContentBasedDeduplication="true"),
            queue("q.fifo", ContentBasedDeduplication="true", RedrivePolicy=redrive("d.fifo", 2)),
            send("foobar", to="q.fifo", save="s", MessageGroupId="1"),
            receive(of="q.fifo", VisibilityTimeout=0),
            receive(of="q.fifo", VisibilityTimeout=0),
        ],
        then=[(receive(of="d.fifo"), shown(MessageId="${s.MessageId}", Body="foobar"))],
    ),
    row(
        "ReceiveMessage: a chain of dead-letter queues",
        receive(of="c"),
        bodies("test"),
        LS + "test_dead_letter_queue_chain",
        setup=[
            queue("c", VisibilityTimeout="0"),
            queue("b", VisibilityTimeout="0", RedrivePolicy=redrive("c", 1)),
            queue("a", VisibilityTimeout="0", RedrivePolicy=redrive("b", 1)),
            send("test", to="a"),
            receive(of="a"),
            receive(of="a"),
            receive(of="b"),
            receive(of="b"),
        ],
    ),
    row(
        "ReceiveMessage: with a dead letter at the head, the next message is given",
        receive(),
        bodies("2"),
        OURS,
        setup=[
            queue("d"),
            queue(VisibilityTimeout="0", RedrivePolicy=redrive("d", 1)),
            send("1"),
            receive(),
            send("2"),
        ],
    ),
    row(
        "ReceiveMessage: a message whose retention is over",
        receive(),
        bodies(),
        API + "SetQueueAttributes, MessageRetentionPeriod",
        setup=[queue(MessageRetentionPeriod="60"), send(), Advance(60)],
    ),
    row(
        "ReceiveMessage: a message a second before its retention is over",
        receive(),
        bodies("body"),
        API + "SetQueueAttributes, MessageRetentionPeriod",
        setup=[queue(MessageRetentionPeriod="60"), send(), Advance(59)],
    ),
)

GROUPED: Final = queue("q.fifo", ContentBasedDeduplication="true")


def into(*messages: str) -> list[Call]:
    """Send to the FIFO queue; what stands before the dash is the group."""
    return [send(message, to="q.fifo", MessageGroupId=message.partition("-")[0]) for message in messages]


def take(number: int = 10, *, save: str = "m", **members: Any) -> Call:
    return receive(of="q.fifo", save=save, MaxNumberOfMessages=number, **members)


def handle(number: int, save: str = "m") -> str:
    return f"${{{save}.Messages.{number}.ReceiptHandle}}"


FIFO: Final = (
    row(
        "ReceiveMessage: FIFO, a group whole, then the next",
        take(),
        bodies("g1-m1", "g1-m2", "g1-m3", "g2-m1"),
        LS + "test_fifo_receive_message_group_id_ordering",
        setup=[GROUPED, *into("g1-m1", "g2-m1", "g1-m2", "g1-m3")],
    ),
    row(
        "ReceiveMessage: FIFO, a group in flight is passed over",
        take(1),
        bodies("g2-m1"),
        LS + "test_fifo_receive_message_visibility_timeout_shared_in_group",
        setup=[GROUPED, *into("g1-m1", "g1-m2", "g1-m3", "g2-m1"), take(2)],
    ),
    row(
        "ReceiveMessage: FIFO, after the timeout a group comes again from its beginning",
        take(VisibilityTimeout=0),
        bodies("g3-m1", "g1-m1", "g1-m2", "g1-m3", "g1-m4", "g2-m1"),
        LS + "test_fifo_receive_message_visibility_timeout_shared_in_group",
        setup=[
            queue("q.fifo", ContentBasedDeduplication="true", VisibilityTimeout="1"),
            *into("g1-m1", "g1-m2", "g1-m3", "g1-m4", "g2-m1", "g3-m1"),
            take(2),
            take(1),
            Advance(2),
        ],
    ),
    row(
        "ReceiveMessage: FIFO, groups rotate",
        take(VisibilityTimeout=0),
        bodies("g3-m1", "g1-m1", "g1-m2", "g2-m1", "g2-m2"),
        LS + "test_fifo_receive_message_with_zero_visibility_timeout",
        setup=[
            GROUPED,
            *into("g1-m1", "g2-m1", "g2-m2", "g3-m1", "g1-m2"),
            take(3, VisibilityTimeout=0),
        ],
    ),
    row(
        "ReceiveMessage: FIFO, three of several groups",
        take(3, VisibilityTimeout=0),
        bodies("g1-m1", "g1-m2", "g2-m1"),
        LS + "test_fifo_receive_message_with_zero_visibility_timeout",
        setup=[GROUPED, *into("g1-m1", "g2-m1", "g2-m2", "g3-m1", "g1-m2")],
    ),
    row(
        "ReceiveMessage: FIFO, the timeout of the first of two is ended",
        take(3),
        bodies("g2-m1", "g1-m1"),
        LS + "test_fifo_message_group_visibility_after_terminate_visibility_timeout",
        setup=[GROUPED, *into("g1-m1", "g1-m2", "g2-m1"), take(2), change(handle(0), 0, of="q.fifo")],
    ),
    row(
        "ReceiveMessage: FIFO, the timeout of the first of two is shortened",
        take(3),
        bodies("g2-m1", "g1-m1"),
        LS + "test_fifo_message_group_visibility_after_change_message_visibility",
        setup=[GROUPED, *into("g1-m1", "g1-m2", "g2-m1"), take(2), change(handle(0), 1, of="q.fifo"), Advance(2)],
    ),
    row(
        "ReceiveMessage: FIFO, the timeout of the second of two is ended",
        take(3),
        bodies("g2-m1"),
        "docs/sqs.md: a group is served from its first message, which is in flight",
        setup=[GROUPED, *into("g1-m1", "g1-m2", "g2-m1"), take(2), change(handle(1), 0, of="q.fifo")],
    ),
    *(
        row(
            f"ReceiveMessage: FIFO, message {number + 1} of three is extended, all others run out",
            take(),
            bodies(*expected),
            "LocalStack, test_fifo_message_group_visibility_*, validated on AWS",
            setup=[
                GROUPED,
                *into("g-m1", "g-m2", "g-m3"),
                take(VisibilityTimeout=1),
                change(handle(number), 4, of="q.fifo"),
                Advance(2.5),
            ],
        )
        for number, expected in ((0, ()), (1, ("g-m1",)), (2, ("g-m1", "g-m2")))
    ),
    row(
        "ReceiveMessage: FIFO, all in flight were deleted",
        take(),
        {
            "Messages": one_of(
                bodies("g2-m1", "g2-m2", "g1-m3", "g1-m4", "g3-m1")["Messages"],
                bodies("g2-m1", "g2-m2", "g3-m1", "g1-m3", "g1-m4")["Messages"],
            )
        },
        LS + "test_fifo_message_group_visibility_after_delete: AWS answered the first, and the test calls both valid",
        setup=[
            GROUPED,
            *into("g1-m1", "g2-m1", "g1-m2", "g2-m2", "g1-m3", "g1-m4", "g3-m1"),
            take(2),
            delete(handle(0), of="q.fifo"),
            delete(handle(1), of="q.fifo"),
        ],
    ),
    row(
        "ReceiveMessage: FIFO, one of two in flight was deleted",
        take(),
        bodies("g2-m1", "g2-m2", "g3-m1"),
        LS + "test_fifo_message_group_visibility_after_partial_delete",
        setup=[
            GROUPED,
            *into("g1-m1", "g2-m1", "g1-m2", "g2-m2", "g1-m3", "g1-m4", "g3-m1"),
            take(2),
            delete(handle(0), of="q.fifo"),
        ],
    ),
    row(
        "ReceiveMessage: FIFO, one by one with deletes",
        take(1),
        bodies("g-m3"),
        LS + "test_fifo_queue_send_multiple_messages_multiple_single_receives",
        setup=[
            GROUPED,
            *into("g-m1", "g-m2", "g-m3"),
            take(1),
            delete(handle(0), of="q.fifo"),
            take(1, save="n"),
            delete(handle(0, "n"), of="q.fifo"),
        ],
    ),
    row(
        "ReceiveMessage: FIFO, an attempt id gives the same again",
        take(2, ReceiveRequestAttemptId="again"),
        {
            "Messages": [
                {"Body": "g-m1", "ReceiptHandle": "${m.Messages.0.ReceiptHandle}"},
                {"Body": "g-m2", "ReceiptHandle": "${m.Messages.1.ReceiptHandle}"},
            ]
        },
        API + "ReceiveMessage, ReceiveRequestAttemptId",
        setup=[GROUPED, *into("g-m1", "g-m2", "g-m3"), take(2, ReceiveRequestAttemptId="again")],
    ),
    row(
        "ReceiveMessage: FIFO, another attempt id",
        take(2, ReceiveRequestAttemptId="other"),
        bodies(),
        API + "ReceiveMessage, ReceiveRequestAttemptId",
        setup=[GROUPED, *into("g-m1", "g-m2", "g-m3"), take(2, ReceiveRequestAttemptId="again")],
    ),
)

ROWS: Final[tuple[Row, ...]] = (*LIMITS, *FILTERS, *SYSTEM, *DEAD, *FIFO)
