"""CreateQueue, DeleteQueue, GetQueueUrl, ListQueues, PurgeQueue, ListDeadLetterSourceQueues."""

from __future__ import annotations

from typing import Final

from tests.sqs.table.rows import (
    ABSENT,
    ANY,
    API,
    BALLERINA,
    GUIDE,
    ISSUE,
    LS,
    NO_QUEUE,
    OURS,
    SNAPSHOT,
    Advance,
    Error,
    Row,
    attributes_of,
    bodies,
    call,
    like,
    queue,
    receive,
    refused,
    row,
    send,
    unknown_attribute,
)

NAME_RULE: Final = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
FIFO_NAME_RULE: Final = (
    "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo "
    "suffix and be 1 to 80 in length."
)
ROOM: Final = "-" * 60
"""With it a name has between 61 and 79 characters, whatever the row's prefix."""


def exists(attribute: str) -> Error:
    text = f"A queue already exists with the same name and a different value for attribute {attribute}"
    return Error("QueueAlreadyExists", text)


def redrive(target: str, receives: int = 3) -> str:
    return f'{{"deadLetterTargetArn": "${{arn:{target}}}", "maxReceiveCount": {receives}}}'


CREATE: Final = (
    row("CreateQueue: a name", queue(), {"QueueUrl": "${url:q}"}, LS + "test_send_receive_message"),
    row(
        "CreateQueue: every character that a name may have",
        queue("aZ09-_"),
        {"QueueUrl": "${url:aZ09-_}"},
        API + "CreateQueue",
    ),
    row(
        "CreateQueue: names differ by case", queue("Q"), {"QueueUrl": "${url:Q}"}, API + "CreateQueue", setup=[queue()]
    ),
    row(
        "CreateQueue: 80 characters",
        call("CreateQueue", QueueName="n" * 80),
        {"QueueUrl": like(r"http://.*/n{80}")},
        API + "CreateQueue",
    ),
    row("CreateQueue: 81 characters", call("CreateQueue", QueueName="n" * 81), refused(NAME_RULE), API + "CreateQueue"),
    row(
        "CreateQueue: 80 characters with .fifo",
        call("CreateQueue", QueueName="n" * 75 + ".fifo", Attributes={"FifoQueue": "true"}),
        {"QueueUrl": like(r"http://.*/n{75}\.fifo")},
        API + "CreateQueue: the suffix counts",
    ),
    row(
        "CreateQueue: 81 characters with .fifo",
        call("CreateQueue", QueueName="n" * 76 + ".fifo", Attributes={"FifoQueue": "true"}),
        refused(FIFO_NAME_RULE),
        API + "CreateQueue: the suffix counts",
    ),
    row(
        "CreateQueue: a name with a slash",
        call("CreateQueue", QueueName="invalid/name"),
        refused(NAME_RULE),
        BALLERINA + "testCreateQueueWithInvalidName",
    ),
    row(
        "CreateQueue: a name with a dot",
        call("CreateQueue", QueueName="in.fo"),
        refused(NAME_RULE),
        API + "CreateQueue",
    ),
    row(
        "CreateQueue: a name with a letter beyond ASCII",
        call("CreateQueue", QueueName="schlüssel"),
        refused(NAME_RULE),
        API + "CreateQueue",
    ),
    row(
        "CreateQueue: a name with a space",
        call("CreateQueue", QueueName="a b"),
        refused(NAME_RULE),
        API + "CreateQueue",
    ),
    row(
        "CreateQueue: a name that is only .fifo",
        call("CreateQueue", QueueName=".fifo", Attributes={"FifoQueue": "true"}),
        refused(FIFO_NAME_RULE),
        API + "CreateQueue",
    ),
    row(
        "CreateQueue: FifoQueue without the suffix",
        queue(FifoQueue="true"),
        refused(FIFO_NAME_RULE),
        LS + "test_fifo_queue_requires_suffix",
    ),
    row(
        "CreateQueue: the suffix without FifoQueue",
        call("CreateQueue", QueueName="${name:q.fifo}"),
        refused(NAME_RULE),
        LS + "test_standard_queue_cannot_have_fifo_suffix",
    ),
    row(
        "CreateQueue: FifoQueue false",
        queue(FifoQueue="false"),
        unknown_attribute("FifoQueue"),
        ISSUE + "crossplane-contrib/provider-aws#457",
    ),
    row(
        "CreateQueue: FifoQueue as Python writes it",
        queue("q.fifo", FifoQueue="True"),
        {"QueueUrl": "${url:q.fifo}"},
        ISSUE + "users of boto3 who send str(True)",
        then=[(attributes_of("FifoQueue", of="q.fifo"), {"Attributes": {"FifoQueue": "true"}})],
    ),
    row(
        "CreateQueue: FifoQueue in capitals",
        queue("q.fifo", FifoQueue="TRUE", ContentBasedDeduplication="TRUE"),
        {"QueueUrl": "${url:q.fifo}"},
        OURS,
        then=[
            (
                attributes_of("ContentBasedDeduplication", of="q.fifo"),
                {"Attributes": {"ContentBasedDeduplication": "true"}},
            )
        ],
    ),
    row(
        "CreateQueue: an attribute that is the name",
        queue(QueueName="q"),
        unknown_attribute("QueueName"),
        ISSUE + "CoorpAcademy/serverless-plugins#225",
    ),
    row("CreateQueue: again", queue(), {"QueueUrl": "${url:q}"}, LS + "without_attributes", setup=[queue()]),
    row(
        "CreateQueue: again with the same attribute",
        queue(VisibilityTimeout="69"),
        {"QueueUrl": "${url:q}"},
        LS + "test_create_queue_with_same_attributes_is_idempotent",
        setup=[queue(VisibilityTimeout="69")],
    ),
    row(
        "CreateQueue: again without its attributes",
        queue(),
        {"QueueUrl": "${url:q}"},
        LS + "test_create_queue_with_default_attributes_is_idempotent",
        setup=[queue(VisibilityTimeout="69", ReceiveMessageWaitTimeSeconds="1")],
    ),
    row(
        "CreateQueue: again with one of its attributes",
        queue(DelaySeconds="1"),
        {"QueueUrl": "${url:q}"},
        LS + "test_create_queue_with_different_attributes_raises_exception",
        setup=[queue(ReceiveMessageWaitTimeSeconds="1", DelaySeconds="1")],
    ),
    row(
        "CreateQueue: again with a default written out",
        queue(VisibilityTimeout="30", MaximumMessageSize="1048576", SqsManagedSseEnabled="true"),
        {"QueueUrl": "${url:q}"},
        API + "CreateQueue: the value is the queue's own",
        setup=[queue()],
    ),
    row(
        "CreateQueue: again with another delay",
        queue(ReceiveMessageWaitTimeSeconds="1", DelaySeconds="2"),
        exists("DelaySeconds"),
        SNAPSHOT + "test_create_queue_with_different_attributes_raises_exception",
        setup=[queue(ReceiveMessageWaitTimeSeconds="1", DelaySeconds="1")],
    ),
    row(
        "CreateQueue: again with another timeout",
        queue(VisibilityTimeout="31"),
        exists("VisibilityTimeout"),
        LS + "test_create_queue_after_modified_attributes",
        setup=[queue()],
    ),
    row(
        "CreateQueue: again with another tag",
        call("CreateQueue", QueueName="${name:q}", tags={"a": "2"}),
        {"QueueUrl": "${url:q}"},
        OURS,
        setup=[call("CreateQueue", QueueName="${name:q}", tags={"a": "1"})],
        then=[(call("ListQueueTags", QueueUrl="${url:q}"), {"Tags": {"a": "1"}})],
    ),
    row(
        "CreateQueue: again with what SetQueueAttributes has set",
        queue(VisibilityTimeout="2", ReceiveMessageWaitTimeSeconds="2"),
        {"QueueUrl": "${url:q}"},
        LS + "test_create_queue_after_modified_attributes",
        setup=[
            queue(VisibilityTimeout="1", ReceiveMessageWaitTimeSeconds="1"),
            call(
                "SetQueueAttributes",
                QueueUrl="${url:q}",
                Attributes={"VisibilityTimeout": "2", "ReceiveMessageWaitTimeSeconds": "2"},
            ),
        ],
        then=[(queue(VisibilityTimeout="1"), exists("VisibilityTimeout"))],
    ),
    row(
        "CreateQueue: again, FIFO with another deduplication",
        queue("q.fifo", ContentBasedDeduplication="false"),
        exists("ContentBasedDeduplication"),
        SNAPSHOT + "test_create_fifo_queue_with_different_attributes_raises_error",
        setup=[queue("q.fifo", ContentBasedDeduplication="true")],
    ),
    row(
        "CreateQueue: again, FIFO with the same",
        queue("q.fifo"),
        {"QueueUrl": "${url:q.fifo}"},
        LS + "test_create_fifo_queue_with_same_attributes_is_idempotent",
        setup=[queue("q.fifo")],
    ),
    row(
        "CreateQueue: again with messages in it",
        queue(),
        {"QueueUrl": "${url:q}"},
        LS + "test_create_queue_after_internal_attributes_changes_works",
        setup=[queue(), send("1", DelaySeconds=1), send("2")],
    ),
    row(
        "CreateQueue: again with the same redrive policy in another order",
        queue(RedrivePolicy='{"maxReceiveCount":"3","deadLetterTargetArn":"${arn:d}"}'),
        {"QueueUrl": "${url:q}"},
        "localstack/localstack#9655: Terraform writes the members in another order than users",
        setup=[queue("d"), queue(RedrivePolicy=redrive("d"))],
    ),
    row(
        "CreateQueue: again with another redrive policy",
        queue(RedrivePolicy=redrive("d", 4)),
        exists("RedrivePolicy"),
        API + "CreateQueue",
        setup=[queue("d"), queue(RedrivePolicy=redrive("d"))],
    ),
    row(
        "CreateQueue: with tags",
        call("CreateQueue", QueueName="${name:q}", tags={"tag1": "value1", "tag2": "value2"}),
        {"QueueUrl": "${url:q}"},
        LS + "test_create_queue_with_tags",
        then=[(call("ListQueueTags", QueueUrl="${url:q}"), {"Tags": {"tag1": "value1", "tag2": "value2"}})],
    ),
    row(
        "CreateQueue: within 60 seconds of its deletion",
        queue(),
        Error(
            "AWS.SimpleQueueService.QueueDeletedRecently",
            "You must wait 60 seconds after deleting a queue before you can create another with the same name.",
        ),
        LS + "test_create_queue_recently_deleted",
        setup=[queue(), call("DeleteQueue", QueueUrl="${url:q}")],
        cooldowns=True,
    ),
    row(
        "CreateQueue: 60 seconds after its deletion",
        queue(),
        {"QueueUrl": "${url:q}"},
        API + "DeleteQueue",
        setup=[queue(), send("old"), call("DeleteQueue", QueueUrl="${url:q}"), Advance(60)],
        then=[(receive(), bodies())],
        cooldowns=True,
    ),
    row(
        "CreateQueue: at once after its deletion, cool-downs off",
        queue(),
        {"QueueUrl": "${url:q}"},
        OURS,
        setup=[queue(), send("old"), call("DeleteQueue", QueueUrl="${url:q}")],
        then=[(receive(), bodies())],
    ),
)

DELETE: Final = (
    row("DeleteQueue: a queue", call("DeleteQueue", QueueUrl="${url:q}"), {}, API + "DeleteQueue", setup=[queue()]),
    row(
        "DeleteQueue: twice",
        call("DeleteQueue", QueueUrl="${url:q}"),
        NO_QUEUE,
        BALLERINA + "testDeleteNonExistentQueue",
        setup=[queue(), call("DeleteQueue", QueueUrl="${url:q}")],
    ),
    row(
        "DeleteQueue: one that never was",
        call("DeleteQueue", QueueUrl="${url:q}"),
        NO_QUEUE,
        BALLERINA + "testDeleteNonExistentQueue",
    ),
    row(
        "DeleteQueue: its messages are gone for others",
        send(),
        NO_QUEUE,
        API + "DeleteQueue",
        setup=[queue(), call("DeleteQueue", QueueUrl="${url:q}")],
        then=[(receive(), NO_QUEUE), (call("GetQueueUrl", QueueName="${name:q}"), NO_QUEUE)],
    ),
    row(
        "DeleteQueue: a dead-letter queue that is in use",
        call("DeleteQueue", QueueUrl="${url:d}"),
        {},
        OURS,
        setup=[queue("d"), queue(RedrivePolicy=redrive("d"))],
        then=[(attributes_of("RedrivePolicy"), {"Attributes": {"RedrivePolicy": ANY}})],
    ),
)

GET_URL: Final = (
    row(
        "GetQueueUrl: a queue",
        call("GetQueueUrl", QueueName="${name:q}"),
        {"QueueUrl": "${url:q}"},
        BALLERINA + "testGetQueueUrl",
        setup=[queue()],
    ),
    row(
        "GetQueueUrl: none of the name",
        call("GetQueueUrl", QueueName="${name:q}"),
        NO_QUEUE,
        BALLERINA + "testGetNonExistentQueueUrl",
    ),
    row(
        "GetQueueUrl: of its owner",
        call("GetQueueUrl", QueueName="${name:q}", QueueOwnerAWSAccountId="000000000000"),
        {"QueueUrl": "${url:q}"},
        API + "GetQueueUrl",
        setup=[queue()],
    ),
    row(
        "GetQueueUrl: of another account",
        call("GetQueueUrl", QueueName="${name:q}", QueueOwnerAWSAccountId="999999999999"),
        NO_QUEUE,
        API + "GetQueueUrl",
        setup=[queue()],
    ),
    row(
        "GetQueueUrl: a name that no queue can have",
        call("GetQueueUrl", QueueName="a/b"),
        NO_QUEUE,
        OURS,
    ),
    row(
        "GetQueueUrl: the name in another case",
        call("GetQueueUrl", QueueName="${name:Q}"),
        NO_QUEUE,
        API + "GetQueueUrl: names are case-sensitive",
        setup=[queue()],
    ),
)


MAX_RESULTS: Final = refused(
    "Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer between 1 and 1000."
)

LIST: Final = (
    row(
        "ListQueues: by prefix",
        call("ListQueues", QueueNamePrefix="${name:a}"),
        {"QueueUrls": ["${url:a1}", "${url:a2}"], "NextToken": ABSENT},
        LS + "test_list_queues",
        setup=[queue("a2"), queue("b"), queue("a1")],
    ),
    row(
        "ListQueues: none of the prefix",
        call("ListQueues", QueueNamePrefix="${name:z}"),
        {"QueueUrls": ABSENT},
        API + "ListQueues",
        setup=[queue("a")],
    ),
    row(
        "ListQueues: the prefix in another case",
        call("ListQueues", QueueNamePrefix="${name:A}"),
        {"QueueUrls": ABSENT},
        API + "ListQueues: names are case-sensitive",
        setup=[queue("a")],
    ),
    row(
        "ListQueues: an empty prefix",
        call("ListQueues", QueueNamePrefix=""),
        {"QueueUrls": ANY},
        "kombu sends it",
        setup=[queue()],
    ),
    row(
        "ListQueues: a deleted queue",
        call("ListQueues", QueueNamePrefix="${name:}"),
        {"QueueUrls": ["${url:a}"]},
        API + "ListQueues",
        setup=[queue("a"), queue("b"), call("DeleteQueue", QueueUrl="${url:b}")],
    ),
    row(
        "ListQueues: a page and the next",
        call("ListQueues", QueueNamePrefix="${name:}", MaxResults=2, save="l"),
        {"QueueUrls": ["${url:a}", "${url:b}"], "NextToken": ANY},
        BALLERINA + "testListQueuesPagination",
        setup=[queue("a"), queue("b"), queue("c")],
        then=[
            (
                call("ListQueues", QueueNamePrefix="${name:}", MaxResults=2, NextToken="${l.NextToken}"),
                {"QueueUrls": ["${url:c}"], "NextToken": ABSENT},
            )
        ],
    ),
    row(
        "ListQueues: a page that holds exactly all",
        call("ListQueues", QueueNamePrefix="${name:}", MaxResults=2),
        {"QueueUrls": ["${url:a}", "${url:b}"], "NextToken": ABSENT},
        API + "ListQueues: NextToken is there if there are more results",
        setup=[queue("a"), queue("b")],
    ),
    row("ListQueues: MaxResults 1000", call("ListQueues", MaxResults=1000), {}, API + "ListQueues", setup=[queue()]),
    row("ListQueues: MaxResults 1001", call("ListQueues", MaxResults=1001), MAX_RESULTS, "sqslite, from AWS's answers"),
    row("ListQueues: MaxResults 0", call("ListQueues", MaxResults=0), MAX_RESULTS, "sqslite, from AWS's answers"),
    row("ListQueues: MaxResults -1", call("ListQueues", MaxResults=-1), MAX_RESULTS, "sqslite, from AWS's answers"),
    row(
        "ListQueues: a token of nobody",
        call("ListQueues", MaxResults=1, NextToken="invalidtoken"),
        refused("Invalid or expired next token."),
        "sqslite, from AWS's answers",
    ),
)

PURGE: Final = (
    row(
        "PurgeQueue: visible, delayed and in flight",
        call("PurgeQueue", QueueUrl="${url:q}"),
        {},
        LS + "test_purge_queue_deletes_inflight_messages, test_purge_queue_deletes_delayed_messages",
        setup=[queue(), send("1"), receive(VisibilityTimeout=3), send("2", DelaySeconds=2), send("3")],
        then=[(Advance(4), {}), (receive(MaxNumberOfMessages=10), bodies())],
    ),
    row(
        "PurgeQueue: what is sent after it stays",
        call("PurgeQueue", QueueUrl="${url:q}"),
        {},
        LS + "test_purge_queue",
        setup=[queue(), send("old")],
        then=[(send("new"), {}), (receive(MaxNumberOfMessages=10), bodies("new"))],
    ),
    row(
        "PurgeQueue: an empty queue",
        call("PurgeQueue", QueueUrl="${url:q}"),
        {},
        API + "PurgeQueue",
        setup=[queue()],
    ),
    row("PurgeQueue: no queue", call("PurgeQueue", QueueUrl="${url:q}"), NO_QUEUE, API + "PurgeQueue"),
    row(
        "PurgeQueue: twice within 60 seconds",
        call("PurgeQueue", QueueUrl="${url:q}"),
        Error(
            "AWS.SimpleQueueService.PurgeQueueInProgress",
            "Only one PurgeQueue operation on ${name:q} is allowed every 60 seconds.",
            403,
        ),
        SNAPSHOT + "test_successive_purge_calls_fail",
        setup=[queue(), call("PurgeQueue", QueueUrl="${url:q}")],
        cooldowns=True,
    ),
    row(
        "PurgeQueue: again after 60 seconds",
        call("PurgeQueue", QueueUrl="${url:q}"),
        {},
        API + "PurgeQueue",
        setup=[queue(), call("PurgeQueue", QueueUrl="${url:q}"), Advance(60)],
        cooldowns=True,
    ),
    row(
        "PurgeQueue: another queue within 60 seconds",
        call("PurgeQueue", QueueUrl="${url:r}"),
        {},
        API + "PurgeQueue",
        setup=[queue(), queue("r"), call("PurgeQueue", QueueUrl="${url:q}")],
        cooldowns=True,
    ),
    row(
        "PurgeQueue: forgets deduplication ids",
        call("PurgeQueue", QueueUrl="${url:q.fifo}"),
        {},
        LS + "test_purge_queue_clears_fifo_deduplication_cache",
        setup=[queue("q.fifo"), send("1", to="q.fifo", MessageGroupId="g", MessageDeduplicationId="d")],
        then=[
            (send("2", to="q.fifo", MessageGroupId="g", MessageDeduplicationId="d"), {}),
            (receive(of="q.fifo", MaxNumberOfMessages=10), bodies("2")),
        ],
    ),
    row(
        "PurgeQueue: frees the groups of what was in flight",
        call("PurgeQueue", QueueUrl="${url:q.fifo}"),
        {},
        GUIDE + "FIFO queues: a group waits for its messages in flight, and they are gone",
        setup=[
            queue("q.fifo"),
            send("1", to="q.fifo", MessageGroupId="g", MessageDeduplicationId="1"),
            receive(of="q.fifo"),
        ],
        then=[
            (send("2", to="q.fifo", MessageGroupId="g", MessageDeduplicationId="2"), {}),
            (receive(of="q.fifo"), bodies("2")),
        ],
    ),
)

SOURCES: Final = (
    row(
        "ListDeadLetterSourceQueues: two sources",
        call("ListDeadLetterSourceQueues", QueueUrl="${url:d}"),
        {"queueUrls": ["${url:a}", "${url:b}"], "NextToken": ABSENT},
        LS + "test_dead_letter_queue_list_sources",
        setup=[queue("d"), queue("b", RedrivePolicy=redrive("d")), queue("a", RedrivePolicy=redrive("d"))],
    ),
    row(
        "ListDeadLetterSourceQueues: a queue that is none",
        call("ListDeadLetterSourceQueues", QueueUrl="${url:q}"),
        {"queueUrls": ABSENT},
        API + "ListDeadLetterSourceQueues",
        setup=[queue()],
    ),
    row(
        "ListDeadLetterSourceQueues: a source whose policy was removed",
        call("ListDeadLetterSourceQueues", QueueUrl="${url:d}"),
        {"queueUrls": ABSENT},
        API + "ListDeadLetterSourceQueues",
        setup=[
            queue("d"),
            queue(RedrivePolicy=redrive("d")),
            call("SetQueueAttributes", QueueUrl="${url:q}", Attributes={"RedrivePolicy": ""}),
        ],
    ),
    row(
        "ListDeadLetterSourceQueues: pages",
        call("ListDeadLetterSourceQueues", QueueUrl="${url:d}", MaxResults=1, save="l"),
        {"queueUrls": ["${url:a}"], "NextToken": ANY},
        API + "ListDeadLetterSourceQueues",
        setup=[queue("d"), queue("a", RedrivePolicy=redrive("d")), queue("b", RedrivePolicy=redrive("d"))],
        then=[
            (
                call("ListDeadLetterSourceQueues", QueueUrl="${url:d}", MaxResults=1, NextToken="${l.NextToken}"),
                {"queueUrls": ["${url:b}"], "NextToken": ABSENT},
            )
        ],
    ),
    row(
        "ListDeadLetterSourceQueues: MaxResults 1001",
        call("ListDeadLetterSourceQueues", QueueUrl="${url:q}", MaxResults=1001),
        MAX_RESULTS,
        "sqslite, from AWS's answers",
        setup=[queue()],
    ),
    row(
        "ListDeadLetterSourceQueues: no queue",
        call("ListDeadLetterSourceQueues", QueueUrl="${url:q}"),
        NO_QUEUE,
        API + "ListDeadLetterSourceQueues",
    ),
)

ROWS: Final[tuple[Row, ...]] = (*CREATE, *DELETE, *GET_URL, *LIST, *PURGE, *SOURCES)
