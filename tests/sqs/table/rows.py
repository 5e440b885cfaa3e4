"""A row of the table: what is set up, one call, and the answer that AWS gives to it.

Strings in calls and answers may hold references, which the runner replaces:

| reference | is replaced by |
|---|---|
| `${name:q}`, `${url:q}`, `${arn:q}` | the name, URL or ARN of the row's queue `q`; each run of a row has queues of its own |
| `${m.Messages.0.Body}` | a member of an earlier answer, which a step has saved as `m` |

A string that is one reference and nothing else becomes the value, whatever its type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

ACCOUNT: Final = "000000000000"
HOST: Final = "localhost:9324"
REGION: Final = "us-east-1"
JSON: Final = "json"
QUERY: Final = "query"
BOTH: Final = (JSON, QUERY)
RAW: Final = ("raw",)
"""Rows of requests that are written out, byte for byte: these run once."""

LS: Final = "LocalStack, tests/aws/services/sqs/test_sqs.py, validated on AWS: "
SNAPSHOT: Final = "LocalStack, test_sqs.snapshot.json, recorded on AWS: "
MOVES: Final = "LocalStack, test_sqs_move_task.snapshot.json, recorded on AWS: "
BALLERINA: Final = "Ballerina's SQS connector, tests against AWS: "
API: Final = "SQS API Reference, "
GUIDE: Final = "SQS Developer Guide, "
ISSUE: Final = "An answer of AWS, quoted in "
TEXTS: Final = "Texts of AWS as an emulator in TypeScript has them (its tests of "
OURS: Final = "docs/sqs.md, Decisions where AWS is silent"


@dataclass(frozen=True, slots=True)
class Call:
    """One request of an operation; `save`: the name under which later steps find its answer."""

    operation: str
    members: Mapping[str, Any]
    save: str = ""


@dataclass(frozen=True, slots=True)
class Http:
    """One request as it goes over the wire. Its answer has the members status, type and text."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    save: str = ""


@dataclass(frozen=True, slots=True)
class Advance:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Error:
    """An error: its Query code, its text in the JSON protocol, its HTTP status in both."""

    code: str
    message: str | Matcher
    status: int = 400


@dataclass(frozen=True, slots=True)
class Matcher:
    """A value of which not everything is known."""

    name: str
    holds: Callable[[Any], bool]
    parts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.name


Step = Call | Http | Advance
Expected = Mapping[str, Any] | Error


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        name: operation, colon, case.
        call: what is asked.
        expected: the members that the answer has (others may be there), or the error.
        source: where it is known from.
        setup: what comes before; it must succeed.
        then: calls after it with their answers, which show what has become of the queue.
        protocols: in which protocols it can be said.
        cooldowns: whether the 60-second cool-downs hold.
    """

    name: str
    call: Call | Http
    expected: Expected
    source: str
    setup: tuple[Step, ...] = ()
    then: tuple[tuple[Step, Expected], ...] = ()
    protocols: tuple[str, ...] = BOTH
    cooldowns: bool = False


def row(
    name: str,
    call: Call | Http,
    expected: Expected,
    source: str,
    *,
    setup: Sequence[Step] = (),
    then: Sequence[tuple[Step, Expected]] = (),
    only: str = "",
    cooldowns: bool = False,
) -> Row:
    if isinstance(call, Http):
        protocols: tuple[str, ...] = RAW
    else:
        protocols = (only,) if only else BOTH
    return Row(name, call, expected, source, tuple(setup), tuple(then), protocols, cooldowns)


def call(operation: str, *, save: str = "", **members: Any) -> Call:
    return Call(operation, members, save)


# ------------------------------------------------------------------------------------------------- steps in few words


def queue(name: str = "q", **attributes: Any) -> Call:
    """Create a queue; a name in `.fifo` makes it a FIFO queue."""
    if name.endswith(".fifo"):
        attributes.setdefault("FifoQueue", "true")
    members: dict[str, Any] = {"QueueName": f"${{name:{name}}}"}
    if attributes:
        members["Attributes"] = attributes
    return Call("CreateQueue", members)


def send(body: str = "body", *, to: str = "q", save: str = "", **members: Any) -> Call:
    return Call("SendMessage", {"QueueUrl": f"${{url:{to}}}", "MessageBody": body, **members}, save)


def receive(*, of: str = "q", save: str = "m", **members: Any) -> Call:
    return Call("ReceiveMessage", {"QueueUrl": f"${{url:{of}}}", **members}, save)


def delete(handle: str, *, of: str = "q") -> Call:
    return Call("DeleteMessage", {"QueueUrl": f"${{url:{of}}}", "ReceiptHandle": handle})


def change(handle: str, timeout_s: int, *, of: str = "q") -> Call:
    return Call(
        "ChangeMessageVisibility",
        {"QueueUrl": f"${{url:{of}}}", "ReceiptHandle": handle, "VisibilityTimeout": timeout_s},
    )


def attributes_of(*names: str, of: str = "q") -> Call:
    return Call("GetQueueAttributes", {"QueueUrl": f"${{url:{of}}}", "AttributeNames": list(names)})


def get(target: str, *, headers: Mapping[str, str] | None = None, save: str = "") -> Http:
    return Http("GET", target, headers or {}, save=save)


def bodies(*texts: str) -> dict[str, Any]:
    """The answer of a receive: messages with these bodies in this order, and no others."""
    return {"Messages": [{"Body": text} for text in texts]}


def invalid(parameter: str, value: object, reason: str) -> Error:
    return Error("InvalidParameterValue", f"Value {value} for parameter {parameter} is invalid. Reason: {reason}")


def refused(message: str | Matcher) -> Error:
    return Error("InvalidParameterValue", message)


def missing(parameter: str) -> Error:
    return Error("MissingParameter", f"The request must contain the parameter {parameter}.")


def bad_attribute(name: str) -> Error:
    return Error("InvalidAttributeValue", f"Invalid value for the parameter {name}.")


def unknown_attribute(name: str) -> Error:
    return Error("InvalidAttributeName", f"Unknown Attribute {name}.")


NO_QUEUE: Final = Error("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
HANDLE: Final = "${m.Messages.0.ReceiptHandle}"


def expired(handle: str) -> Error:
    return invalid("ReceiptHandle", handle, "The receipt handle has expired.")


# ------------------------------------------------------------------------------------------------- answers to compare

ABSENT: Final = Matcher("ABSENT", lambda value: value is None or value in ([], {}))
ANY: Final = Matcher("ANY", lambda value: value is not None)


def like(pattern: str) -> Matcher:
    """Text that fits a regular expression as a whole."""
    return Matcher(
        f"like {pattern!r}", lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None
    )


def one_of(*answers: Any) -> Matcher:
    """Any of these answers."""
    return Matcher(f"one of {answers!r}", lambda value: any(not differs(answer, value) for answer in answers))


def has(*parts: str) -> Matcher:
    """Text that has these parts."""
    return Matcher(
        f"has {parts!r}", lambda value: isinstance(value, str) and all(part in value for part in parts), parts
    )


def differs(expected: Any, found: Any, path: str = "") -> str:
    """Where `found` is not what is expected; empty if nowhere. Members that are not expected may be there."""
    if isinstance(expected, Matcher):
        return "" if expected.holds(found) else f"{path}: {found!r} is not {expected!r}"
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return f"{path}: {found!r} has no members"
        found_at = ((name, differs(value, found.get(name), f"{path}.{name}")) for name, value in expected.items())
        return next((text for _, text in found_at if text), "")
    if isinstance(expected, list):
        items = found or []
        if len(items) != len(expected):
            return f"{path}: {len(items)} items, not {len(expected)}: {items!r}"
        texts = (differs(one, other, f"{path}.{i}") for i, (one, other) in enumerate(zip(expected, items, strict=True)))
        return next((text for text in texts if text), "")
    return "" if expected == found else f"{path}: {found!r}, not {expected!r}"


_REFERENCE: Final = re.compile(r"\$\{([^}]*)\}")


def filled(value: Any, find: Callable[[str], Any]) -> Any:
    """`value` with its references replaced by what `find` gives for each."""
    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value)
        return find(whole[1]) if whole else _REFERENCE.sub(lambda found: str(find(found[1])), value)
    if isinstance(value, Mapping):
        return {filled(name, find): filled(item, find) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [filled(item, find) for item in value]
    if isinstance(value, Matcher) and value.parts:
        return has(*(str(filled(part, find)) for part in value.parts))
    if isinstance(value, Error):
        return Error(value.code, filled(value.message, find), value.status)
    return value
