"""GetQueueAttributes and SetQueueAttributes: every attribute, at its limits and in every spelling."""

from __future__ import annotations

from typing import Final

from tests.sqs.table.queues import redrive
from tests.sqs.table.rows import (
    ABSENT,
    API,
    BALLERINA,
    GUIDE,
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
    attributes_of,
    bad_attribute,
    bodies,
    call,
    invalid,
    like,
    missing,
    queue,
    receive,
    row,
    send,
    unknown_attribute,
)


def put(**attributes: object) -> Call:
    return call("SetQueueAttributes", QueueUrl="${url:q}", Attributes=attributes)


RANGES: Final = (
    ("DelaySeconds", 0, 900),
    ("MaximumMessageSize", 1_024, 1_048_576),
    ("MessageRetentionPeriod", 60, 1_209_600),
    ("ReceiveMessageWaitTimeSeconds", 0, 20),
    ("VisibilityTimeout", 0, 43_200),
)
"""Attribute, least, most: API Reference, SetQueueAttributes."""


def _limits() -> list[Row]:
    rows = []
    for name, least, most in RANGES:
        source = f"{API}SetQueueAttributes, {name}"
        for value in (least, most):
            expected = {"Attributes": {name: str(value)}}
            rows.append(
                row(f"SetQueueAttributes: {name} {value}", put(**{name: str(value)}), {}, source, setup=[queue()],
                    then=[(attributes_of(name), expected)])
            )  # fmt: skip
        rows += [
            row(
                f"SetQueueAttributes: {name} {value}",
                put(**{name: str(value)}),
                bad_attribute(name),
                source,
                setup=[queue()],
            )
            for value in (least - 1, most + 1)
        ]
        rows += [
            row(
                f"CreateQueue: {name} {value}",
                queue(**{name: str(value)}),
                bad_attribute(name),
                f"{TEXTS}CreateQueue), {name}; {BALLERINA}testCreateQueueWithInvalidAttributes",
            )
            for value in (least - 1, most + 1)
        ]
    return rows


SPELLINGS: Final = (
    *(
        row(
            f"SetQueueAttributes: DelaySeconds {value!r}",
            put(DelaySeconds=value),
            bad_attribute("DelaySeconds"),
            TEXTS + "CreateQueue), DelaySeconds",
            setup=[queue()],
        )
        for value in ("", " 6", "5.0", "1e2", "five", "true", "-45", "99999999999", "0x10", "٥")
    ),
    row(
        "SetQueueAttributes: DelaySeconds with leading zeros",
        put(DelaySeconds="0042"),
        {},
        OURS,
        setup=[queue()],
        then=[(attributes_of("DelaySeconds"), {"Attributes": {"DelaySeconds": "42"}})],
    ),
    row(
        "SetQueueAttributes: DelaySeconds as a number of JSON",
        put(DelaySeconds=42),
        {},
        TEXTS + "CreateQueue): with number",
        setup=[queue()],
        then=[(attributes_of("DelaySeconds"), {"Attributes": {"DelaySeconds": "42"}})],
        only=JSON,
    ),
    row(
        "CreateQueue: VisibilityTimeout as a number of JSON",
        queue(VisibilityTimeout=0),
        {},
        TEXTS + "CreateQueue): with number 0 (zero)",
        then=[(attributes_of("VisibilityTimeout"), {"Attributes": {"VisibilityTimeout": "0"}})],
        only=JSON,
    ),
    row(
        "CreateQueue: VisibilityTimeout as a boolean of JSON",
        queue(VisibilityTimeout=True),
        bad_attribute("VisibilityTimeout"),
        TEXTS + "CreateQueue): with boolean",
        only=JSON,
    ),
    row(
        "CreateQueue: FifoQueue as a boolean of JSON",
        queue("q.fifo", FifoQueue=True),
        {},
        TEXTS + "CreateQueue): a boolean becomes its text",
        then=[(attributes_of("FifoQueue", of="q.fifo"), {"Attributes": {"FifoQueue": "true"}})],
        only=JSON,
    ),
    row(
        "CreateQueue: an attribute that is null",
        queue(DelaySeconds=None),
        {},
        TEXTS + "CreateQueue): with null",
        then=[(attributes_of("DelaySeconds"), {"Attributes": {"DelaySeconds": "0"}})],
        only=JSON,
    ),
    row(
        "CreateQueue: an attribute that is an object",
        queue(DelaySeconds={}),
        Error("MalformedInput", "Start of structure or map found where not expected."),
        TEXTS + "CreateQueue): with object",
        only=JSON,
    ),
    row(
        "SetQueueAttributes: ContentBasedDeduplication as Python writes it",
        call("SetQueueAttributes", QueueUrl="${url:q.fifo}", Attributes={"ContentBasedDeduplication": "True"}),
        {},
        "docs/sqs.md: booleans in any case",
        setup=[queue("q.fifo")],
        then=[
            (
                attributes_of("ContentBasedDeduplication", of="q.fifo"),
                {"Attributes": {"ContentBasedDeduplication": "true"}},
            )
        ],
    ),
    row(
        "SetQueueAttributes: SqsManagedSseEnabled as Python writes it",
        put(SqsManagedSseEnabled="False"),
        {},
        "docs/sqs.md: booleans in any case",
        setup=[queue()],
        then=[(attributes_of("SqsManagedSseEnabled"), {"Attributes": {"SqsManagedSseEnabled": "false"}})],
    ),
    *(
        row(
            f"SetQueueAttributes: SqsManagedSseEnabled {value!r}",
            put(SqsManagedSseEnabled=value),
            bad_attribute("SqsManagedSseEnabled"),
            OURS,
            setup=[queue()],
        )
        for value in ("1", "yes", "")
    ),
)

FIFO: Final = (
    row(
        "SetQueueAttributes: FifoQueue on a standard queue",
        put(FifoQueue="true"),
        unknown_attribute("FifoQueue"),
        SNAPSHOT + "test_set_unsupported_attribute_fifo",
        setup=[queue()],
    ),
    row(
        "SetQueueAttributes: FifoQueue true on a FIFO queue",
        call("SetQueueAttributes", QueueUrl="${url:q.fifo}", Attributes={"FifoQueue": "true"}),
        {},
        LS + "test_set_unsupported_attribute_fifo",
        setup=[queue("q.fifo")],
    ),
    row(
        "SetQueueAttributes: FifoQueue false on a FIFO queue",
        call("SetQueueAttributes", QueueUrl="${url:q.fifo}", Attributes={"FifoQueue": "false"}),
        Error(
            "InvalidAttributeValue",
            "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
        ),
        SNAPSHOT + "test_set_unsupported_attribute_fifo",
        setup=[queue("q.fifo")],
    ),
    row(
        "SetQueueAttributes: ContentBasedDeduplication on a standard queue",
        put(ContentBasedDeduplication="true"),
        unknown_attribute("ContentBasedDeduplication"),
        API + "SetQueueAttributes: applies only to FIFO queues",
        setup=[queue()],
    ),
    row(
        "SetQueueAttributes: ContentBasedDeduplication is switched off",
        call("SetQueueAttributes", QueueUrl="${url:q.fifo}", Attributes={"ContentBasedDeduplication": "false"}),
        {},
        SNAPSHOT + "test_fifo_set_content_based_deduplication_strategy",
        setup=[queue("q.fifo", ContentBasedDeduplication="true")],
        then=[
            (
                attributes_of("All", of="q.fifo"),
                {
                    "Attributes": {
                        "ContentBasedDeduplication": "false",
                        "DeduplicationScope": "queue",
                        "DelaySeconds": "0",
                        "FifoQueue": "true",
                        "FifoThroughputLimit": "perQueue",
                        "MessageRetentionPeriod": "345600",
                        "ReceiveMessageWaitTimeSeconds": "0",
                        "SqsManagedSseEnabled": "true",
                        "VisibilityTimeout": "30",
                    }
                },
            )
        ],
    ),
    row(
        "SetQueueAttributes: DeduplicationScope on a standard queue",
        put(DeduplicationScope="messageGroup"),
        Error("InvalidAttributeName", "You can specify the DeduplicationScope only when FifoQueue is set to true."),
        TEXTS + "SetQueueAttributes)",
        setup=[queue()],
    ),
    row(
        "SetQueueAttributes: FifoThroughputLimit on a standard queue",
        put(FifoThroughputLimit="perQueue"),
        Error("InvalidAttributeName", "You can specify the FifoThroughputLimit only when FifoQueue is set to true."),
        TEXTS + "SetQueueAttributes)",
        setup=[queue()],
    ),
    row(
        "SetQueueAttributes: perMessageGroupId without the scope messageGroup",
        call("SetQueueAttributes", QueueUrl="${url:q.fifo}", Attributes={"FifoThroughputLimit": "perMessageGroupId"}),
        Error(
            "InvalidAttributeValue",
            "Invalid value for the parameter FifoThroughputLimit. Reason: The perMessageGroupId value is allowed only when "
            "the value for DeduplicationScope is set to messageGroup.",
        ),
        API + "SetQueueAttributes, FifoThroughputLimit",
        setup=[queue("q.fifo")],
    ),
    row(
        "SetQueueAttributes: high throughput, both at once",
        call(
            "SetQueueAttributes",
            QueueUrl="${url:q.fifo}",
            Attributes={"FifoThroughputLimit": "perMessageGroupId", "DeduplicationScope": "messageGroup"},
        ),
        {},
        API + "SetQueueAttributes, FifoThroughputLimit",
        setup=[queue("q.fifo")],
        then=[
            (
                attributes_of("DeduplicationScope", "FifoThroughputLimit", of="q.fifo"),
                {"Attributes": {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}},
            )
        ],
    ),
    *(
        row(
            f"SetQueueAttributes: {name} {value!r}",
            call("SetQueueAttributes", QueueUrl="${url:q.fifo}", Attributes={name: value}),
            bad_attribute(name),
            API + f"SetQueueAttributes, {name}",
            setup=[queue("q.fifo")],
        )
        for name, value in (
            ("DeduplicationScope", "MessageGroup"),
            ("DeduplicationScope", ""),
            ("FifoThroughputLimit", "perGroup"),
        )
    ),
)

ALLOW: Final = "Amazon SQS can't create the redrive allow policy"
ALLOW_FORMAT: Final = Error(
    "InvalidAttributeValue",
    f"Invalid value for the parameter RedriveAllowPolicy. Reason: {ALLOW}, as it’s in an unsupported format.",
)
NO_MAP: Final = Error(
    "InvalidAttributeValue",
    "Invalid value for the parameter RedrivePolicy. Reason: Redrive policy is not a valid JSON map.",
)


def bad_redrive(policy: str, reason: str) -> tuple[str, str, Error]:
    return policy, reason, invalid("RedrivePolicy", policy, reason)


REDRIVE: Final = (
    *(
        row(
            f"SetQueueAttributes: RedrivePolicy {policy!r}",
            put(RedrivePolicy=policy),
            NO_MAP,
            "Terraform's message of AWS's answer (SetQueueAttributes, 400); " + TEXTS + "CreateQueue)",
            setup=[queue()],
        )
        for policy in (" ", "4", "[]", '"text"', "null", "{")
    ),
    *(
        row(
            f"SetQueueAttributes: RedrivePolicy {policy}",
            put(RedrivePolicy=policy),
            error,
            TEXTS + "CreateQueue), RedrivePolicy",
            setup=[queue("d"), queue("f.fifo"), queue()],
        )
        for policy, _, error in (
            bad_redrive("{}", "Redrive policy does not contain mandatory attribute: maxReceiveCount."),
            bad_redrive(
                '{"maxReceiveCount":5}', "Redrive policy does not contain mandatory attribute: deadLetterTargetArn."
            ),
            bad_redrive(
                '{"deadLetterTargetArn":"${arn:d}"}',
                "Redrive policy does not contain mandatory attribute: maxReceiveCount.",
            ),
            *(
                bad_redrive(
                    f'{{"deadLetterTargetArn":"${{arn:d}}","maxReceiveCount":{count}}}',
                    f"Invalid value for maxReceiveCount: {count}, valid values are from 1 to 1000 both inclusive.",
                )
                for count in (-36, 0, 1001, 4023)
            ),
            bad_redrive(
                '{"deadLetterTargetArn":"${arn:d}","maxReceiveCount":"invalid"}',
                "Invalid value for maxReceiveCount: invalid, valid values are from 1 to 1000 both inclusive.",
            ),
            bad_redrive(
                '{"deadLetterTargetArn":"arn:aws:sns:us-east-1:000000000000:topic","maxReceiveCount":5}',
                "Only SQS queues are valid resources for deadLetterTargetArn.",
            ),
            bad_redrive(
                '{"deadLetterTargetArn":"${arn:nowhere}","maxReceiveCount":5}', "Dead letter target does not exist."
            ),
            bad_redrive(
                '{"deadLetterTargetArn":"${arn:d}","maxReceiveCount":5,"dummyField":"dummy value"}',
                "Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount].",
            ),
            bad_redrive(
                '{"deadLetterTargetArn":"${arn:f.fifo}","maxReceiveCount":5}',
                "Dead-letter queue must be same type of queue as the source.",
            ),
        )
    ),
    row(
        "SetQueueAttributes: RedrivePolicy with an ARN that is none",
        put(RedrivePolicy='{"deadLetterTargetArn": "dummy", "maxReceiveCount": 42}'),
        invalid(
            "RedrivePolicy",
            '{"deadLetterTargetArn": "dummy", "maxReceiveCount": 42}',
            "Invalid value for deadLetterTargetArn.",
        ),
        SNAPSHOT + "test_invalid_dead_letter_arn_rejected_before_lookup",
        setup=[queue()],
    ),
    *(
        row(
            f"SetQueueAttributes: RedrivePolicy with maxReceiveCount {written}",
            put(RedrivePolicy=f'{{"deadLetterTargetArn":"${{arn:d}}","maxReceiveCount":{written}}}'),
            {},
            LS + "test_redrive_policy_attribute_validity; localstack/localstack#1785: read back as a number",
            setup=[queue("d"), queue()],
            then=[
                (
                    attributes_of("RedrivePolicy"),
                    {
                        "Attributes": {
                            "RedrivePolicy": f'{{"deadLetterTargetArn":"${{arn:d}}","maxReceiveCount":{number}}}'
                        }
                    },
                )
            ],
        )
        for written, number in (("1", 1), ("1000", 1000), ('"42"', 42))
    ),
    row(
        "SetQueueAttributes: an empty RedrivePolicy removes it",
        put(RedrivePolicy=""),
        {},
        TEXTS + "SetQueueAttributes): with unset RedrivePolicy",
        setup=[queue("d"), queue(RedrivePolicy=redrive("d"))],
        then=[(attributes_of("RedrivePolicy"), {"Attributes": ABSENT})],
    ),
    row(
        "CreateQueue: an empty RedrivePolicy is none",
        queue(RedrivePolicy=""),
        {},
        TEXTS + "CreateQueue)",
        then=[(attributes_of("RedrivePolicy"), {"Attributes": ABSENT})],
    ),
)

ALLOW_POLICIES: Final = (
    *(
        row(
            f"SetQueueAttributes: RedriveAllowPolicy {policy}",
            put(RedriveAllowPolicy=policy),
            ALLOW_FORMAT,
            TEXTS + "CreateQueue), RedriveAllowPolicy",
            setup=[queue()],
        )
        for policy in (
            "badjson",
            "[]",
            "{}",
            '{"redrivePermission":"dummy"}',
            '{"redrivePermission":"allowAll","dummy":"value"}',
            '{"redrivePermission":"byQueue","sourceQueueArns":"arn:aws:sqs"}',
            '{"redrivePermission":"byQueue","sourceQueueArns":[{"dummy":"value"}]}',
        )
    ),
    *(
        row(
            f"SetQueueAttributes: RedriveAllowPolicy {policy}",
            put(RedriveAllowPolicy=policy),
            invalid("RedriveAllowPolicy", policy, f"{ALLOW}. {reason}"),
            TEXTS + "CreateQueue), RedriveAllowPolicy",
            setup=[queue()],
        )
        for policy, reason in (
            (
                '{"redrivePermission":"byQueue"}',
                "When you specify the byQueue permission type, you must also specify one or more sourceQueueArns values.",
            ),
            (
                '{"redrivePermission":"byQueue","sourceQueueArns":[]}',
                "When you specify the byQueue permission type, you must also specify one or more sourceQueueArns values.",
            ),
            (
                '{"redrivePermission":"byQueue","sourceQueueArns":['
                + ",".join(f'"arn:aws:sqs:us-east-1:123456789012:x{i}"' for i in range(11))
                + "]}",
                "The maximum number of source queue ARNs you can specify is 10.",
            ),
            (
                '{"redrivePermission":"allowAll","sourceQueueArns":["arn:aws:sqs:us-east-1:123456789012:x7"]}',
                "To specify one or more source queue ARNs, you must set redrivePermission to byQueue.",
            ),
            (
                '{"redrivePermission":"denyAll","sourceQueueArns":["arn:aws:sqs:us-east-1:123456789012:x7"]}',
                "To specify one or more source queue ARNs, you must set redrivePermission to byQueue.",
            ),
        )
    ),
    *(
        row(
            f"SetQueueAttributes: RedriveAllowPolicy {policy}",
            put(RedriveAllowPolicy=policy),
            {},
            TEXTS
            + "CreateQueue); Terraform's aws_sqs_queue_redrive_allow_policy waits until it reads back what it set",
            setup=[queue()],
            then=[(attributes_of("RedriveAllowPolicy"), {"Attributes": {"RedriveAllowPolicy": policy}})],
        )
        for policy in (
            '{"redrivePermission":"allowAll"}',
            '{"redrivePermission":"denyAll"}',
            '{"redrivePermission":"byQueue","sourceQueueArns":["arn:aws:sqs:us-east-1:000000000000:x1"]}',
        )
    ),
    row(
        "SetQueueAttributes: an empty RedriveAllowPolicy removes it",
        put(RedriveAllowPolicy=""),
        {},
        TEXTS + "SetQueueAttributes): with unset RedriveAllowPolicy",
        setup=[queue(RedriveAllowPolicy='{"redrivePermission":"denyAll"}')],
        then=[(attributes_of("RedriveAllowPolicy"), {"Attributes": ABSENT})],
    ),
    row(
        "SetQueueAttributes: RedrivePolicy to a queue that denies all",
        put(RedrivePolicy=redrive("d")),
        Error("InvalidParameterValue", like(".*RedrivePolicy is invalid. Reason: .*RedriveAllowPolicy.*")),
        API + "SetQueueAttributes, RedriveAllowPolicy: denyAll",
        setup=[queue("d", RedriveAllowPolicy='{"redrivePermission":"denyAll"}'), queue()],
    ),
    row(
        "SetQueueAttributes: RedrivePolicy to a queue that allows this source",
        put(RedrivePolicy=redrive("d")),
        {},
        API + "SetQueueAttributes, RedriveAllowPolicy: byQueue",
        setup=[
            queue("d", RedriveAllowPolicy='{"redrivePermission":"byQueue","sourceQueueArns":["${arn:q}"]}'),
            queue(),
        ],
    ),
)

SSE: Final = (
    row(
        "SetQueueAttributes: a KMS key and its period",
        put(KmsMasterKeyId="testKeyId", KmsDataKeyReusePeriodSeconds="6000", SqsManagedSseEnabled="false"),
        {},
        SNAPSHOT + "test_sse_queue_attributes",
        setup=[queue()],
        then=[
            (
                attributes_of("KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled"),
                {
                    "Attributes": {
                        "KmsDataKeyReusePeriodSeconds": "6000",
                        "KmsMasterKeyId": "testKeyId",
                        "SqsManagedSseEnabled": "false",
                    }
                },
            )
        ],
    ),
    row(
        "SetQueueAttributes: a KMS key alone",
        put(KmsMasterKeyId="alias/aws/sqs"),
        {},
        TEXTS + "SetQueueAttributes): with KmsMasterKeyId",
        setup=[queue()],
        then=[
            (
                attributes_of("All"),
                {
                    "Attributes": {
                        "KmsDataKeyReusePeriodSeconds": "300",
                        "KmsMasterKeyId": "alias/aws/sqs",
                        "SqsManagedSseEnabled": "false",
                    }
                },
            )
        ],
    ),
    row(
        "SetQueueAttributes: SqsManagedSseEnabled true takes the place of a KMS key",
        put(SqsManagedSseEnabled="true"),
        {},
        TEXTS + "SetQueueAttributes): with SqsManagedSseEnabled true",
        setup=[queue(KmsMasterKeyId="alias/aws/sqs", KmsDataKeyReusePeriodSeconds="600")],
        then=[
            (
                attributes_of("All"),
                {
                    "Attributes": {
                        "KmsDataKeyReusePeriodSeconds": ABSENT,
                        "KmsMasterKeyId": ABSENT,
                        "SqsManagedSseEnabled": "true",
                    }
                },
            )
        ],
    ),
    row(
        "SetQueueAttributes: both kinds of encryption",
        put(KmsMasterKeyId="testKeyId", SqsManagedSseEnabled="true"),
        Error(
            "InvalidAttributeName",
            "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
        ),
        SNAPSHOT + "test_sse_kms_and_sqs_are_mutually_exclusive",
        setup=[queue()],
    ),
    row(
        "SetQueueAttributes: an empty KMS key removes it",
        put(KmsMasterKeyId=""),
        {},
        "Terraform sends it when kms_master_key_id is taken out",
        setup=[queue(KmsMasterKeyId="alias/aws/sqs")],
        then=[(attributes_of("KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds"), {"Attributes": ABSENT})],
    ),
    *(
        row(
            f"SetQueueAttributes: KmsDataKeyReusePeriodSeconds {value}",
            put(KmsDataKeyReusePeriodSeconds=value),
            bad_attribute("KmsDataKeyReusePeriodSeconds"),
            API + "SetQueueAttributes, KmsDataKeyReusePeriodSeconds",
            setup=[queue()],
        )
        for value in ("59", "86401", "-233", "one")
    ),
    *(
        row(
            f"SetQueueAttributes: KmsDataKeyReusePeriodSeconds {value}",
            put(KmsMasterKeyId="k", KmsDataKeyReusePeriodSeconds=value),
            {},
            API + "SetQueueAttributes, KmsDataKeyReusePeriodSeconds",
            setup=[queue()],
            then=[
                (
                    attributes_of("KmsDataKeyReusePeriodSeconds"),
                    {"Attributes": {"KmsDataKeyReusePeriodSeconds": value}},
                )
            ],
        )
        for value in ("60", "86400")
    ),
)

OTHERS: Final = (
    row(
        "SetQueueAttributes: no attributes",
        call("SetQueueAttributes", QueueUrl="${url:q}"),
        missing("Attribute.Name"),
        TEXTS + "SetQueueAttributes): without Attributes",
        setup=[queue()],
    ),
    row(
        "SetQueueAttributes: empty attributes",
        put(),
        missing("Attribute.Name"),
        TEXTS + "SetQueueAttributes): with empty Attributes",
        setup=[queue()],
    ),
    *(
        row(
            f"SetQueueAttributes: {name}, which is read only",
            put(**{name: "1"}),
            unknown_attribute(name),
            API + "SetQueueAttributes: it is not among the attributes that can be set",
            setup=[queue()],
        )
        for name in ("ApproximateNumberOfMessages", "CreatedTimestamp", "QueueArn")
    ),
    *(
        row(
            f"SetQueueAttributes: {name!r}",
            put(**{name: "30"}),
            unknown_attribute(name),
            ISSUE + "jjtech-digital/n8n-nodes-commercetools: Unknown Attribute VisibilityTimeoutSeconds.",
            setup=[queue()],
        )
        for name in ("VisibilityTimeoutSeconds", "visibilityTimeout", "All")
    ),
    row(
        "SetQueueAttributes: one of two is wrong, none is changed",
        put(DelaySeconds="5", VisibilityTimeout="-1"),
        bad_attribute("VisibilityTimeout"),
        OURS,
        setup=[queue()],
        then=[(attributes_of("DelaySeconds"), {"Attributes": {"DelaySeconds": "0"}})],
    ),
    row("SetQueueAttributes: no queue", put(DelaySeconds="5"), NO_QUEUE, API + "SetQueueAttributes"),
    row(
        "SetQueueAttributes: several at once",
        put(MaximumMessageSize="2048", VisibilityTimeout="69", DelaySeconds="420"),
        {},
        SNAPSHOT + "test_create_and_update_queue_attributes",
        setup=[queue(MessageRetentionPeriod="604800", ReceiveMessageWaitTimeSeconds="10", VisibilityTimeout="20")],
        then=[
            (
                attributes_of("All"),
                {
                    "Attributes": {
                        "ApproximateNumberOfMessages": "0",
                        "ApproximateNumberOfMessagesDelayed": "0",
                        "ApproximateNumberOfMessagesNotVisible": "0",
                        "CreatedTimestamp": like(r"\d{10}"),
                        "DelaySeconds": "420",
                        "LastModifiedTimestamp": like(r"\d{10}"),
                        "MaximumMessageSize": "2048",
                        "MessageRetentionPeriod": "604800",
                        "QueueArn": "${arn:q}",
                        "ReceiveMessageWaitTimeSeconds": "10",
                        "SqsManagedSseEnabled": "true",
                        "VisibilityTimeout": "69",
                        "FifoQueue": ABSENT,
                        "ContentBasedDeduplication": ABSENT,
                        "RedrivePolicy": ABSENT,
                        "Policy": ABSENT,
                    }
                },
            )
        ],
    ),
    row(
        "SetQueueAttributes: a shorter retention expires what is older",
        put(MessageRetentionPeriod="60"),
        {},
        API + "SetQueueAttributes, MessageRetentionPeriod: existing messages may be deleted",
        setup=[queue(), send("old"), Advance(61), send("new")],
        then=[(receive(MaxNumberOfMessages=10), bodies("new"))],
    ),
    row(
        "SetQueueAttributes: a new delay does not reach messages of a standard queue",
        put(DelaySeconds="100"),
        {},
        GUIDE + "Delay queues: for standard queues the per-queue delay is not retroactive",
        setup=[queue(), send("old")],
        then=[(send("new"), {}), (receive(MaxNumberOfMessages=10), bodies("old"))],
    ),
    row(
        "SetQueueAttributes: a new timeout does not reach messages in flight",
        put(VisibilityTimeout="5"),
        {},
        GUIDE + "Visibility timeout: the value at the time of the receive counts",
        setup=[queue(), send(), receive()],
        then=[(Advance(6), {}), (receive(), bodies())],
    ),
)

POLICY: Final = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}]}'
POLICIES: Final = (
    row(
        "SetQueueAttributes: Policy",
        put(Policy=POLICY),
        {},
        BALLERINA + "testCreateQueueWithPolicy",
        setup=[queue()],
        then=[(attributes_of("Policy"), {"Attributes": {"Policy": POLICY}})],
    ),
    row(
        "SetQueueAttributes: an empty Policy removes it",
        put(Policy=""),
        {},
        LS + "test_set_empty_queue_policy",
        setup=[queue(Policy=POLICY)],
        then=[(attributes_of("All"), {"Attributes": {"Policy": ABSENT}})],
    ),
    row(
        "SetQueueAttributes: an empty Policy where there is none",
        put(Policy=""),
        {},
        LS + "test_set_empty_queue_policy",
        setup=[queue()],
        then=[(attributes_of("Policy"), {"Attributes": ABSENT})],
    ),
    *(
        row(
            f"SetQueueAttributes: Policy {policy}",
            put(Policy=policy),
            bad_attribute("Policy"),
            ISSUE + "hashicorp/terraform-provider-aws#42209; " + TEXTS + "CreateQueue), Policy",
            setup=[queue()],
        )
        for policy in (
            "badjson",
            "[]",
            "533",
            "null",
            '{"Version":"4532-10-17","Statement":[]}',
            '{"Version":"2012-10-17","Statement":[]}',
        )
    ),
)

GET: Final = (
    row(
        "GetQueueAttributes: no names",
        attributes_of(),
        {"Attributes": ABSENT},
        API + "GetQueueAttributes",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: names left out",
        call("GetQueueAttributes", QueueUrl="${url:q}"),
        {"Attributes": ABSENT},
        API + "GetQueueAttributes",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: three names",
        attributes_of("QueueArn", "CreatedTimestamp", "VisibilityTimeout"),
        {
            "Attributes": {
                "QueueArn": "${arn:q}",
                "CreatedTimestamp": like(r"\d{10}"),
                "VisibilityTimeout": "30",
                "DelaySeconds": ABSENT,
            }
        },
        LS + "test_create_queue_and_get_attributes",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: a name twice",
        attributes_of("DelaySeconds", "DelaySeconds"),
        {"Attributes": {"DelaySeconds": "0"}},
        OURS,
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: All and a name",
        attributes_of("All", "DelaySeconds"),
        {"Attributes": {"DelaySeconds": "0", "VisibilityTimeout": "30"}},
        API + "GetQueueAttributes",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: a name that is none",
        attributes_of("Foobar"),
        unknown_attribute("Foobar"),
        LS + "test_get_queue_attributes_with_invalid_arg_returns_error",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: a name that is none, beside All",
        attributes_of("All", "Foobar"),
        unknown_attribute("Foobar"),
        OURS,
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: all, in small letters",
        attributes_of("all"),
        unknown_attribute("all"),
        OURS,
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: FifoQueue of a standard queue",
        attributes_of("FifoQueue", "ContentBasedDeduplication", "VisibilityTimeout"),
        {"Attributes": {"FifoQueue": ABSENT, "ContentBasedDeduplication": ABSENT, "VisibilityTimeout": "30"}},
        OURS + ": aws/aws-sdk-ruby#1350 has an error, localstack/localstack#6602 none",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: RedrivePolicy of a queue without one",
        attributes_of("RedrivePolicy", "RedriveAllowPolicy", "MaximumMessageSize"),
        {"Attributes": {"RedrivePolicy": ABSENT, "RedriveAllowPolicy": ABSENT, "MaximumMessageSize": "1048576"}},
        BALLERINA + "testGetQueueAttributesWithSomeAttributes",
        setup=[queue()],
    ),
    row(
        "GetQueueAttributes: counts",
        attributes_of(
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ),
        {
            "Attributes": {
                "ApproximateNumberOfMessages": "1",
                "ApproximateNumberOfMessagesNotVisible": "1",
                "ApproximateNumberOfMessagesDelayed": "2",
            }
        },
        API + "GetQueueAttributes",
        setup=[queue(), send("1"), receive(), send("2"), send("3", DelaySeconds=2), send("4", DelaySeconds=2)],
        then=[
            (Advance(3), {}),
            (
                attributes_of("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"),
                {"Attributes": {"ApproximateNumberOfMessages": "3", "ApproximateNumberOfMessagesDelayed": "0"}},
            ),
        ],
    ),
    row(
        "GetQueueAttributes: messages behind one in flight count as there",
        attributes_of("ApproximateNumberOfMessages", of="q.fifo"),
        {"Attributes": {"ApproximateNumberOfMessages": "1"}},
        LS + "test_fifo_approx_number_of_messages",
        setup=[
            queue("q.fifo", ContentBasedDeduplication="true"),
            *(send(body, to="q.fifo", MessageGroupId=body[:2]) for body in ("g1-1", "g1-2", "g1-3", "g2-1", "g3-1")),
            receive(of="q.fifo", MaxNumberOfMessages=4),
        ],
    ),
    row("GetQueueAttributes: no queue", attributes_of("All"), NO_QUEUE, API + "GetQueueAttributes"),
)

ROWS: Final[tuple[Row, ...]] = (
    *_limits(), *SPELLINGS, *FIFO, *REDRIVE, *ALLOW_POLICIES, *SSE, *OTHERS, *POLICIES, *GET,
)  # fmt: skip
