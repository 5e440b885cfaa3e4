"""The names of queue attributes and message system attributes, and which setting of the queue each one is.

Source: SQS, SetQueueAttributes and ReceiveMessage.
"""

from __future__ import annotations

from typing import Final

SETTING_OF: Final[dict[str, str]] = {
    "ContentBasedDeduplication": "content_dedup",
    "DeduplicationScope": "dedup_scope",
    "DelaySeconds": "delay_ms",
    "FifoQueue": "fifo",
    "FifoThroughputLimit": "throughput_limit",
    "MaximumMessageSize": "max_message_bytes",
    "MessageRetentionPeriod": "retention_ms",
    "ReceiveMessageWaitTimeSeconds": "wait_ms",
    "RedriveAllowPolicy": "redrive_allow",
    "RedrivePolicy": "redrive",
    "VisibilityTimeout": "visibility_ms",
}
"""Attribute → field of QueueSettings that the queue's rules read."""

STORED: Final = frozenset(("KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "Policy", "SqsManagedSseEnabled"))
"""Attributes that the queue only keeps."""

READ_ONLY: Final = frozenset(
    (
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
        "CreatedTimestamp",
        "LastModifiedTimestamp",
        "QueueArn",
    )
)
"""Attributes that are read and never set."""

ALL: Final = "All"
KNOWN: Final = frozenset(SETTING_OF) | STORED | READ_ONLY | {ALL}
"""What GetQueueAttributes may be asked for."""

_ATTRIBUTE_OF: Final = {setting: attribute for attribute, setting in SETTING_OF.items()}

SYSTEM: Final = frozenset(
    (
        "AWSTraceHeader",
        "ApproximateFirstReceiveTimestamp",
        "ApproximateReceiveCount",
        "DeadLetterQueueSourceArn",
        "MessageDeduplicationId",
        "MessageGroupId",
        "SenderId",
        "SentTimestamp",
        "SequenceNumber",
    )
)
"""The system attributes of a received message."""


def attribute_of(setting: str) -> str:
    """The SQS name of a setting; a stored attribute's name is returned as it is."""
    return _ATTRIBUTE_OF.get(setting, setting)
