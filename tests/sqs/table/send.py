"""SendMessage: bodies, delays, attributes, groups and deduplication."""

from __future__ import annotations

from typing import Any, Final

from tests.sqs.table.rows import (
    ABSENT,
    ANY,
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
    Call,
    Error,
    Row,
    bodies,
    call,
    delete,
    invalid,
    like,
    missing,
    queue,
    receive,
    refused,
    row,
    send,
)

CHARACTERS: Final = Error(
    "InvalidMessageContents",
    "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | "
    "#x10000 to #x10FFFF",
)
WRONG_TYPE: Final = "The request include parameter that is not valid for this queue type."
DEDUP: Final = refused(
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
)


def short(bound: int = 1_048_576) -> Error:
    return refused(f"One or more parameters are invalid. Reason: Message must be shorter than {bound} bytes.")


def text(value: str = "x", data_type: str = "String") -> dict[str, str]:
    return {"DataType": data_type, "StringValue": value}


def attributed(**attributes: Any) -> Call:
    return send("test", MessageAttributes=attributes)


def named(name: str) -> Call:
    return send("test", MessageAttributes={name: text()})


BODIES: Final = (
    row(
        "SendMessage: a body",
        send("message"),
        {
            "MD5OfMessageBody": "78e731027d8fd50ed642340b7c9a63b3",
            "MessageId": like(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
            "MD5OfMessageAttributes": ABSENT,
            "MD5OfMessageSystemAttributes": ABSENT,
            "SequenceNumber": ABSENT,
        },
        LS + "test_send_receive_message, test_sequence_number",
        setup=[queue()],
    ),
    row("SendMessage: no queue", send(), NO_QUEUE, BALLERINA + "testSendMessageToNonexistentQueue"),
    row(
        "SendMessage: no body",
        call("SendMessage", QueueUrl="${url:q}"),
        missing("MessageBody"),
        LS + "test_valid_action_with_missing_parameter_raises_exception",
        setup=[queue()],
    ),
    row(
        "SendMessage: an empty body",
        send(""),
        missing("MessageBody"),
        BALLERINA + "testSendMessageWithEmptyMessageBody",
        setup=[queue()],
    ),
    row(
        "SendMessage: a body that is null",
        call("SendMessage", QueueUrl="${url:q}", MessageBody=None),
        missing("MessageBody"),
        "AWS JSON protocol: null is the same as left out",
        setup=[queue()],
        only=JSON,
    ),
    row(
        "SendMessage: a body of one space",
        send(" "),
        {"MD5OfMessageBody": "7215ee9c7d9dc229d2921a40e899ec5f"},
        API + "SendMessage: the minimum size is one character",
        setup=[queue()],
        then=[(receive(), bodies(" "))],
    ),
    row(
        "SendMessage: a body that is a number of JSON",
        call("SendMessage", QueueUrl="${url:q}", MessageBody=0),
        {"MD5OfMessageBody": "cfcd208495d565ef66e7dff9f98764da"},
        TEXTS + "SendMessage): with castable type",
        setup=[queue()],
        then=[(receive(), bodies("0"))],
        only=JSON,
    ),
    row(
        "SendMessage: a body that is an object of JSON",
        call("SendMessage", QueueUrl="${url:q}", MessageBody={}),
        Error("MalformedInput", "Start of structure or map found where not expected."),
        TEXTS + "SendMessage): with invalid MessageBody",
        setup=[queue()],
        only=JSON,
    ),
    row(
        "SendMessage: entities and a carriage return",
        send('"&quot;&quot;\r'),
        {},
        LS + "test_send_receive_message_encoded_content",
        setup=[queue()],
        then=[(receive(), bodies('"&quot;&quot;\r'))],
    ),
    row(
        "SendMessage: a carriage return and a line feed",
        send('{\r\n"machineID" : "d357006e26ff47439e1ef894225d4307"}', save="s"),
        {},
        LS + "test_message_with_carriage_return",
        setup=[queue()],
        then=[
            (
                receive(),
                {
                    "Messages": [
                        {
                            "Body": '{\r\n"machineID" : "d357006e26ff47439e1ef894225d4307"}',
                            "MD5OfBody": "${s.MD5OfMessageBody}",
                        }
                    ]
                },
            )
        ],
    ),
    row(
        "SendMessage: spaces around, tabs and markup",
        send(" \t<a href='x'>&amp;</a> ]]> "),
        {},
        API + "SendMessage: a body is kept as it is",
        setup=[queue()],
        then=[(receive(), bodies(" \t<a href='x'>&amp;</a> ]]> "))],
    ),
    row(
        "SendMessage: the last characters that are allowed",
        send("\ud7ff\ue000\ufffd\U00010000\U0010ffff"),
        {},
        API + "SendMessage, MessageBody",
        setup=[queue()],
        then=[(receive(), bodies("\ud7ff\ue000\ufffd\U00010000\U0010ffff"))],
    ),
    *(
        row(
            f"SendMessage: the character {character!r}",
            send(f"a{character}b"),
            CHARACTERS,
            LS + "test_send_message_with_invalid_payload_characters",
            setup=[queue()],
        )
        for character in ("\x00", "\x08", "\x0b", "\x13", "\x1f", "\ufffe", "\uffff")
    ),
    row(
        "SendMessage: the character DEL",
        send("a\x7fb"),
        {},
        API + "SendMessage: #x7F lies between #x20 and #xD7FF",
        setup=[queue()],
        then=[(receive(), bodies("a\x7fb"))],
    ),
    row(
        "SendMessage: as long as the queue allows",
        send("a" * 1_024),
        {},
        LS + "test_send_message_with_updated_maximum_message_size",
        setup=[queue(MaximumMessageSize="1024")],
    ),
    row(
        "SendMessage: a byte too long",
        send("a" * 1_025),
        short(1_024),
        SNAPSHOT + "test_send_message_with_updated_maximum_message_size",
        setup=[queue(MaximumMessageSize="1024")],
    ),
    row(
        "SendMessage: the length counts bytes, not characters",
        send("ä" * 513),
        short(1_024),
        API + "SetQueueAttributes, MaximumMessageSize: bytes",
        setup=[queue(MaximumMessageSize="1024")],
    ),
    row(
        "SendMessage: attributes count: name, type and value",
        send("a" * (1_024 - 7), MessageAttributes={"k": text()}),
        short(1_024),
        SNAPSHOT + "test_send_message_with_updated_maximum_message_size",
        setup=[queue(MaximumMessageSize="1024")],
    ),
    row(
        "SendMessage: attributes count, to the byte",
        send("a" * (1_024 - 8), MessageAttributes={"k": text()}),
        {},
        SNAPSHOT + "test_send_message_with_updated_maximum_message_size",
        setup=[queue(MaximumMessageSize="1024")],
    ),
    row(
        "SendMessage: the trace header does not count",
        send("a" * 1_024, MessageSystemAttributes={"AWSTraceHeader": text("Root=1-5759e988-bd862e3fe1be46a994272793")}),
        {},
        API + "SendMessage: the size of a message system attribute doesn't count towards the total size of a message",
        setup=[queue(MaximumMessageSize="1024")],
    ),
    row(
        "SendMessage: a mebibyte",
        send("a" * 1_048_576),
        {},
        API + "SendMessage: the maximum is 1 MiB",
        setup=[queue()],
    ),
    row("SendMessage: a mebibyte and one", send("a" * 1_048_577), short(), API + "SendMessage", setup=[queue()]),
)

DELAYS: Final = (
    *(
        row(
            f"SendMessage: DelaySeconds {delay}",
            send(DelaySeconds=delay),
            invalid("DelaySeconds", delay, "DelaySeconds must be >= 0 and <= 900."),
            BALLERINA + "testSendMessageWithInvalidDelay, testSendMessageWithExcessiveDelay",
            setup=[queue()],
        )
        for delay in (-1, 901, 1_000)
    ),
    row(
        "SendMessage: DelaySeconds 900",
        send(DelaySeconds=900),
        {},
        API + "SendMessage",
        setup=[queue()],
        then=[(Advance(899), {}), (receive(), bodies()), (Advance(1), {}), (receive(), bodies("body"))],
    ),
    row(
        "SendMessage: DelaySeconds 0 goes before the queue's delay",
        send(DelaySeconds=0),
        {},
        API + "SendMessage: if you don't specify a value, the default value for the queue applies",
        setup=[queue(DelaySeconds="100")],
        then=[(receive(), bodies("body"))],
    ),
    row(
        "SendMessage: no DelaySeconds is the queue's delay",
        send(),
        {},
        API + "SendMessage",
        setup=[queue(DelaySeconds="2")],
        then=[(receive(), bodies()), (Advance(2), {}), (receive(), bodies("body"))],
    ),
    row(
        "SendMessage: DelaySeconds as text",
        call("SendMessage", QueueUrl="${url:q}", MessageBody="b", DelaySeconds="invalid"),
        Error("MalformedInput", "STRING_VALUE can not be converted to an Integer"),
        ISSUE + "async-aws/aws#1667",
        setup=[queue()],
        only=JSON,
    ),
    row(
        "SendMessage: DelaySeconds null",
        call("SendMessage", QueueUrl="${url:q}", MessageBody="b", DelaySeconds=None),
        {},
        "AWS JSON protocol: null is the same as left out",
        setup=[queue()],
        only=JSON,
    ),
    row(
        "SendMessage: DelaySeconds to a FIFO queue",
        send(to="q.fifo", MessageGroupId="1", DelaySeconds=2),
        invalid("DelaySeconds", 2, WRONG_TYPE),
        SNAPSHOT + "test_fifo_queue_send_message_with_delay_seconds_fails",
        setup=[queue("q.fifo", ContentBasedDeduplication="true")],
    ),
    row(
        "SendMessage: DelaySeconds 0 to a FIFO queue",
        send(to="q.fifo", MessageGroupId="1", MessageDeduplicationId="42", DelaySeconds=0),
        {},
        LS + "test_send_message_with_delay_0_works_for_fifo",
        setup=[queue("q.fifo")],
        then=[(receive(of="q.fifo"), bodies("body"))],
    ),
    row(
        "SendMessage: a FIFO queue's own delay",
        send("3", to="q.fifo", MessageGroupId="1"),
        {},
        LS + "test_fifo_queue_send_message_with_delay_on_queue_works",
        setup=[
            queue("q.fifo", ContentBasedDeduplication="true", DelaySeconds="2"),
            send("1", to="q.fifo", MessageGroupId="1"),
            send("2", to="q.fifo", MessageGroupId="1"),
        ],
        then=[
            (receive(of="q.fifo"), bodies()),
            (Advance(3), {}),
            (receive(of="q.fifo", MaxNumberOfMessages=3), bodies("1", "2", "3")),
        ],
    ),
)

ATTRIBUTES: Final = (
    row(
        "SendMessage: the digest of the documentation's attribute",
        attributed(attribName1=text("attribValue 1")),
        {"MD5OfMessageAttributes": "19e27d4e946b072f3f58da80d94fd778"},
        GUIDE + "Calculating the MD5 message digest",
        setup=[queue()],
    ),
    row(
        "SendMessage: the digest of three attributes",
        send(
            "msg",
            MessageAttributes={"Help.Me": text("Me"), "Hello": text("There"), "General": text("Kenobi")},
        ),
        {
            "MD5OfMessageAttributes": "4c360f3fdafd970e05fae2f149d997f5",
            "MD5OfMessageBody": "6e2baaf3b97dbeef01c0043275f9a0e7",
        },
        SNAPSHOT + "test_receive_message_message_attribute_names_filters",
        setup=[queue()],
    ),
    row(
        "SendMessage: the digest of a binary attribute",
        attributed(
            attr1={
                "DataType": "Binary",
                "BinaryValue": b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01",
            }
        ),
        {"MD5OfMessageAttributes": "8cbe4db156db8a94db8b801b7addb984"},
        SNAPSHOT + "test_send_message_with_binary_attributes",
        setup=[queue()],
        then=[
            (
                receive(MessageAttributeNames=["All"]),
                {
                    "Messages": [
                        {
                            "MD5OfMessageAttributes": "8cbe4db156db8a94db8b801b7addb984",
                            "MessageAttributes": {
                                "attr1": {
                                    "DataType": "Binary",
                                    "BinaryValue": b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01",
                                }
                            },
                        }
                    ]
                },
            )
        ],
    ),
    row(
        "SendMessage: the digest of a custom type and of the trace header",
        send(
            "Test Message",
            MessageAttributes={"UserId": text("1234567890123456789012", "Number.bigint")},
            MessageSystemAttributes={"AWSTraceHeader": text("some-trace-id")},
        ),
        {
            "MD5OfMessageAttributes": "797ab158d73dcb5242dedc4412c8e855",
            "MD5OfMessageBody": "d1d4180b7e411c4be86b00fb2ee103eb",
            "MD5OfMessageSystemAttributes": "fdce4f2818803f2f73becc09a54792c0",
        },
        TEXTS + "SendMessage): should send message with custom data type",
        setup=[queue()],
    ),
    row(
        "SendMessage: the digest of the trace header",
        send(
            MessageSystemAttributes={
                "AWSTraceHeader": text("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
            }
        ),
        {"MD5OfMessageSystemAttributes": "5ae4d5d7636402d80f4eb6d213245a88", "MD5OfMessageAttributes": ABSENT},
        LS + "test_system_attributes_have_no_effect_on_attr_md5",
        setup=[queue()],
    ),
    row(
        "SendMessage: no attributes in the map",
        send(MessageAttributes={}),
        {"MD5OfMessageAttributes": ABSENT},
        BALLERINA + "testSendMessageWithEmptyAttributes",
        setup=[queue()],
    ),
    row(
        "SendMessage: attributes that are null",
        call("SendMessage", QueueUrl="${url:q}", MessageBody="b", MessageAttributes=None),
        {"MD5OfMessageAttributes": ABSENT},
        BALLERINA + "testSendMessageWithNilAttributes",
        setup=[queue()],
        only=JSON,
    ),
    row(
        "SendMessage: ten attributes",
        send(MessageAttributes={f"a{i}": text() for i in range(10)}),
        {},
        API + "SendMessage",
        setup=[queue()],
    ),
    row(
        "SendMessage: eleven attributes",
        send(MessageAttributes={f"a{i}": text() for i in range(11)}),
        refused("Number of message attributes [11] exceeds the allowed maximum [10]."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: an attribute value that is empty",
        send("test", MessageAttributes={"ErrorDetails": text("")}),
        refused("Message (user) attribute 'ErrorDetails' must contain a non-empty value of type 'String'."),
        SNAPSHOT + "test_send_message_with_empty_string_attribute",
        setup=[queue()],
    ),
    row(
        "SendMessage: an attribute that is a number of JSON",
        call("SendMessage", QueueUrl="${url:q}", MessageBody="0", MessageAttributes={"a": text(2345), "b": text(True)}),  # type: ignore[arg-type] # on purpose
        {"MD5OfMessageAttributes": ANY},
        TEXTS + "SendMessage): should send with castable type",
        setup=[queue()],
        then=[
            (
                receive(MessageAttributeNames=["All"]),
                {
                    "Messages": [
                        {
                            "MessageAttributes": {
                                "a": {"DataType": "String", "StringValue": "2345"},
                                "b": {"DataType": "String", "StringValue": "true"},
                            }
                        }
                    ]
                },
            )
        ],
        only=JSON,
    ),
    row(
        "SendMessage: an attribute with nothing in it",
        send(MessageAttributes={"Hello": {}}),
        refused("The message (user) attribute 'Hello' must contain a non-empty message attribute value."),
        TEXTS + "SendMessage)",
        setup=[queue()],
        only=JSON,
    ),
    row(
        "SendMessage: an attribute without a type",
        send(MessageAttributes={"Hello": {"StringValue": "x"}}),
        refused("The message (user) attribute 'Hello' must contain a non-empty message attribute type."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: an attribute without a value",
        send(MessageAttributes={"Hello": {"DataType": "Number"}}),
        refused("Message (user) attribute 'Hello' must contain a non-empty value of type 'Number'."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: a String attribute with a binary value",
        send(MessageAttributes={"Hello": {"DataType": "String", "BinaryValue": b"x"}}),
        refused("Message (user) attribute 'Hello' with type 'String' must use field 'String'."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: a Binary attribute with a string value",
        send(MessageAttributes={"Hello": {"DataType": "Binary", "StringValue": "x"}}),
        refused("Message (user) attribute 'Hello' with type 'Binary' must use field 'Binary'."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: an attribute with two values",
        send(MessageAttributes={"Hello": {"DataType": "String", "StringValue": "x", "BinaryValue": b"x"}}),
        refused("Message (user) attribute 'Hello' must have a single value."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: a list value",
        send(MessageAttributes={"Hello": {"DataType": "StringList", "StringListValues": ["World"]}}),
        Error(
            "AWS.SimpleQueueService.UnsupportedOperation",
            "Message attribute list values in SendMessage operation are not supported.",
        ),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    *(
        row(
            f"SendMessage: the attribute type {data_type!r}",
            send(MessageAttributes={"invalidAttribute": text("value", data_type)}),
            refused(
                "The type of message (user) attribute 'invalidAttribute' is invalid. You must use only the following "
                "supported type prefixes: Binary, Number, String."
            ),
            BALLERINA + "testSendMessageWithInvalidAttributes; boto/boto3#2014: types are case-sensitive",
            setup=[queue()],
        )
        for data_type in ("InvalidType", "string", "StringX", "Boolean", "Number ")
    ),
    *(
        row(
            f"SendMessage: the attribute type {data_type!r}",
            send(MessageAttributes={"a": text("1", data_type)}),
            {},
            GUIDE + "Message attributes, data types: custom labels",
            setup=[queue()],
            then=[
                (
                    receive(MessageAttributeNames=["All"]),
                    {"Messages": [{"MessageAttributes": {"a": {"DataType": data_type, "StringValue": "1"}}}]},
                )
            ],
        )
        for data_type in ("Number.byte", "String.a.b", "Number.int-64_é")
    ),
    row(
        "SendMessage: an attribute type of 257 characters",
        send(MessageAttributes={"a": text("1", "String." + "a" * 250)}),
        refused("Message (user) attribute type must be shorter than 256 bytes."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: an attribute type of 256 characters",
        send(MessageAttributes={"a": text("1", "String." + "a" * 249)}),
        {},
        GUIDE + "Message attributes: the type can be up to 256 characters long",
        setup=[queue()],
    ),
    *(
        row(
            f"SendMessage: the number {value!r}",
            send(MessageAttributes={"Hello": text(value, "Number")}),
            refused("Can't cast the value of message (user) attribute 'Hello' to a number."),
            TEXTS + "SendMessage); " + GUIDE + "Message attributes, Number",
            setup=[queue()],
        )
        for value in ("world", "1,5", "NaN", "Infinity", "0x1f", "1" * 39, "1e127", "1e-129", " 1")
    ),
    *(
        row(
            f"SendMessage: the number {value!r}",
            send(MessageAttributes={"n": text(value, "Number")}),
            {},
            GUIDE + "Message attributes, Number: 38 digits, 10^-128 to 10^126",
            setup=[queue()],
            then=[
                (
                    receive(MessageAttributeNames=["n"]),
                    {"Messages": [{"MessageAttributes": {"n": {"DataType": "Number", "StringValue": value}}}]},
                )
            ],
        )
        for value in ("1614717034367", "-0.5", "1e126", "1e-128", "0", "9" * 38, "007")
    ),
    *(
        row(
            f"SendMessage: a control character in a {what}",
            send(MessageAttributes={"attr1": text("Invalid-\x08,\x0b")}),
            refused(like(".*nvalid.*")),
            LS + "test_invalid_string_attributes_cause_invalid_parameter_value_error",
            setup=[queue()],
        )
        for what in ("string attribute",)
    ),
    row(
        "SendMessage: control characters in a binary attribute",
        send(MessageAttributes={"b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}),
        {},
        GUIDE + "Message attributes, Binary: any data",
        setup=[queue()],
        then=[
            (
                receive(MessageAttributeNames=["All"]),
                {"Messages": [{"MessageAttributes": {"b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}}]},
            )
        ],
    ),
)

NAMES: Final = (
    *(
        row(
            f"SendMessage: the attribute name {name!r}",
            named(name),
            {},
            source,
            setup=[queue()],
            then=[(receive(MessageAttributeNames=["All"]), {"Messages": [{"MessageAttributes": {name: ANY}}]})],
        )
        for name, source in (
            ("attr.1øßä", LS + "test_send_message_with_invalid_string_attributes"),
            ("a-_9.Z", API + "SendMessage, message attribute names"),
            ("n" * 256, API + "SendMessage: the name can be up to 256 characters long"),
            ("awsx", API + "SendMessage: only AWS. and Amazon. are reserved"),
            ("my.aws.name", API + "SendMessage: AWS. may not stand at the beginning"),
        )
    ),
    *(
        row(
            f"SendMessage: the attribute name {name!r}",
            named(name),
            refused(
                "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are reserved "
                "for internal use."
            ),
            LS + "test_send_message_with_invalid_string_attributes",
            setup=[queue()],
        )
        for name in ("aWs.-Invalid-attr", "AMAZON.-Invalid-attr", "AWS.x", "amazon.Hello")
    ),
    *(
        row(
            f"SendMessage: the attribute name {name!r}",
            named(name),
            refused(like(".*name.*")),
            LS + "test_send_message_with_invalid_string_attributes",
            setup=[queue()],
        )
        for name in (
            ".x",
            "Invalid.",
            "Invalid-!-attr",
            'Invalid-"-attr',
            "Invalid-§-attr",
            "Invalid-(-attr",
            "a b",
            "a/b",
        )
    ),
    row(
        "SendMessage: an attribute name with two dots",
        named("Invalid..Name"),
        refused(like(".*name.*")),
        API + "SendMessage: the name can't have periods in succession",
        setup=[queue()],
    ),
    row(
        "SendMessage: an attribute name of 257 characters",
        named("L" * 257),
        refused("Message (user) attribute name must be shorter than 256 bytes."),
        LS + "test_send_message_with_invalid_string_attributes; " + TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: an empty attribute name",
        named(""),
        refused("The request must contain non-empty message (user) attribute names."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: a system attribute that is none",
        send(MessageSystemAttributes={"Hello": text("World")}),
        refused("Message system attribute name 'Hello' is invalid."),
        TEXTS + "SendMessage)",
        setup=[queue()],
    ),
    row(
        "SendMessage: a trace header that is a number",
        send(MessageSystemAttributes={"AWSTraceHeader": text("1", "Number")}),
        refused(like(".*AWSTraceHeader.*")),
        API + "SendMessage: its type must be String",
        setup=[queue()],
    ),
)

GROUPS: Final = (
    row(
        "SendMessage: a group on a standard queue",
        send(MessageGroupId="tenant-1"),
        {"SequenceNumber": ABSENT},
        GUIDE + "Fair queues",
        setup=[queue()],
        then=[
            (
                receive(MessageSystemAttributeNames=["All"]),
                {"Messages": [{"Attributes": {"MessageGroupId": "tenant-1", "SequenceNumber": ABSENT}}]},
            )
        ],
    ),
    row(
        "SendMessage: a deduplication id on a standard queue",
        send(MessageDeduplicationId="d"),
        invalid("MessageDeduplicationId", "d", WRONG_TYPE),
        ISSUE + "cdklabs/construct-hub#905",
        setup=[queue()],
    ),
    row(
        "SendMessage: FIFO without a group",
        send(to="q.fifo", MessageDeduplicationId="d"),
        missing("MessageGroupId"),
        SNAPSHOT + "test_posting_to_fifo_requires_deduplicationid_group_id",
        setup=[queue("q.fifo")],
    ),
    row(
        "SendMessage: FIFO without a deduplication id",
        send(to="q.fifo", MessageGroupId="g"),
        DEDUP,
        SNAPSHOT + "test_posting_to_fifo_requires_deduplicationid_group_id",
        setup=[queue("q.fifo")],
    ),
    row(
        "SendMessage: FIFO without either",
        send(to="q.fifo"),
        missing("MessageGroupId"),
        OURS,
        setup=[queue("q.fifo")],
    ),
    *(
        row(
            f"SendMessage: the group {group!r}",
            send(to="q.fifo", MessageGroupId=group, MessageDeduplicationId="d"),
            invalid(
                "MessageGroupId",
                group,
                "MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length.",
            ),
            "AWS's answer, as logs of its users have it: CTC#QA-CS5A INTERIOR",
            setup=[queue("q.fifo")],
        )
        for group in ("CTC#QA-CS5A INTERIOR", "a\tb", "g" * 129, "Schlüssel")
    ),
    row(
        "SendMessage: an invalid group on a standard queue",
        send(MessageGroupId=" "),
        invalid(
            "MessageGroupId",
            " ",
            "MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length.",
        ),
        TEXTS + "SendMessageBatch): [Standart Queue] with invalid MessageGroupId",
        setup=[queue()],
    ),
    row(
        "SendMessage: every punctuation mark in a group",
        send(to="q.fifo", MessageGroupId="!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "g" * 96, MessageDeduplicationId="d"),
        {},
        API + "SendMessage, MessageGroupId",
        setup=[queue("q.fifo")],
        then=[
            (
                receive(of="q.fifo", MessageSystemAttributeNames=["MessageGroupId"]),
                {"Messages": [{"Attributes": {"MessageGroupId": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "g" * 96}}]},
            )
        ],
    ),
    row(
        "SendMessage: a deduplication id of 129 characters",
        send(to="q.fifo", MessageGroupId="g", MessageDeduplicationId="d" * 129),
        invalid(
            "MessageDeduplicationId",
            "d" * 129,
            "MessageDeduplicationId can only include alphanumeric and punctuation characters. 1 to 128 in length.",
        ),
        API + "SendMessage, MessageDeduplicationId",
        setup=[queue("q.fifo")],
    ),
    row(
        "SendMessage: a control character in a deduplication id",
        send(to="q.fifo", MessageGroupId="g", MessageDeduplicationId="Invalid-\x08"),
        refused(like("(?s).*MessageDeduplicationId.*")),
        LS + "test_send_message_with_invalid_fifo_parameters",
        setup=[queue("q.fifo")],
        only=JSON,
    ),
)


def fifo(body: str = "body", dedup: str = "", group: str = "g", save: str = "") -> Call:
    return send(
        body,
        to="q.fifo",
        save=save,
        MessageGroupId=group,
        **({"MessageDeduplicationId": dedup} if dedup else {}),
    )


ALL: Final = receive(of="q.fifo", MaxNumberOfMessages=10)
SAME: Final = {"MessageId": "${s.MessageId}", "SequenceNumber": "${s.SequenceNumber}"}

DEDUPLICATION: Final = (
    row(
        "SendMessage: a sequence number has 20 digits",
        fifo("1", "1"),
        {"SequenceNumber": like(r"[1-9]\d{19}")},
        "docs/sqs.md, SequenceNumber: it looks like AWS's",
        setup=[queue("q.fifo")],
    ),
    row(
        "SendMessage: a duplicate is answered like the first",
        fifo("another message", "d"),
        {**SAME, "MD5OfMessageBody": "80d402c39512ac39d7e8e79e2cfa935e"},
        TEXTS + "SendMessage): should deduplicate message; the digest is that of the body that was sent",
        setup=[queue("q.fifo"), fifo("Test message 1", "d", save="s")],
        then=[(ALL, bodies("Test message 1"))],
    ),
    row(
        "SendMessage: a duplicate after the message was deleted",
        fifo("1", "d"),
        SAME,
        SNAPSHOT + "test_fifo_deduplication_arrives_once_after_delete[False]",
        setup=[queue("q.fifo"), fifo("1", "d", save="s"), receive(of="q.fifo"), delete(HANDLE, of="q.fifo")],
        then=[(ALL, bodies())],
    ),
    row(
        "SendMessage: a duplicate by content after the message was deleted",
        fifo('{"foo": "bar"}'),
        SAME,
        SNAPSHOT + "test_fifo_deduplication_arrives_once_after_delete[True]",
        setup=[
            queue("q.fifo", ContentBasedDeduplication="true"),
            fifo('{"foo": "bar"}', save="s"),
            receive(of="q.fifo"),
            delete(HANDLE, of="q.fifo"),
        ],
        then=[(ALL, bodies())],
    ),
    row(
        "SendMessage: a duplicate in another group",
        fifo("2", "d", "h"),
        SAME,
        SNAPSHOT + "test_fifo_deduplication_not_on_message_group_id[False]",
        setup=[queue("q.fifo"), fifo("1", "d", "g", save="s")],
        then=[(ALL, bodies("1"))],
    ),
    row(
        "SendMessage: a duplicate in another group, scope messageGroup",
        fifo("2", "d", "h"),
        {},
        API + "SetQueueAttributes, DeduplicationScope",
        setup=[queue("q.fifo", DeduplicationScope="messageGroup"), fifo("1", "d", "g")],
        then=[(ALL, bodies("1", "2"))],
    ),
    row(
        "SendMessage: a duplicate in its group, scope messageGroup",
        fifo("2", "d"),
        SAME,
        API + "SetQueueAttributes, DeduplicationScope",
        setup=[queue("q.fifo", DeduplicationScope="messageGroup"), fifo("1", "d", save="s")],
        then=[(ALL, bodies("1"))],
    ),
    row(
        "SendMessage: the same content with an id of its own",
        fifo("1", "d"),
        {},
        API + "SendMessage: the id overrides the generated one",
        setup=[queue("q.fifo", ContentBasedDeduplication="true"), fifo("1")],
        then=[(ALL, bodies("1", "1"))],
    ),
    row(
        "SendMessage: an id that equals the generated one",
        fifo("other", "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"),
        SAME,
        API + "SendMessage: if you send one message with ContentBasedDeduplication and then another with a "
        "MessageDeduplicationId that is the same as the one generated for the first, they are duplicates",
        setup=[queue("q.fifo", ContentBasedDeduplication="true"), fifo("1", save="s")],
        then=[(ALL, bodies("1"))],
    ),
    row(
        "SendMessage: the generated id is the SHA-256 of the body",
        receive(of="q.fifo", MessageSystemAttributeNames=["MessageDeduplicationId"]),
        {
            "Messages": [
                {
                    "Attributes": {
                        "MessageDeduplicationId": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
                    }
                }
            ]
        },
        API + "SendMessage",
        setup=[queue("q.fifo", ContentBasedDeduplication="true"), fifo("1")],
    ),
    row(
        "SendMessage: content that differs in its attributes only",
        send("1", to="q.fifo", MessageGroupId="g", MessageAttributes={"a": text("2")}),
        SAME,
        API + "SendMessage: the body, but not the attributes of the message",
        setup=[
            queue("q.fifo", ContentBasedDeduplication="true"),
            send("1", to="q.fifo", save="s", MessageGroupId="g", MessageAttributes={"a": text("1")}),
        ],
        then=[(ALL, bodies("1"))],
    ),
    row(
        "SendMessage: a duplicate a second before five minutes are over",
        fifo("2", "d"),
        SAME,
        GUIDE + "MessageDeduplicationId: the 5-minute deduplication interval",
        setup=[queue("q.fifo"), fifo("1", "d", save="s"), Advance(299)],
        then=[(ALL, bodies("1"))],
    ),
    row(
        "SendMessage: the same id after five minutes",
        fifo("2", "d"),
        {},
        GUIDE + "MessageDeduplicationId: the 5-minute deduplication interval",
        setup=[queue("q.fifo"), fifo("1", "d"), Advance(301)],
        then=[(ALL, bodies("1", "2"))],
    ),
    row(
        "SendMessage: a duplicate does not begin the five minutes again",
        fifo("3", "d"),
        {},
        OURS,
        setup=[queue("q.fifo"), fifo("1", "d"), Advance(200), fifo("2", "d"), Advance(101)],
        then=[(ALL, bodies("1", "3"))],
    ),
)

ROWS: Final[tuple[Row, ...]] = (*BODIES, *DELAYS, *ATTRIBUTES, *NAMES, *GROUPS, *DEDUPLICATION)
