"""The errors of each operation, in both protocols: code, text, HTTP status and headers.

botocore writes the requests, without its own checks, and reads the answers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from headrace.sqs import errors
from headrace.sqs.errors import Kind
from tests.sqs.harness import Boto3, Harness

PREFIX: Final = "arn:aws:sqs:us-east-1:000000000000:"
URL: Final = "http://localhost:9324/000000000000/"
Q, FIFO, DEAD, SMALL, NOPE = URL + "q", URL + "q.fifo", URL + "dead", URL + "small", URL + "nope"
ENTRY: Final = {"Id": "1", "MessageBody": "a"}
RECEIPT_ENTRY: Final = {"Id": "1", "ReceiptHandle": "x"}
PERMISSION: Final = {"QueueUrl": Q, "Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}
CHARACTERS: Final = (
    "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | "
    "#x10000 to #x10FFFF"
)
IDS: Final = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long."
NO_DEDUP: Final = (
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
)
WRONG_TYPE: Final = "The request include parameter that is not valid for this queue type."
ARN_FORM: Final = "arn:<partition>:<service>:<region>:<account-id>:<resource-id>"


def missing(name: str) -> str:
    return f"The request must contain the parameter {name}."


def invalid(name: str, value: object, reason: str) -> str:
    return f"Value {value} for parameter {name} is invalid. Reason: {reason}"


def handle_of(source: str) -> str:
    return base64.b64encode(json.dumps({"taskId": "x", "sourceArn": source}).encode()).decode()


class Case(NamedTuple):
    operation: str
    parameters: dict[str, Any]
    kind: Kind
    message: str


CASES: Final = [
    # AddPermission, RemovePermission
    Case("add_permission", {**PERMISSION, "Label": ""}, errors.MISSING_PARAMETER, missing("Label")),
    Case("add_permission", {**PERMISSION, "Actions": []}, errors.MISSING_PARAMETER, missing("Actions")),
    Case(
        "add_permission",
        {**PERMISSION, "AWSAccountIds": []},
        errors.INVALID_PARAMETER_VALUE,
        invalid("PrincipalId", "[]", "Unable to verify."),
    ),
    Case(
        "add_permission",
        {**PERMISSION, "Actions": ["Fly"]},
        errors.INVALID_PARAMETER_VALUE,
        invalid("ActionName", "SQS:Fly", "Please refer to the appropriate WSDL for a list of valid actions."),
    ),
    Case(
        "add_permission",
        {**PERMISSION, "Actions": ["CreateQueue"]},
        errors.INVALID_PARAMETER_VALUE,
        invalid("ActionName", "SQS:CreateQueue", "Only the queue owner is allowed to invoke this action."),
    ),
    Case(
        "add_permission",
        {**PERMISSION, "Actions": ["SendMessage"] * 8},
        errors.OVER_LIMIT,
        "8 Actions were found, maximum allowed is 7.",
    ),
    Case("remove_permission", {"QueueUrl": Q}, errors.MISSING_PARAMETER, missing("Label")),
    Case(
        "remove_permission",
        {"QueueUrl": Q, "Label": "nope"},
        errors.INVALID_PARAMETER_VALUE,
        invalid("Label", "nope", "can't find label."),
    ),
    # move tasks
    Case("cancel_message_move_task", {}, errors.MISSING_PARAMETER, missing("TaskHandle")),
    Case(
        "cancel_message_move_task",
        {"TaskHandle": "foobared"},
        errors.INVALID_PARAMETER_VALUE,
        "Value for parameter TaskHandle is invalid.",
    ),
    Case(
        "cancel_message_move_task",
        {"TaskHandle": handle_of(PREFIX + "nope")},
        errors.RESOURCE_NOT_FOUND,
        "The resource that you specified for the SourceArn parameter doesn't exist.",
    ),
    Case(
        "cancel_message_move_task",
        {"TaskHandle": handle_of(PREFIX + "dead")},
        errors.RESOURCE_NOT_FOUND,
        "Task does not exist.",
    ),
    Case("list_message_move_tasks", {}, errors.MISSING_PARAMETER, missing("SourceArn")),
    Case(
        "list_message_move_tasks",
        {"SourceArn": PREFIX + "dead", "MaxResults": 11},
        errors.INVALID_PARAMETER_VALUE,
        "Value for parameter MaxResults is invalid. Reason: You must enter a number that's between 1 and 10.",
    ),
    Case("start_message_move_task", {}, errors.MISSING_PARAMETER, missing("SourceArn")),
    Case(
        "start_message_move_task",
        {"SourceArn": "dead"},
        errors.INVALID_PARAMETER_VALUE,
        f"You must use this format to specify the SourceArn: {ARN_FORM}",
    ),
    Case(
        "start_message_move_task",
        {"SourceArn": PREFIX + "nope"},
        errors.RESOURCE_NOT_FOUND,
        "The resource that you specified for the SourceArn parameter doesn't exist.",
    ),
    Case(
        "start_message_move_task",
        {"SourceArn": PREFIX + "dead", "DestinationArn": PREFIX + "nope"},
        errors.RESOURCE_NOT_FOUND,
        "The resource that you specified for the DestinationArn parameter doesn't exist.",
    ),
    Case(
        "start_message_move_task",
        {"SourceArn": PREFIX + "q"},
        errors.INVALID_PARAMETER_VALUE,
        "Source queue must be configured as a Dead Letter Queue.",
    ),
    Case(
        "start_message_move_task",
        {"SourceArn": PREFIX + "dead", "DestinationArn": PREFIX + "dead"},
        errors.INVALID_PARAMETER_VALUE,
        "Source queue arn and destination queue arn cannot be the same.",
    ),
    Case(
        "start_message_move_task",
        {"SourceArn": PREFIX + "dead", "DestinationArn": PREFIX + "q.fifo"},
        errors.INVALID_PARAMETER_VALUE,
        "The source queue and destination queue must be of the same queue type.",
    ),
    Case(
        "start_message_move_task",
        {"SourceArn": PREFIX + "dead", "MaxNumberOfMessagesPerSecond": 501},
        errors.INVALID_PARAMETER_VALUE,
        "Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: You must enter a number that's between 1 and 500.",
    ),
    # receipts
    Case(
        "change_message_visibility",
        {"QueueUrl": Q, "VisibilityTimeout": 1},
        errors.MISSING_PARAMETER,
        missing("ReceiptHandle"),
    ),
    Case(
        "change_message_visibility",
        {"QueueUrl": Q, "ReceiptHandle": "garbage", "VisibilityTimeout": 1},
        errors.RECEIPT_HANDLE_IS_INVALID,
        'The input receipt handle "garbage" is not a valid receipt handle.',
    ),
    Case("delete_message", {"QueueUrl": Q}, errors.MISSING_PARAMETER, missing("ReceiptHandle")),
    Case(
        "delete_message",
        {"QueueUrl": Q, "ReceiptHandle": "garbage"},
        errors.RECEIPT_HANDLE_IS_INVALID,
        'The input receipt handle "garbage" is not a valid receipt handle.',
    ),
    Case(
        "delete_message_batch",
        {"QueueUrl": Q, "Entries": []},
        errors.EMPTY_BATCH_REQUEST,
        "There should be at least one DeleteMessageBatchRequestEntry in the request.",
    ),
    Case(
        "delete_message_batch",
        {"QueueUrl": Q, "Entries": [RECEIPT_ENTRY, RECEIPT_ENTRY]},
        errors.BATCH_ENTRY_IDS_NOT_DISTINCT,
        "Id 1 repeated.",
    ),
    Case(
        "change_message_visibility_batch",
        {"QueueUrl": Q, "Entries": []},
        errors.EMPTY_BATCH_REQUEST,
        "There should be at least one ChangeMessageVisibilityBatchRequestEntry in the request.",
    ),
    Case(
        "change_message_visibility_batch",
        {"QueueUrl": Q, "Entries": [{**RECEIPT_ENTRY, "Id": str(n)} for n in range(11)]},
        errors.TOO_MANY_ENTRIES,
        "Maximum number of entries per request are 10. You have sent 11.",
    ),
    # queues
    Case(
        "create_queue",
        {},
        errors.INVALID_PARAMETER_VALUE,
        "Value for parameter QueueName is invalid. Reason: Must specify a queue name.",
    ),
    Case("create_queue", {"QueueName": ""}, errors.INVALID_PARAMETER_VALUE, "Queue name cannot be empty"),
    Case(
        "create_queue",
        {"QueueName": "a b"},
        errors.INVALID_PARAMETER_VALUE,
        "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
    ),
    Case(
        "create_queue",
        {"QueueName": "q", "Attributes": {"DelaySeconds": "9"}},
        errors.QUEUE_NAME_EXISTS,
        "A queue already exists with the same name and a different value for attribute DelaySeconds",
    ),
    Case(
        "create_queue",
        {"QueueName": "gone"},
        errors.QUEUE_DELETED_RECENTLY,
        "You must wait 60 seconds after deleting a queue before you can create another with the same name.",
    ),
    Case(
        "create_queue",
        {"QueueName": "new", "Attributes": {"Colour": "red"}},
        errors.INVALID_ATTRIBUTE_NAME,
        "Unknown Attribute Colour.",
    ),
    Case(
        "create_queue",
        {"QueueName": "new", "Attributes": {"VisibilityTimeout": "43201"}},
        errors.INVALID_ATTRIBUTE_VALUE,
        "Invalid value for the parameter VisibilityTimeout.",
    ),
    Case("delete_queue", {"QueueUrl": NOPE}, errors.QUEUE_DOES_NOT_EXIST, "The specified queue does not exist."),
    Case(
        "get_queue_url",
        {},
        errors.INVALID_PARAMETER_VALUE,
        "Value for parameter QueueName is invalid. Reason: Must specify a queue name.",
    ),
    Case("get_queue_url", {"QueueName": "nope"}, errors.QUEUE_DOES_NOT_EXIST, "The specified queue does not exist."),
    Case(
        "list_queues",
        {"MaxResults": 1001},
        errors.INVALID_PARAMETER_VALUE,
        "Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer between 1 and 1000.",
    ),
    Case(
        "list_queues",
        {"NextToken": "x"},
        errors.INVALID_PARAMETER_VALUE,
        "Invalid or expired next token.",
    ),
    Case(
        "list_dead_letter_source_queues",
        {"QueueUrl": DEAD, "MaxResults": 0},
        errors.INVALID_PARAMETER_VALUE,
        "Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer between 1 and 1000.",
    ),
    Case(
        "purge_queue",
        {"QueueUrl": SMALL},
        errors.PURGE_QUEUE_IN_PROGRESS,
        "Only one PurgeQueue operation on small is allowed every 60 seconds.",
    ),
    # attributes and tags
    Case(
        "get_queue_attributes",
        {"QueueUrl": Q, "AttributeNames": ["Foobar"]},
        errors.INVALID_ATTRIBUTE_NAME,
        "Unknown Attribute Foobar.",
    ),
    Case("set_queue_attributes", {"QueueUrl": Q}, errors.MISSING_PARAMETER, missing("Attribute.Name")),
    Case(
        "set_queue_attributes",
        {"QueueUrl": Q, "Attributes": {"FifoQueue": "true"}},
        errors.INVALID_ATTRIBUTE_NAME,
        "Unknown Attribute FifoQueue.",
    ),
    Case(
        "set_queue_attributes",
        {"QueueUrl": FIFO, "Attributes": {"FifoQueue": "false"}},
        errors.INVALID_ATTRIBUTE_VALUE,
        "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
    ),
    Case("list_queue_tags", {"QueueUrl": NOPE}, errors.QUEUE_DOES_NOT_EXIST, "The specified queue does not exist."),
    Case("tag_queue", {"QueueUrl": Q}, errors.MISSING_PARAMETER, missing("Tags")),
    Case(
        "tag_queue",
        {"QueueUrl": Q, "Tags": {str(n): "" for n in range(51)}},
        errors.INVALID_PARAMETER_VALUE,
        "Too many tags added for queue q.",
    ),
    Case(
        "untag_queue",
        {"QueueUrl": Q},
        errors.INVALID_PARAMETER_VALUE,
        "Tag keys must be between 1 and 128 characters in length.",
    ),
    # messages
    Case("send_message", {}, errors.MISSING_PARAMETER, missing("QueueUrl")),
    Case("send_message", {"QueueUrl": Q}, errors.MISSING_PARAMETER, missing("MessageBody")),
    Case("send_message", {"QueueUrl": Q, "MessageBody": "\x01"}, errors.INVALID_MESSAGE_CONTENTS, CHARACTERS),
    Case(
        "send_message",
        {"QueueUrl": SMALL, "MessageBody": "x" * 1_025},
        errors.INVALID_PARAMETER_VALUE,
        "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes.",
    ),
    Case(
        "send_message",
        {"QueueUrl": Q, "MessageBody": "a", "DelaySeconds": 901},
        errors.INVALID_PARAMETER_VALUE,
        invalid("DelaySeconds", 901, "DelaySeconds must be >= 0 and <= 900."),
    ),
    Case(
        "send_message",
        {"QueueUrl": Q, "MessageBody": "a", "MessageDeduplicationId": "d"},
        errors.INVALID_PARAMETER_VALUE,
        invalid("MessageDeduplicationId", "d", WRONG_TYPE),
    ),
    Case("send_message", {"QueueUrl": FIFO, "MessageBody": "a"}, errors.MISSING_PARAMETER, missing("MessageGroupId")),
    Case(
        "send_message",
        {"QueueUrl": FIFO, "MessageBody": "a", "MessageGroupId": "g"},
        errors.INVALID_PARAMETER_VALUE,
        NO_DEDUP,
    ),
    Case(
        "send_message",
        {"QueueUrl": FIFO, "MessageBody": "a", "MessageGroupId": "g g", "MessageDeduplicationId": "d"},
        errors.INVALID_PARAMETER_VALUE,
        invalid(
            "MessageGroupId",
            "g g",
            "MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length.",
        ),
    ),
    Case(
        "send_message_batch",
        {"QueueUrl": Q, "Entries": []},
        errors.EMPTY_BATCH_REQUEST,
        "There should be at least one SendMessageBatchRequestEntry in the request.",
    ),
    Case(
        "send_message_batch",
        {"QueueUrl": Q, "Entries": [ENTRY, {"MessageBody": "a"}]},
        errors.MISSING_PARAMETER,
        missing("SendMessageBatchRequestEntry.2.Id"),
    ),
    Case(
        "send_message_batch", {"QueueUrl": Q, "Entries": [{**ENTRY, "Id": "a b"}]}, errors.INVALID_BATCH_ENTRY_ID, IDS
    ),
    Case(
        "send_message_batch",
        {"QueueUrl": Q, "Entries": [{**ENTRY, "MessageBody": "x" * 1_048_577}]},
        errors.BATCH_REQUEST_TOO_LONG,
        "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes.",
    ),
    Case(
        "send_message_batch",
        {"QueueUrl": FIFO, "Entries": [ENTRY]},
        errors.INVALID_PARAMETER_VALUE,
        missing("MessageGroupId"),
    ),
    Case(
        "receive_message",
        {"QueueUrl": Q, "MaxNumberOfMessages": 11},
        errors.INVALID_PARAMETER_VALUE,
        invalid("MaxNumberOfMessages", 11, "Must be between 1 and 10, if provided."),
    ),
    Case(
        "receive_message",
        {"QueueUrl": Q, "WaitTimeSeconds": 21},
        errors.INVALID_PARAMETER_VALUE,
        invalid("WaitTimeSeconds", 21, "Must be >= 0 and <= 20, if provided."),
    ),
    Case(
        "receive_message",
        {"QueueUrl": Q, "VisibilityTimeout": 43_201},
        errors.INVALID_PARAMETER_VALUE,
        invalid("VisibilityTimeout", 43_201, "Must be >= 0 and <= 43200, if provided."),
    ),
]


@pytest.fixture(scope="session", params=["json", "query"])
def unchecked(request: pytest.FixtureRequest, query_models: Path) -> Boto3:
    """A client that sends whatever it is given."""
    config = Config(retries={"max_attempts": 0}, parameter_validation=False)
    return Boto3(models=query_models if request.param == "query" else None, config=config)


@pytest.fixture(scope="module")
def queues() -> Iterator[Harness]:
    """The queues of the cases, with AWS's cool-downs. No case changes them."""
    harness = Harness(cooldowns=True)
    harness.create("dead")
    policy = json.dumps({"deadLetterTargetArn": PREFIX + "dead", "maxReceiveCount": 1})
    harness.create("q", RedrivePolicy=policy)
    harness.create("q.fifo", FifoQueue="true")
    harness.create("small", MaximumMessageSize="1024")
    harness.json("PurgeQueue", QueueUrl=SMALL)
    harness.json("DeleteQueue", QueueUrl=harness.create("gone"))
    yield harness
    harness.close()


def answer_to(unchecked: Boto3, queues: Harness, case: Case) -> Any:
    unchecked.harness = queues
    with pytest.raises(ClientError) as raised:
        getattr(unchecked.client, case.operation)(**case.parameters)
    return raised.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operation}-{case.kind.shape}")
def test_error_is_answered_as_by_aws(unchecked: Boto3, queues: Harness, case: Case) -> None:
    error = answer_to(unchecked, queues, case)
    query = unchecked.client.meta.service_model.protocol == "query"
    answer, headers = error.response["Error"], error.response["ResponseMetadata"]["HTTPHeaders"]
    message = case.message
    if query and case.kind is errors.QUEUE_DOES_NOT_EXIST:
        message = "The specified queue does not exist for this wsdl version."
    assert (answer["Code"], answer["Message"]) == (case.kind.code, message)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == case.kind.status
    if query:
        assert answer["Type"] == "Sender"
        assert error.response["ResponseMetadata"]["RequestId"] == headers["x-amzn-requestid"]
        assert "x-amzn-query-error" not in headers
        return
    assert headers["x-amzn-query-error"] == f"{case.kind.code};Sender"
    assert headers["x-amzn-errortype"] == f"{case.kind.namespace}#{case.kind.shape}"
    assert answer["QueryErrorCode"] == case.kind.shape


def test_every_operation_has_a_case() -> None:
    operations = {case.operation for case in CASES}
    assert len(operations) == 23


def test_batch_without_entries_is_missing_them_in_json(harness: Harness) -> None:
    answer = harness.json("SendMessageBatch", QueueUrl=harness.create())
    assert (answer.code, answer.message) == ("MissingParameter", missing("Entries"))
