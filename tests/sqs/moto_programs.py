"""Random programs of SQS calls, as data: the same program runs against headrace and against Moto.

What Moto does not imitate is not drawn, with the reason at its place; `moto_differences.py` has an example of each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

ADVANCE: Final = "advance"
"""The one step that is not a call: both clocks are moved by `Seconds`."""

STANDARD: Final = ("a", "b", "dead")
FIFO: Final = ("a.fifo", "b.fifo", "dead.fifo")
GROUPED: Final = "b.fifo"
"""Has several groups; the other FIFO queues have one. Moto serves the groups in another order than AWS, and serves a group wrongly in which
several messages run out: so this queue is received from ten at a time, and nothing of it runs out; the others one at a time."""


@dataclass(frozen=True)
class Step:
    """A call by its name in boto3.

    In `parameters`, `QueueUrl` is a queue's name. A `ReceiptHandle` that is a number is the receipt of that index (modulo their number)
    among those that the program has received from the queue. ACCOUNT in a text is the account's number.
    """

    operation: str
    parameters: dict[str, Any]


def step(operation: str, queue: str | None = None, **parameters: Any) -> Step:
    return Step(operation, ({} if queue is None else {"QueueUrl": queue}) | parameters)


OPENING: Final = tuple(
    step("create_queue", QueueName=name, Attributes={"FifoQueue": "true"} if name.endswith(".fifo") else {})
    for name in (*STANDARD, *FIFO)
)
"""How each program begins: most calls find nothing to do without queues."""


def arn(name: str) -> str:
    return f"arn:aws:sqs:us-east-1:ACCOUNT:{name}"


def redrive_policy(target: str, receives: int | str) -> str:
    return json.dumps({"deadLetterTargetArn": arn(target), "maxReceiveCount": receives})


def policy(sid: str) -> str:
    statement = {"Sid": sid, "Effect": "Allow", "Principal": "*", "Action": "SQS:SendMessage", "Resource": arn("a")}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _call(operation: str, **parameters: Strategy) -> st.SearchStrategy[Step]:
    """A call with some parameters; one that is drawn as None is left out."""
    return st.fixed_dictionaries(parameters).map(lambda drawn: Step(operation, _given(drawn)))


def _given(drawn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in drawn.items() if value is not None}


def _some(**members: Strategy) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


def _mostly(common: Strategy, *rare: Strategy) -> Strategy:
    return st.one_of(*[common] * 4, *rare)


# ------------------------------------------------------------------------------------------------------------- queues

existing = st.sampled_from((*STANDARD, *FIFO, "a", "a.fifo", "a.fifo"))
standard = st.sampled_from((*STANDARD, "a", "a", "a"))
tags = st.dictionaries(st.sampled_from(("k", "l", "é")), st.sampled_from(("", "v", "w")), min_size=1, max_size=3)

_plain = {
    "MaximumMessageSize": st.sampled_from(("1024", "262144", "1048576")),
    "MessageRetentionPeriod": st.sampled_from(("345600", "1209600")),  # nothing of a program grows so old
    "ReceiveMessageWaitTimeSeconds": st.sampled_from(("0", "20")),
    "VisibilityTimeout": st.sampled_from(("0", "1", "30", "43200")),
    "Policy": st.sampled_from((policy("s"), "")),
}
_kms = st.sampled_from(  # Moto leaves SqsManagedSseEnabled true beside a KMS key, so it is always given with one
    (
        {},
        {},
        {"KmsMasterKeyId": "alias/aws/sqs", "SqsManagedSseEnabled": "false"},
        {"KmsMasterKeyId": "key", "SqsManagedSseEnabled": "false", "KmsDataKeyReusePeriodSeconds": "600"},
        {"SqsManagedSseEnabled": "false"},
    )
)
_delays = st.sampled_from(("0", "5", "900"))


def _redrive(target: str) -> Strategy:
    return st.sampled_from((redrive_policy(target, 1), redrive_policy(target, "2"), redrive_policy(target, 1_000), ""))


_standard_attributes = st.builds(
    lambda one, two: one | two, _some(**_plain, DelaySeconds=_delays, RedrivePolicy=_redrive("dead")), _kms
)
_fifo_changes = st.builds(  # a new DelaySeconds is not for a FIFO queue's waiting messages in Moto
    lambda one, two: one | two,
    _some(**_plain, RedrivePolicy=_redrive("dead.fifo"), ContentBasedDeduplication=st.sampled_from(("true", "false"))),
    _kms,
)
_fifo_attributes = st.builds(
    lambda drawn, delay: {"FifoQueue": "true"} | drawn | delay, _fifo_changes, _some(DelaySeconds=_delays)
)
_creates = st.one_of(
    _call("create_queue", QueueName=standard, Attributes=_standard_attributes),
    _call("create_queue", QueueName=st.sampled_from(FIFO), Attributes=_fifo_attributes),
    _call("create_queue", QueueName=st.just("c"), Attributes=_standard_attributes),
    _call("create_queue", QueueName=st.just("c.fifo"), Attributes=_fifo_attributes),
    _call("create_queue", QueueName=st.sampled_from(("d", "e")), tags=tags),
)
_changes = st.one_of(
    _call("set_queue_attributes", QueueUrl=standard, Attributes=_standard_attributes.filter(bool)),
    _call("set_queue_attributes", QueueUrl=st.sampled_from(FIFO), Attributes=_fifo_changes.filter(bool)),
)
_attribute_names = st.lists(
    st.sampled_from(
        (
            "QueueArn",
            "VisibilityTimeout",
            "Policy",
            "RedrivePolicy",
            "FifoQueue",
            "ContentBasedDeduplication",
            "KmsMasterKeyId",
            "ApproximateNumberOfMessages",
            "CreatedTimestamp",
        )
    ),
    max_size=3,
)
ACTIONS: Final = (
    "*",
    "SendMessage",
    "ReceiveMessage",
    "DeleteMessage",
    "ChangeMessageVisibility",
    "GetQueueUrl",
    "GetQueueAttributes",
    "ListDeadLetterSourceQueues",
    "PurgeQueue",
)
_managing = st.one_of(
    _creates,
    _changes,
    _changes,
    _call("get_queue_url", QueueName=st.sampled_from((*STANDARD, *FIFO, "c", "never"))),
    _call("list_queues", QueueNamePrefix=st.sampled_from((None, "a", "dead", "b.", "", "nothing"))),
    _call("list_queues", MaxResults=st.integers(1, 4)),
    _call("delete_queue", QueueUrl=st.sampled_from(("b", "c", "never"))),
    _call("get_queue_attributes", QueueUrl=existing, AttributeNames=_attribute_names),
    _call("list_queue_tags", QueueUrl=st.sampled_from(("a", "d", "a.fifo"))),
    _call("tag_queue", QueueUrl=st.sampled_from(("a", "d", "a.fifo")), Tags=tags),
    _call(
        "untag_queue",
        QueueUrl=st.sampled_from(("a", "d", "a.fifo")),
        TagKeys=st.lists(st.sampled_from(("k", "l", "absent")), min_size=1, max_size=2),
    ),
    _call(
        "add_permission",
        QueueUrl=existing,
        Label=st.sampled_from(("l", "m", "n")),
        AWSAccountIds=st.lists(st.sampled_from(("111111111111", "222222222222")), min_size=1, max_size=2, unique=True),
        Actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=7, unique=True),
    ),
    _call("remove_permission", QueueUrl=existing, Label=st.sampled_from(("l", "m", "s"))),
    _call("list_dead_letter_source_queues", QueueUrl=st.sampled_from(("dead", "dead.fifo", "a"))),
)

# ----------------------------------------------------------------------------------------------------------- messages

_values = st.sampled_from(
    (
        {"DataType": "String", "StringValue": "text"},
        {"DataType": "String.label", "StringValue": "é ✓"},
        {"DataType": "Number", "StringValue": "42"},
        {"DataType": "Number.int", "StringValue": "-1.5"},
        {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        {"DataType": "Binary.png", "BinaryValue": b"\x89PNG"},
    )
)
_attributes = st.dictionaries(st.sampled_from(("m", "n.o", "p_q-1")), _values, max_size=3)
TRACE: Final = {
    "AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"},
}
_bodies = st.sampled_from(("one", "two", "three", "héllo ✓", '{"a": 1}', "<&>\r\n", " "))
_long = st.sampled_from(("x" * 1_024, "x" * 1_025)).map(lambda body: {"MessageBody": body})
"""Alone: Moto counts no attributes, and characters for bytes."""


def _message(**members: Strategy) -> dict[str, Strategy]:
    return {
        "MessageBody": _bodies,
        "MessageAttributes": _mostly(st.none(), _attributes),
        "MessageSystemAttributes": _mostly(st.none(), st.just(TRACE)),
        **members,
    }


_standard_message = _message(
    DelaySeconds=_mostly(st.none(), st.sampled_from((0, 1, 5, 900))),
    MessageGroupId=_mostly(st.none(), st.just("g")),
)
_dedup_ids = _mostly(st.uuids().map(str), st.sampled_from(("d1", "d2", "d3")))


def _fifo_message(groups: tuple[str, ...]) -> dict[str, Strategy]:
    return _message(
        MessageGroupId=st.sampled_from(groups),
        MessageDeduplicationId=_mostly(_dedup_ids, st.none()),
        DelaySeconds=_mostly(st.none(), st.just(0)),
    )


_one_group, _groups = _fifo_message(("g",)), _fifo_message(("g", "h", "!.x"))
_dead = _one_group | {"MessageDeduplicationId": st.uuids().map(str)}
"""Moto loses a message that moves to a queue in which its deduplication id was sent."""


def _batch(members: dict[str, Strategy]) -> Strategy:
    entry = st.fixed_dictionaries({"Id": st.sampled_from("01234567"), **members}).map(_given)
    return st.lists(entry, min_size=1, max_size=3, unique_by=lambda drawn: drawn["Id"])


def _sends(queue: Strategy, message: dict[str, Strategy]) -> st.SearchStrategy[Step]:
    in_batch = message | {"MessageSystemAttributes": st.none()}  # Moto forgets those of a batch
    return st.one_of(
        _call("send_message", QueueUrl=queue, **message),
        _call("send_message", QueueUrl=queue, **message),
        _call("send_message_batch", QueueUrl=queue, Entries=_batch(in_batch)),
    )


_one_at_a_time = st.sampled_from(("a.fifo", "a.fifo", "dead.fifo"))
_sending = st.one_of(
    _sends(standard, _standard_message),
    _sends(standard, _standard_message),
    _sends(st.just("a.fifo"), _one_group),
    _sends(st.just("dead.fifo"), _dead),
    _sends(st.just(GROUPED), _groups),
    st.builds(lambda queue, message: Step("send_message", {"QueueUrl": queue} | message), standard, _long),
)
# By their old name, AttributeNames: Moto does not know the new one in the Query protocol.
_system_names = st.lists(
    st.sampled_from(("All", "ApproximateReceiveCount", "MessageGroupId", "SentTimestamp", "AWSTraceHeader")), max_size=2
)
_shown = {
    "MessageAttributeNames": st.none() | st.lists(st.sampled_from(("All", ".*", "m", "n.*", "absent")), max_size=2),
    "WaitTimeSeconds": st.just(0),
}
_receiving = st.one_of(
    _call(
        "receive_message",
        QueueUrl=standard,
        MaxNumberOfMessages=st.sampled_from((None, 1, 2, 10)),
        VisibilityTimeout=st.sampled_from((None, None, 0, 1, 30, 43_200)),
        AttributeNames=st.none() | _system_names,
        **_shown,
    ),
    _call(
        "receive_message",
        QueueUrl=_one_at_a_time,
        VisibilityTimeout=st.sampled_from((None, None, 0, 1, 30, 43_200)),
        AttributeNames=st.just(["All"]),
        **_shown,
    ),
    _call(
        "receive_message",
        QueueUrl=st.just(GROUPED),
        MaxNumberOfMessages=st.just(10),
        VisibilityTimeout=st.just(43_200),
        AttributeNames=st.just(["All"]),
        **_shown,
    ),
)
_receipts = st.integers(0, 20)
_timeouts = st.sampled_from((0, 0, 1, 30, 20_000, 43_200))  # what is near twelve hours is counted from the send by Moto
_changeable = st.sampled_from((*STANDARD, "a", "a.fifo", "a.fifo", "dead.fifo"))
_settling = st.one_of(
    _call("delete_message", QueueUrl=existing, ReceiptHandle=_receipts),
    _call("delete_message", QueueUrl=existing, ReceiptHandle=_receipts),
    _call("delete_message_batch", QueueUrl=existing, Entries=_batch({"ReceiptHandle": _receipts})),
    _call("change_message_visibility", QueueUrl=_changeable, ReceiptHandle=_receipts, VisibilityTimeout=_timeouts),
    _call(
        "change_message_visibility_batch",
        QueueUrl=_changeable,
        Entries=_batch({"ReceiptHandle": _receipts, "VisibilityTimeout": st.sampled_from((0, 1, 30, 20_000))}),
    ),
)
_looking = _call("get_queue_attributes", QueueUrl=existing, AttributeNames=st.just(["All"]))
_waiting = st.sampled_from((1, 5, 31, 299, 301, 901)).map(lambda seconds: Step(ADVANCE, {"Seconds": seconds}))

programs: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        *[_sending] * 5,
        *[_receiving] * 5,
        *[_settling] * 4,
        *[_managing] * 2,
        *[_looking] * 2,
        _waiting,
        _call("purge_queue", QueueUrl=existing),
    ),
    min_size=10,
    max_size=30,
)
