"""Moto, an independent imitation of SQS, as a second opinion: the same calls, the same answers.

Only what Moto imitates faithfully is asked; where it and AWS differ, the other tests follow AWS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from tests.sqs.harness import Boto3, Harness

CREDENTIALS = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
TEXT = {"DataType": "String", "StringValue": "value"}
LABELLED = {"DataType": "Number.int", "StringValue": "42"}
BYTES = {"DataType": "Binary", "BinaryValue": b"\x00\xff" * 3}
WIDE = {"DataType": "String.é", "StringValue": "héllo ✓"}

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("create_queue", {"QueueName": "q", "Attributes": {"VisibilityTimeout": "0"}, "tags": {"a": "1"}}),
    ("create_queue", {"QueueName": "q.fifo", "Attributes": {"FifoQueue": "true", "ContentBasedDeduplication": "true"}}),
    ("create_queue", {"QueueName": "a b"}),
    ("get_queue_url", {"QueueName": "q"}),
    ("get_queue_url", {"QueueName": "nope"}),
    ("list_queues", {"QueueNamePrefix": "q.f"}),
    ("list_queue_tags", {"QueueUrl": "q"}),
    ("tag_queue", {"QueueUrl": "q", "Tags": {"b": "2"}}),
    ("untag_queue", {"QueueUrl": "q", "TagKeys": ["a"]}),
    ("list_queue_tags", {"QueueUrl": "q"}),
    ("send_message", {"QueueUrl": "q", "MessageBody": "héllo"}),
    (
        "send_message",
        {"QueueUrl": "q", "MessageBody": "x", "MessageAttributes": {"b": TEXT, "a": BYTES, "c": LABELLED}},
    ),
    ("send_message", {"QueueUrl": "q", "MessageBody": "x", "MessageAttributes": {"w.1": WIDE}}),
    ("send_message", {"QueueUrl": "nope", "MessageBody": "x"}),
    ("send_message", {"QueueUrl": "q", "MessageBody": "x", "DelaySeconds": 901}),
    ("send_message", {"QueueUrl": "q.fifo", "MessageBody": "x"}),
    ("send_message", {"QueueUrl": "q.fifo", "MessageBody": "x", "MessageGroupId": "g", "DelaySeconds": 1}),
    (
        "send_message_batch",
        {"QueueUrl": "q", "Entries": [{"Id": "1", "MessageBody": "y", "MessageAttributes": {"n": TEXT}}]},
    ),
    ("send_message_batch", {"QueueUrl": "q", "Entries": [{"Id": "1", "MessageBody": "y"}] * 2}),
    ("send_message_batch", {"QueueUrl": "q", "Entries": [{"Id": str(n), "MessageBody": "y"} for n in range(11)]}),
    ("receive_message", {"QueueUrl": "q", "MaxNumberOfMessages": 1, "MessageAttributeNames": ["All"]}),
    ("receive_message", {"QueueUrl": "q", "VisibilityTimeout": 50_000}),
    ("delete_message", {"QueueUrl": "q", "ReceiptHandle": "garbage"}),
    ("get_queue_attributes", {"QueueUrl": "q", "AttributeNames": ["VisibilityTimeout", "DelaySeconds", "QueueArn"]}),
    ("get_queue_attributes", {"QueueUrl": "q", "AttributeNames": ["Colour"]}),
    ("set_queue_attributes", {"QueueUrl": "q", "Attributes": {"DelaySeconds": "7"}}),
    ("get_queue_attributes", {"QueueUrl": "q", "AttributeNames": ["DelaySeconds"]}),
    ("add_permission", {"QueueUrl": "q", "Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}),
    ("add_permission", {"QueueUrl": "q", "Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}),
    ("add_permission", {"QueueUrl": "q", "Label": "m", "AWSAccountIds": ["111111111111"], "Actions": ["CreateQueue"]}),
    ("remove_permission", {"QueueUrl": "q", "Label": "l"}),
    ("purge_queue", {"QueueUrl": "q"}),
    ("receive_message", {"QueueUrl": "q"}),
    ("delete_queue", {"QueueUrl": "q"}),
    ("purge_queue", {"QueueUrl": "q"}),
]


KNOWN = [("delete_message", {"QueueUrl": "q", "ReceiptHandle": "garbage"})]
"""Where moto is not as AWS, whose status is 404."""


@pytest.fixture
def moto() -> Iterator[Any]:
    with mock_aws():
        client = boto3.session.Session().client("sqs", **CREDENTIALS)
        yield client
        client.close()


def run(sqs: Any, account: str) -> list[Any]:
    """What each call answers, with what is the server's own choice taken out."""
    return [_answer(sqs, name, parameters, account) for name, parameters in CALLS]


def _answer(sqs: Any, name: str, parameters: dict[str, Any], account: str) -> Any:
    base = f"{sqs.meta.endpoint_url}/{account}/"
    if "QueueUrl" in parameters:
        parameters = {**parameters, "QueueUrl": base + parameters["QueueUrl"]}
    try:
        answer = getattr(sqs, name)(**parameters)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return _plain(answer, base, account)


def _plain(value: Any, base: str, account: str) -> Any:
    if isinstance(value, dict):
        own = ("ResponseMetadata", "MessageId", "ReceiptHandle", "SequenceNumber")
        return {key: _plain(item, base, account) for key, item in value.items() if key not in own and item != []}
    if isinstance(value, list):
        return [_plain(item, base, account) for item in value]
    return value.replace(base, "").replace(account, "ACCOUNT") if isinstance(value, str) else value


def test_answers_are_those_of_moto(harness: Harness, moto: Any) -> None:
    ours = Boto3()
    ours.harness = harness
    mine, theirs = run(ours.client, "000000000000"), run(moto, "123456789012")
    differences = [
        (call, {"ours": one, "moto": other})
        for call, one, other in zip(CALLS, mine, theirs, strict=True)
        if one != other and call not in KNOWN
    ]
    assert differences == []
