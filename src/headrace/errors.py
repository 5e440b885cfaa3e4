"""Every error that headrace raises, by whose fault it is.

`CallerError`: the request was wrong, nothing changed, repeating it unchanged is useless.
`StoreError`: the request may be right; the disk or the database failed it. The outcome is unknown unless said.

Errors are values too: a batch answers a list in which an entry's error stands in its place, and the native protocol
carries them as `{"error": class name, **fields}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from headrace.formatting import setting_name, setting_value, short_name


class HeadraceError(Exception):
    """The root. Subclasses are dataclasses: their fields are the error's data, `str()` its message."""

    registry: ClassVar[dict[str, type[HeadraceError]]] = {}

    def __init_subclass__(cls) -> None:
        HeadraceError.registry[cls.__name__] = cls

    def to_wire(self) -> dict[str, Any]:
        """This error as plain data: its class name under `error`, its message, its fields."""
        names = getattr(self, "__dataclass_fields__", ())
        data = {name: getattr(self, name) for name in names}
        return {"error": type(self).__name__, "message": str(self), **data}

    @staticmethod
    def from_wire(data: dict[str, Any]) -> HeadraceError:
        """The error that `to_wire` wrote; an unknown name (a newer server's) becomes `UnknownError`."""
        kind = HeadraceError.registry.get(str(data.get("error")))
        values = {key: value for key, value in data.items() if key not in ("error", "message")}
        try:
            return kind(**values) if kind is not None else UnknownError(str(data.get("message")))
        except TypeError:
            return UnknownError(str(data.get("message")))


@dataclass(eq=False)
class UnknownError(HeadraceError):
    """An error that this version does not know, from a newer server."""

    text: str

    def __str__(self) -> str:
        return self.text


class CallerError(HeadraceError):
    """The caller's fault."""


class StoreError(HeadraceError):
    """The store's fault: disk, database, damage."""


@dataclass(eq=False)
class QueueNotFound(CallerError):
    queue: str

    def __str__(self) -> str:
        return f"there is no queue {short_name(self.queue)!r}; create it first"


@dataclass(eq=False)
class QueueExists(CallerError):
    """A queue of that name exists and differs in `setting`."""

    queue: str
    setting: str

    def __str__(self) -> str:
        return (
            f"queue {short_name(self.queue)!r} exists already with a different value for {setting_name(self.setting)}"
        )


@dataclass(eq=False)
class QueueDeletedRecently(CallerError):
    queue: str
    wait_s: int

    def __str__(self) -> str:
        return f"queue {short_name(self.queue)!r} was deleted just now; create it again in {self.wait_s} s"


@dataclass(eq=False)
class PurgeInProgress(CallerError):
    queue: str
    wait_s: int

    def __str__(self) -> str:
        return f"queue {short_name(self.queue)!r} was purged just now; purge it again in {self.wait_s} s"


@dataclass(eq=False)
class MissingParameter(CallerError):
    parameter: str

    def __str__(self) -> str:
        return f"{self.parameter} is required"


@dataclass(eq=False)
class InvalidParameter(CallerError):
    parameter: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.parameter} = {self.value} is invalid: {self.reason}"


@dataclass(eq=False)
class UnknownSetting(CallerError):
    setting: str

    def __str__(self) -> str:
        return f"there is no setting {setting_name(self.setting)!r} here"


@dataclass(eq=False)
class InvalidSetting(CallerError):
    setting: str
    value: str
    reason: str

    def __str__(self) -> str:
        value = setting_value(self.setting, self.value)
        return f"the setting {setting_name(self.setting)} = {value} is invalid: {self.reason}"


@dataclass(eq=False)
class InvalidMessage(CallerError):
    """The message's contents are not allowed (characters, emptiness)."""

    reason: str

    def __str__(self) -> str:
        return f"the message is invalid: {self.reason}"


@dataclass(eq=False)
class MessageTooLong(CallerError):
    size_bytes: int
    bound_bytes: int

    def __str__(self) -> str:
        return f"the message has {self.size_bytes} bytes; this queue takes at most {self.bound_bytes}"


@dataclass(eq=False)
class BatchTooLong(CallerError):
    size_bytes: int
    bound_bytes: int

    def __str__(self) -> str:
        return f"the batch has {self.size_bytes} bytes; at most {self.bound_bytes} are taken"


@dataclass(eq=False)
class RequestTooLong(CallerError):
    """A request is longer than the broker's listener, or a proxy in front of it, takes. Nothing was done.

    Attributes:
        answer: in the listener's words.
    """

    answer: str

    def __str__(self) -> str:
        return f"the request is too long: {self.answer}; send less at a time, or start the broker with a greater --request-max"


@dataclass(eq=False)
class ReceiptInvalid(CallerError):
    """The receipt was never issued by this store for this queue."""

    def __str__(self) -> str:
        return "the receipt is not one that this queue has issued"


@dataclass(eq=False)
class ReceiptExpired(CallerError):
    """The receipt's lease has ended; on a FIFO queue, and in a transaction, that refuses it."""

    def __str__(self) -> str:
        return "the receipt has expired: its message is visible again, with another consumer, or gone"


@dataclass(eq=False)
class MessageNotInFlight(CallerError):
    def __str__(self) -> str:
        return "the message is not in flight: its visibility timeout has ended"


@dataclass(eq=False)
class MessageNotVisible(CallerError):
    """The very message that was asked for cannot be taken now."""

    reason: str

    def __str__(self) -> str:
        return f"the message cannot be taken: {self.reason}"


@dataclass(eq=False)
class MessageNotFound(CallerError):
    def __str__(self) -> str:
        return "the message does not exist any more"


@dataclass(eq=False)
class InFlightLimit(CallerError):
    queue: str
    bound: int

    def __str__(self) -> str:
        return f"queue {short_name(self.queue)!r} has {self.bound} messages in flight, the most it may have; delete some first"


@dataclass(eq=False)
class RedriveRefused(CallerError):
    """The dead-letter queue does not accept this source, or is of another type, or missing."""

    source: str
    target: str
    reason: str

    def __str__(self) -> str:
        return f"{short_name(self.target)} cannot be the dead-letter queue of {short_name(self.source)}: {self.reason}"


@dataclass(eq=False)
class MoveTaskNotFound(CallerError):
    handle: str

    def __str__(self) -> str:
        return f"there is no message move task {self.handle!r}"


@dataclass(eq=False)
class MoveTaskRefused(CallerError):
    source: str
    reason: str

    def __str__(self) -> str:
        return f"messages of {short_name(self.source)} cannot be moved: {self.reason}"


@dataclass(eq=False)
class Fenced(CallerError):
    """A newer owner has taken over `name`: this one must stop."""

    name: str
    epoch: int
    current: int

    def __str__(self) -> str:
        return f"epoch {self.epoch} of {self.name!r} is over; epoch {self.current} has taken over"


@dataclass(eq=False)
class StateChanged(CallerError):
    """A transaction expected another value under `key` of `name`'s state than there is: somebody was faster."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"the state {self.key!r} of {self.name!r} is not what the transaction expects; read it again"


@dataclass(eq=False)
class ClaimRefused(CallerError):
    queue: str
    reader: str
    reason: str

    def __str__(self) -> str:
        return f"claim of {self.reader!r} on {short_name(self.queue)!r} refused: {self.reason}"


@dataclass(eq=False)
class TopicNotFound(CallerError):
    topic: str

    def __str__(self) -> str:
        return f"there is no topic {short_name(self.topic)!r}; create it first"


@dataclass(eq=False)
class TopicExists(CallerError):
    """A topic of that name exists and differs in `setting`."""

    topic: str
    setting: str

    def __str__(self) -> str:
        return (
            f"topic {short_name(self.topic)!r} exists already with a different value for {setting_name(self.setting)}"
        )


@dataclass(eq=False)
class SubscriptionRefused(CallerError):
    topic: str
    queue: str
    reason: str

    def __str__(self) -> str:
        return f"{short_name(self.queue)} and topic {short_name(self.topic)} cannot be joined: {self.reason}"


@dataclass(eq=False)
class InvalidFilter(CallerError):
    """A filter policy is none. `place`: the path in it, keys joined by dots."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"the filter policy is invalid at {self.place or 'its top'}: {self.reason}"


@dataclass(eq=False)
class AccessDenied(CallerError):
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class Unavailable(StoreError):
    """The broker is stopping or cannot be reached; try again, elsewhere or later. Nothing was changed by this try."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class OutcomeUnknown(StoreError):
    """The connection broke after the request was sent and before its answer: it was done whole, or not at all.

    A client raises it where repeating the request by itself could do it twice.
    """

    reason: str

    def __str__(self) -> str:
        return f"it is unknown whether the request was done: {self.reason}"


@dataclass(eq=False)
class StoreFull(StoreError):
    """The disk is full. Nothing was changed; receives and deletes go on; retry when there is space."""

    path: str

    def __str__(self) -> str:
        return f"the disk of {self.path} is full: nothing was stored; free some space, then retry"


@dataclass(eq=False)
class StoreFailed(StoreError):
    """The store failed and has stopped. The outcome of this request is unknown: whole or absent."""

    reason: str

    def __str__(self) -> str:
        return f"the store has failed and stopped: {self.reason}"


@dataclass(eq=False)
class StoreDamaged(StoreError):
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.what}"


@dataclass(eq=False)
class StoreUnusable(StoreError):
    """The data folder cannot be opened: locked by another broker, read-only, of a newer version."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"cannot open the store in {self.path}: {self.reason}"


IN_DOUBT: Final = (OutcomeUnknown, StoreFailed, UnknownError)
"""After these nobody knows whether what was asked was done; after any other it was not."""
