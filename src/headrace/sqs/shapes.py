"""Every request and answer of the API as a typed record.

The names, types and spellings are those of the service model that AWS publishes (`sqs/2012-11-05`). A member that a
request leaves out is None here; each action refuses a request without a required member.
"""

from __future__ import annotations

import msgspec
from msgspec import field


class Shape(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="pascal"):
    """A structure of the API. Fields are its members; members that are empty are left out of the JSON."""


class AttributeValue(Shape, frozen=True):
    """A message attribute, or system attribute. The two lists are part of the API and refused by it."""

    string_value: str | None = None
    binary_value: bytes | None = None
    string_list_values: list[str] | None = None
    binary_list_values: list[bytes] | None = None
    data_type: str | None = None


class AddPermission(Shape, frozen=True):
    queue_url: str | None = None
    label: str | None = None
    account_ids: list[str] | None = field(default=None, name="AWSAccountIds")
    actions: list[str] | None = None


class CancelMessageMoveTask(Shape, frozen=True):
    task_handle: str | None = None


class ChangeMessageVisibility(Shape, frozen=True):
    queue_url: str | None = None
    receipt_handle: str | None = None
    visibility_timeout: int | None = None


class ChangeMessageVisibilityEntry(Shape, frozen=True):
    id: str | None = None
    receipt_handle: str | None = None
    visibility_timeout: int | None = None


class ChangeMessageVisibilityBatch(Shape, frozen=True):
    queue_url: str | None = None
    entries: list[ChangeMessageVisibilityEntry] | None = None


class CreateQueue(Shape, frozen=True):
    queue_name: str | None = None
    attributes: dict[str, str] | None = None
    tags: dict[str, str] | None = field(default=None, name="tags")


class DeleteMessage(Shape, frozen=True):
    queue_url: str | None = None
    receipt_handle: str | None = None


class DeleteMessageEntry(Shape, frozen=True):
    id: str | None = None
    receipt_handle: str | None = None


class DeleteMessageBatch(Shape, frozen=True):
    queue_url: str | None = None
    entries: list[DeleteMessageEntry] | None = None


class DeleteQueue(Shape, frozen=True):
    queue_url: str | None = None


class GetQueueAttributes(Shape, frozen=True):
    queue_url: str | None = None
    attribute_names: list[str] | None = None


class GetQueueUrl(Shape, frozen=True):
    queue_name: str | None = None
    owner: str | None = field(default=None, name="QueueOwnerAWSAccountId")


class ListDeadLetterSourceQueues(Shape, frozen=True):
    queue_url: str | None = None
    next_token: str | None = None
    max_results: int | None = None


class ListMessageMoveTasks(Shape, frozen=True):
    source_arn: str | None = None
    max_results: int | None = None


class ListQueueTags(Shape, frozen=True):
    queue_url: str | None = None


class ListQueues(Shape, frozen=True):
    queue_name_prefix: str | None = None
    next_token: str | None = None
    max_results: int | None = None


class PurgeQueue(Shape, frozen=True):
    queue_url: str | None = None


class ReceiveMessage(Shape, frozen=True):
    queue_url: str | None = None
    attribute_names: list[str] | None = None
    message_system_attribute_names: list[str] | None = None
    message_attribute_names: list[str] | None = None
    max_number_of_messages: int | None = None
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None
    receive_request_attempt_id: str | None = None


class RemovePermission(Shape, frozen=True):
    queue_url: str | None = None
    label: str | None = None


class SendMessage(Shape, frozen=True):
    queue_url: str | None = None
    message_body: str | None = None
    delay_seconds: int | None = None
    message_attributes: dict[str, AttributeValue] | None = None
    message_system_attributes: dict[str, AttributeValue] | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessageEntry(Shape, frozen=True):
    id: str | None = None
    message_body: str | None = None
    delay_seconds: int | None = None
    message_attributes: dict[str, AttributeValue] | None = None
    message_system_attributes: dict[str, AttributeValue] | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessageBatch(Shape, frozen=True):
    queue_url: str | None = None
    entries: list[SendMessageEntry] | None = None


class SetQueueAttributes(Shape, frozen=True):
    queue_url: str | None = None
    attributes: dict[str, str] | None = None


class StartMessageMoveTask(Shape, frozen=True):
    source_arn: str | None = None
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class TagQueue(Shape, frozen=True):
    queue_url: str | None = None
    tags: dict[str, str] | None = None


class UntagQueue(Shape, frozen=True):
    queue_url: str | None = None
    tag_keys: list[str] | None = None


# ------------------------------------------------------------------------------------------------------------ answers


class QueueUrlResult(Shape, frozen=True):
    """Of CreateQueue and GetQueueUrl."""

    queue_url: str


class QueueUrlsResult(Shape, frozen=True):
    """Of ListQueues."""

    queue_urls: list[str] = []
    next_token: str | None = None


class SourceQueueUrlsResult(Shape, frozen=True):
    """Of ListDeadLetterSourceQueues: its member is spelled with a small letter, and always there."""

    queue_urls: list[str] = field(name="queueUrls")
    next_token: str | None = None


class AttributesResult(Shape, frozen=True):
    """Of GetQueueAttributes."""

    attributes: dict[str, str] = {}


class TagsResult(Shape, frozen=True):
    """Of ListQueueTags."""

    tags: dict[str, str] = {}


class SendMessageResult(Shape, frozen=True):
    message_md5: str = field(name="MD5OfMessageBody")
    message_id: str
    attributes_md5: str | None = field(default=None, name="MD5OfMessageAttributes")
    system_attributes_md5: str | None = field(default=None, name="MD5OfMessageSystemAttributes")
    sequence_number: str | None = None


class SendMessageBatchResultEntry(Shape, frozen=True):
    id: str
    message_id: str
    message_md5: str = field(name="MD5OfMessageBody")
    attributes_md5: str | None = field(default=None, name="MD5OfMessageAttributes")
    system_attributes_md5: str | None = field(default=None, name="MD5OfMessageSystemAttributes")
    sequence_number: str | None = None


class BatchResultEntry(Shape, frozen=True):
    """A success of DeleteMessageBatch or ChangeMessageVisibilityBatch."""

    id: str


class BatchResultErrorEntry(Shape, frozen=True):
    id: str
    sender_fault: bool
    code: str
    message: str


class BatchResult(Shape, frozen=True):
    """Of the three batch operations."""

    successful: list[SendMessageBatchResultEntry] | list[BatchResultEntry] = []
    failed: list[BatchResultErrorEntry] = []


class ReceivedMessage(Shape, frozen=True):
    message_id: str
    receipt_handle: str
    body_md5: str = field(name="MD5OfBody")
    body: str
    attributes: dict[str, str] = {}
    attributes_md5: str | None = field(default=None, name="MD5OfMessageAttributes")
    message_attributes: dict[str, AttributeValue] = {}


class ReceiveMessageResult(Shape, frozen=True):
    messages: list[ReceivedMessage] = []


class StartMoveResult(Shape, frozen=True):
    task_handle: str


class CancelMoveResult(Shape, frozen=True):
    moved: int = field(name="ApproximateNumberOfMessagesMoved")


class MoveTaskEntry(Shape, frozen=True):
    """A task as ListMessageMoveTasks shows it. `started`: ms since 1970."""

    status: str
    source_arn: str
    moved: int = field(name="ApproximateNumberOfMessagesMoved")
    to_move: int = field(name="ApproximateNumberOfMessagesToMove")
    started: int = field(name="StartedTimestamp")
    task_handle: str | None = None
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None
    failure_reason: str | None = None


class MoveTasksResult(Shape, frozen=True):
    """Of ListMessageMoveTasks."""

    results: list[MoveTaskEntry] = []
