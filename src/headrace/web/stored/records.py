"""The stored records of durable requests, and the rules of their life. Pure: time and ids are arguments.

  queued ──▶ running ──▶ done        the application has answered, with a status below 500
    ▲           │  └───▶ failed      its attempts are used up; the request is in the dead-letter queue
    └───────────┘ retried later      it answered 5xx, or its worker died

A request is one message in a queue, and one record in the state beside it. Both change in one commit: there is no message
without a record, and a record says `done` if and only if its message is gone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any, Final, Literal, TypeAlias

import msgspec

from headrace.http.fields import HOP_BY_HOP, Fields
from headrace.web.paths import is_below, prefix_of
from headrace.web.settings import DurableSettings
from headrace.web.stored.limits import (
    KEY_CHARACTERS_MAX,
    QUEUED_KEEP_S,
    RESPONSE_BYTES_MAX,
    RETRY_MAX_S,
    WAIT_MAX_S,
)

PREFIX: Final = "/.headrace/requests/"
"""Of the status URLs."""

_KEY: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % KEY_CHARACTERS_MAX)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_WAIT: Final = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})")
_DROPPED: Final = HOP_BY_HOP | {b"expect", b"content-length"}

Status: TypeAlias = Literal["queued", "running", "done", "failed"]


class StoredRequest(msgspec.Struct, frozen=True, array_like=True):
    """The message's body, as msgpack. New fields go to the end, with a default."""

    id: str
    method: str
    target: str
    headers: dict[bytes, bytes]
    version: str
    secure: bool
    peer: str
    peer_port: int
    server: tuple[str, int]
    body: bytes | None
    """None: too long for a message; it is in the state."""
    key: str
    """Of the idempotency record; empty if there is none."""
    attempts_max: int
    retry_s: float
    keep_s: float


class Response(msgspec.Struct, frozen=True, array_like=True):
    """The response of the application."""

    status: int
    block: bytes
    body: bytes
    length: int
    """Of the whole body."""

    @property
    def whole(self) -> bool:
        """Whether the body was kept: not if it was too long."""
        return len(self.body) == self.length


class RequestRecord(msgspec.Struct, frozen=True, array_like=True):
    """The record of a request: the value under `request/<id>`. Times are Unix milliseconds."""

    id: str
    status: Status
    method: str
    target: str
    attempts: int
    created_ms: int
    updated_ms: int
    expires_ms: int
    key: str = ""
    error: str = ""
    """Why the last attempt failed."""
    response: Response | None = None


class Key(msgspec.Struct, frozen=True, array_like=True):
    """The request that has used an Idempotency-Key first: the value under `key/<digest>`."""

    id: str
    fingerprint: bytes
    expires_ms: int


def encode(value: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(value)


decode_request: Final = msgspec.msgpack.Decoder(StoredRequest).decode
decode_record: Final = msgspec.msgpack.Decoder(RequestRecord).decode
decode_key: Final = msgspec.msgpack.Decoder(Key).decode


# ------------------------------------------------------------------------------------------------------ keys of the state


def record_key(request_id: str) -> bytes:
    return b"request/" + request_id.encode()


def body_key(request_id: str) -> bytes:
    return b"body/" + request_id.encode()


def idempotency_key(digest: str) -> bytes:
    return b"key/" + digest.encode()


EXPIRY: Final = b"expiry/"


def expiry_key(record: RequestRecord) -> bytes:
    """Sorts by the time at which the record goes."""
    return b"expiry/%016x/%b" % (record.expires_ms, record.id.encode())


def expiry_of(key: bytes) -> tuple[int, str]:
    """Time (ms) and id of an expiry key."""
    _, when, request_id = key.split(b"/", 2)
    return int(when, 16), request_id.decode()


# ------------------------------------------------------------------------------------------------------- which are durable


class DurableRules:
    """Which requests are durable. Immutable."""

    def __init__(self, rules: Iterable[DurableSettings]) -> None:
        """Args: rules: of several that match, the longest path decides; of the same length the first.

        Raises: ValueError: a rule's path is none.
        """
        found = [(prefix_of(rule.path), rule) for rule in rules]
        self._rules = sorted(found, key=lambda pair: -len(pair[0]))

    def find(self, method: str, path: str, *, asked: bool) -> DurableSettings | None:
        """The rule of a request that is to be made durable, or None.

        What no rule covers is not: else whoever can send a header could fill the queue.

        Args: path: canonical; asked: whether it came with `Prefer: respond-async`.
        """
        for prefix, rule in self._rules:
            if method in rule.methods and is_below(prefix, path):
                return rule if rule.always or asked else None
        return None


def prefers_async(prefer: bytes | None) -> bool:
    """Source: RFC 7240, 4.1."""
    if not prefer:
        return False
    return any(part.split(b";")[0].strip().lower() == b"respond-async" for part in prefer.split(b","))


def preferred_wait_s(prefer: bytes | None) -> float:
    """How long the client would wait for the answer itself before it takes a 202; 0 if it did not say (RFC 7240, 4.3)."""
    found = _WAIT.search(prefer.lower()) if prefer else None
    return min(float(found[1]), WAIT_MAX_S) if found else 0.0


# ----------------------------------------------------------------------------------------------------------- idempotency


def read_idempotency_key(value: bytes | None) -> bytes | None:
    """The key as the client wrote it, quotes taken off; None without the header.

    Raises: ValueError: it cannot be one.

    Source: draft-ietf-httpapi-idempotency-key-header-07 (a structured string; bare ones are common).
    """
    if value is None:
        return None
    key = value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"an Idempotency-Key has 1 to {KEY_CHARACTERS_MAX} visible ASCII characters")
    return key


def scope_of(key: bytes, *, method: str, host: bytes, path: str, authorization: bytes) -> str:
    """Where the key is unique: the operation and the caller; another caller's key must not show this one's answer."""
    return _digest(key, method.encode(), host, path.encode(), authorization).hex()


def fingerprint_of(*, target: str, content_type: bytes, caller: bytes, body: bytes) -> bytes:
    """A hash of everything that must be equal in a repeat."""
    return _digest(target.encode(), content_type, caller, body)


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


# --------------------------------------------------------------------------------------------------------------- the life


def kept_headers(headers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The headers that stay valid wherever the request is run."""
    return {name: value for name, value in headers.items() if name not in _DROPPED}


def new_record(request: StoredRequest, *, now_ms: int) -> RequestRecord:
    return RequestRecord(
        id=request.id,
        status="queued",
        method=request.method,
        target=request.target,
        attempts=0,
        created_ms=now_ms,
        updated_ms=now_ms,
        expires_ms=now_ms + int((QUEUED_KEEP_S + request.keep_s) * 1000),
        key=request.key,
    )


def started(record: RequestRecord, *, now_ms: int) -> RequestRecord:
    """A worker is about to run it. A failed one that is here again was redriven: it gets all its attempts again."""
    attempts = 0 if record.status == "failed" else record.attempts
    return msgspec.structs.replace(
        record, status="running", attempts=attempts + 1, updated_ms=now_ms, response=None, error=""
    )


def not_run(record: RequestRecord, *, now_ms: int) -> RequestRecord:
    """It was refused for lack of room before the application saw it: that is no attempt."""
    return msgspec.structs.replace(record, status="queued", attempts=record.attempts - 1, updated_ms=now_ms)


def to_retry(record: RequestRecord, error: str, *, now_ms: int) -> RequestRecord:
    return msgspec.structs.replace(record, status="queued", error=error, updated_ms=now_ms)


def ended(
    record: RequestRecord, *, now_ms: int, keep_s: float, response: Response | None, error: str = ""
) -> RequestRecord:
    """Done if there is no error, else failed: kept as long as it may be redriven."""
    if error:
        keep_s = max(keep_s, QUEUED_KEEP_S)
    return msgspec.structs.replace(
        record,
        status="failed" if error else "done",
        updated_ms=now_ms,
        expires_ms=now_ms + int(keep_s * 1000),
        error=error,
        response=response,
    )


def retry_delay_s(attempts: int, first_s: float) -> float:
    """Before the next attempt, after `attempts` of them: doubles, up to 15 minutes."""
    return min(first_s * 2.0 ** min(attempts - 1, 30), RETRY_MAX_S)


# --------------------------------------------------------------------------------------------------------- what is shown


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def location_of(request_id: str, root_path: str = "") -> str:
    return f"{root_path}{PREFIX}{request_id}"


def view(record: RequestRecord, *, root_path: str = "") -> dict[str, Any]:
    """The record as the status URL shows it: JSON."""
    shown: dict[str, Any] = {
        "id": record.id,
        "status": record.status,
        "method": record.method,
        "target": record.target,
        "attempts": record.attempts,
        "created": record.created_ms / 1000,
        "updated": record.updated_ms / 1000,
        "location": location_of(record.id, root_path),
    }
    if record.error:
        shown["error"] = record.error
    if record.response is not None:
        shown["response"] = _view_response(record.response)
        shown["response_location"] = location_of(record.id, root_path) + "/response"
    return shown


def _view_response(response: Response) -> dict[str, Any]:
    fields = Fields(response.block)
    shown: dict[str, Any] = {
        "status": response.status,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields.pairs()],
    }
    if not response.whole:
        shown["body_too_long"] = f"{response.length} bytes; at most {RESPONSE_BYTES_MAX} are kept"
        return shown
    try:
        shown["body"] = response.body.decode()
    except UnicodeDecodeError:
        shown["body_base64"] = base64.b64encode(response.body).decode()
    return shown


def due(keys: Iterable[bytes], *, now_ms: int) -> list[bytes]:
    """The expiry keys that are due; they are given, and returned, in their sorted order."""
    return list(takewhile(lambda key: expiry_of(key)[0] <= now_ms, keys))
