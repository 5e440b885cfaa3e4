"""The errors of both protocols: one table of error shapes, and headrace's errors mapped to them.

An error has a *shape* (the class that an SDK raises; `__type` in JSON) and a *Query code* (what users of older SDKs
compare with; `x-amzn-query-error` in JSON). They differ: QueueDoesNotExist is `AWS.SimpleQueueService.NonExistentQueue`.
Texts are AWS's own wherever they are known.

Source: SQS API Reference, botocore's service models of SQS before and after its move to JSON, answers seen of AWS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from headrace import errors as core
from headrace.queue.model import name_of
from headrace.sqs.attribute_names import attribute_of
from headrace.sqs.signature import SignatureFault

_LEGACY: Final = "AWS.SimpleQueueService."
_CORAL: Final = "com.amazon.coral.service"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of error.

    Attributes:
        shape: its name in the JSON protocol.
        code: its name in the Query protocol, and in `x-amzn-query-error`.
        status: the HTTP status, the same in both protocols.
        namespace: what stands before the shape in `__type`.
        sender: whether it is the sender's fault; if not, SDKs try again.
    """

    shape: str
    code: str
    status: int = 400
    namespace: str = "com.amazonaws.sqs"
    sender: bool = True


def _legacy(shape: str, status: int = 400) -> Kind:
    return Kind(shape, _LEGACY + shape, status)


def _common(shape: str, code: str, status: int = 400, *, sender: bool = True) -> Kind:
    return Kind(shape, code, status, _CORAL, sender)


BATCH_ENTRY_IDS_NOT_DISTINCT: Final = _legacy("BatchEntryIdsNotDistinct")
BATCH_REQUEST_TOO_LONG: Final = _legacy("BatchRequestTooLong")
EMPTY_BATCH_REQUEST: Final = _legacy("EmptyBatchRequest")
INVALID_BATCH_ENTRY_ID: Final = _legacy("InvalidBatchEntryId")
MESSAGE_NOT_INFLIGHT: Final = _legacy("MessageNotInflight")
PURGE_QUEUE_IN_PROGRESS: Final = _legacy("PurgeQueueInProgress", 403)
QUEUE_DELETED_RECENTLY: Final = _legacy("QueueDeletedRecently")
TOO_MANY_ENTRIES: Final = _legacy("TooManyEntriesInBatchRequest")
UNSUPPORTED_OPERATION: Final = _legacy("UnsupportedOperation")
QUEUE_DOES_NOT_EXIST: Final = Kind("QueueDoesNotExist", _LEGACY + "NonExistentQueue")
QUEUE_NAME_EXISTS: Final = Kind("QueueNameExists", "QueueAlreadyExists")
OVER_LIMIT: Final = Kind("OverLimit", "OverLimit", 403)
RESOURCE_NOT_FOUND: Final = Kind("ResourceNotFoundException", "ResourceNotFoundException", 404)
INVALID_ADDRESS: Final = Kind("InvalidAddress", "InvalidAddress")
INVALID_ATTRIBUTE_NAME: Final = Kind("InvalidAttributeName", "InvalidAttributeName")
INVALID_ATTRIBUTE_VALUE: Final = Kind("InvalidAttributeValue", "InvalidAttributeValue")
INVALID_ID_FORMAT: Final = Kind("InvalidIdFormat", "InvalidIdFormat")
INVALID_MESSAGE_CONTENTS: Final = Kind("InvalidMessageContents", "InvalidMessageContents")
INVALID_SECURITY: Final = Kind("InvalidSecurity", "InvalidSecurity", 403)
RECEIPT_HANDLE_IS_INVALID: Final = Kind("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", 404)
REQUEST_THROTTLED: Final = Kind("RequestThrottled", "RequestThrottled", 403)

ACCESS_DENIED: Final = _common("AccessDeniedException", "AccessDenied", 403)
EMPTY_VALUE: Final = _common("EmptyValue", "EmptyValue")  # of an entry of a batch only
INVALID_PARAMETER_VALUE: Final = _common("InvalidParameterValueException", "InvalidParameterValue")
MISSING_PARAMETER: Final = _common("MissingRequiredParameterException", "MissingParameter")
REQUEST_TOO_LARGE: Final = _common("RequestEntityTooLargeException", "RequestEntityTooLarge", 413)
SERIALIZATION: Final = _common("SerializationException", "MalformedInput")
UNKNOWN_OPERATION: Final = _common("UnknownOperationException", "InvalidAction")
MISSING_ACTION: Final = _common("UnknownOperationException", "MissingAction")
NO_OPERATION: Final = _common("UnknownOperationException", "MissingAction", 404)  # GET of a queue's URL
METHOD_NOT_ALLOWED: Final = _common("UnknownOperationException", "InvalidHttpMethod", 405)
INTERNAL_FAILURE: Final = _common("InternalFailure", "InternalFailure", 500, sender=False)
SERVICE_UNAVAILABLE: Final = _common("ServiceUnavailableException", "ServiceUnavailable", 503, sender=False)

KMS: Final = tuple(
    Kind(f"Kms{name}", f"KMS.{code}")
    for name, code in (
        ("AccessDenied", "AccessDeniedException"),
        ("Disabled", "DisabledException"),
        ("InvalidKeyUsage", "InvalidKeyUsageException"),
        ("InvalidState", "InvalidStateException"),
        ("NotFound", "NotFoundException"),
        ("OptInRequired", "OptInRequired"),
        ("Throttled", "ThrottlingException"),
    )
)
"""Declared by AWS for queues encrypted with a KMS key. headrace stores the key's id, never uses it, never answers these."""

DECLARED: Final[dict[str, Kind]] = {
    kind.shape: kind
    for kind in (
        BATCH_ENTRY_IDS_NOT_DISTINCT,
        BATCH_REQUEST_TOO_LONG,
        EMPTY_BATCH_REQUEST,
        INVALID_ADDRESS,
        INVALID_ATTRIBUTE_NAME,
        INVALID_ATTRIBUTE_VALUE,
        INVALID_BATCH_ENTRY_ID,
        INVALID_ID_FORMAT,
        INVALID_MESSAGE_CONTENTS,
        INVALID_SECURITY,
        MESSAGE_NOT_INFLIGHT,
        OVER_LIMIT,
        PURGE_QUEUE_IN_PROGRESS,
        QUEUE_DELETED_RECENTLY,
        QUEUE_DOES_NOT_EXIST,
        QUEUE_NAME_EXISTS,
        RECEIPT_HANDLE_IS_INVALID,
        REQUEST_THROTTLED,
        RESOURCE_NOT_FOUND,
        TOO_MANY_ENTRIES,
        UNSUPPORTED_OPERATION,
        *KMS,
    )
}
"""The shapes that AWS's service model declares, by name."""


class Fault(Exception):
    """An error to answer: its kind and its text."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def missing(parameter: str) -> Fault:
    return Fault(MISSING_PARAMETER, f"The request must contain the parameter {parameter}.")


def invalid(parameter: str, value: object, reason: str) -> Fault:
    return Fault(INVALID_PARAMETER_VALUE, f"Value {value} for parameter {parameter} is invalid. Reason: {reason}")


def unknown_attribute(name: str) -> Fault:
    return Fault(INVALID_ATTRIBUTE_NAME, f"Unknown Attribute {name}.")


def invalid_attribute(name: str, reason: str = "") -> Fault:
    text = f"Invalid value for the parameter {name}."
    return Fault(INVALID_ATTRIBUTE_VALUE, f"{text} Reason: {reason}" if reason else text)


def no_queue() -> Fault:
    return Fault(QUEUE_DOES_NOT_EXIST, "The specified queue does not exist.")


def bad_receipt(handle: str) -> Fault:
    return Fault(RECEIPT_HANDLE_IS_INVALID, f'The input receipt handle "{handle}" is not a valid receipt handle.')


FIFO_NAME_RULE: Final = (
    "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo "
    "suffix and be 1 to 80 in length."
)
WRONG_QUEUE_TYPE: Final = "The request include parameter that is not valid for this queue type."
NAME_RULE: Final = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
CHARACTER_RULE: Final = (
    "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | "
    "#x10000 to #x10FFFF"
)
_DEDUP_RULE: Final = (
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
)


def translate(error: core.HeadraceError, *, receipt: str = "") -> Fault:
    """The fault that reports `error` to a client.

    Args:
        error: any error of the queue or of a signature.
        receipt: the receipt handle of the error, as the client sent it.
    """
    make = _TABLE.get(type(error))
    if make is None:
        return Fault(INTERNAL_FAILURE, "The request processing has failed because of an internal failure.")
    return make(error, receipt)


def _setting(error: core.InvalidSetting, _: str) -> Fault:
    name = attribute_of(error.setting)
    if name in ("RedrivePolicy", "RedriveAllowPolicy"):
        return invalid(name, error.value, f"{error.reason}.")
    if name == "FifoThroughputLimit" and error.value == "perMessageGroupId":
        reason = (
            "The perMessageGroupId value is allowed only when the value for DeduplicationScope is set to messageGroup."
        )
        return invalid_attribute(name, reason)
    return invalid_attribute(name)


def _unknown_setting(error: core.UnknownSetting, _: str) -> Fault:
    name = attribute_of(error.setting)
    if name in ("DeduplicationScope", "FifoThroughputLimit"):
        return Fault(INVALID_ATTRIBUTE_NAME, f"You can specify the {name} only when FifoQueue is set to true.")
    return unknown_attribute(name)


def _parameter(error: core.InvalidParameter, _: str) -> Fault:
    if error.parameter == "QueueName":
        return Fault(INVALID_PARAMETER_VALUE, FIFO_NAME_RULE if error.value.endswith(".fifo") else NAME_RULE)
    if error.parameter == "MessageDeduplicationId" and not error.value:
        return no_dedup_id()
    end = "" if error.reason.endswith((".", "]")) else "."  # some of the reasons are AWS's own sentences
    return invalid(error.parameter, error.value, error.reason + end)


def _missing(error: core.MissingParameter, _: str) -> Fault:
    return missing(error.parameter)


def no_dedup_id() -> Fault:
    return Fault(INVALID_PARAMETER_VALUE, _DEDUP_RULE)


def _contents(error: core.InvalidMessage, _: str) -> Fault:
    return Fault(INVALID_MESSAGE_CONTENTS, f"{error.reason[:1].upper()}{error.reason[1:]}.")


def _receipt(text: str) -> Callable[[Any, str], Fault]:
    return lambda _, receipt: invalid("ReceiptHandle", receipt, text)


_TABLE: Final[dict[type[core.HeadraceError], Callable[[Any, str], Fault]]] = {
    core.QueueNotFound: lambda _e, _r: no_queue(),
    core.QueueExists: lambda e, _r: Fault(
        QUEUE_NAME_EXISTS,
        f"A queue already exists with the same name and a different value for attribute {attribute_of(e.setting)}",
    ),
    core.QueueDeletedRecently: lambda _e, _r: Fault(
        QUEUE_DELETED_RECENTLY,
        "You must wait 60 seconds after deleting a queue before you can create another with the same name.",
    ),
    core.PurgeInProgress: lambda e, _r: Fault(
        PURGE_QUEUE_IN_PROGRESS,
        f"Only one PurgeQueue operation on {name_of(e.queue)} is allowed every 60 seconds.",
    ),
    core.MissingParameter: _missing,
    core.InvalidParameter: _parameter,
    core.UnknownSetting: _unknown_setting,
    core.InvalidSetting: _setting,
    core.InvalidMessage: _contents,
    core.MessageTooLong: lambda e, _r: Fault(
        INVALID_PARAMETER_VALUE,
        f"One or more parameters are invalid. Reason: Message must be shorter than {e.bound_bytes} bytes.",
    ),
    core.BatchTooLong: lambda e, _r: Fault(
        BATCH_REQUEST_TOO_LONG,
        f"Batch requests cannot be longer than {e.bound_bytes} bytes. You have sent {e.size_bytes} bytes.",
    ),
    core.ReceiptInvalid: lambda _e, receipt: bad_receipt(receipt),
    core.ReceiptExpired: _receipt("The receipt handle has expired."),
    core.MessageNotFound: _receipt("Message does not exist or is not available for visibility timeout change."),
    core.MessageNotInFlight: _receipt(
        "The receipt handle has expired."
    ),  # AWS declares MessageNotInflight, answers this
    core.InFlightLimit: lambda e, _r: Fault(
        OVER_LIMIT,
        f"The maximum number of messages in flight has been reached. A queue may have {e.bound}; delete some first.",
    ),
    core.RedriveRefused: lambda e, _r: invalid("RedrivePolicy", e.target, f"{e.reason}."),
    core.MoveTaskNotFound: lambda _e, _r: Fault(RESOURCE_NOT_FOUND, "Task does not exist."),
    core.MoveTaskRefused: lambda e, _r: Fault(INVALID_PARAMETER_VALUE, e.reason),
    core.AccessDenied: lambda e, _r: Fault(ACCESS_DENIED, e.reason),
    core.StoreFull: lambda _e, _r: Fault(SERVICE_UNAVAILABLE, "The disk is full: nothing was stored. Retry later."),
    core.Unavailable: lambda e, _r: Fault(SERVICE_UNAVAILABLE, e.reason),
    SignatureFault: lambda e, _r: Fault(_common(e.shape, e.code, e.status), e.message),
}
