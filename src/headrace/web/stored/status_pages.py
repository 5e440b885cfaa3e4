"""The status URL of a durable request: its status as JSON, and the application's response unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.http import problem
from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.web.stored import records
from headrace.web.stored.limits import RESPONSE_BYTES_MAX
from headrace.web.stored.records import PREFIX, RequestRecord, Response

RETRY_AFTER = (b"Retry-After", b"1")
_NO_STORE = (b"Cache-Control", b"no-store")  # it changes, and other users may share the cache
_JSON = (b"Content-Type", b"application/json")
_REPLAYED = (b"Idempotent-Replayed", b"true")


def read_path(path: str) -> tuple[str, bool] | None:
    """(id, whether the answer itself is asked for) of a status path; None if it is no such path."""
    rest = path.removeprefix(PREFIX)
    request_id, slash, tail = rest.partition("/")
    if rest == path or not records.is_id(request_id) or (slash and tail != "response"):
        return None
    return request_id, bool(slash)


def show(exchange: Exchange, record: RequestRecord) -> None:
    """The record: 200 with its status."""
    more = () if record.response is not None or record.status == "failed" else (RETRY_AFTER,)
    answer_json(exchange, 200, records.view(record, root_path=exchange.root_path), more)


def show_response(exchange: Exchange, record: RequestRecord) -> None:
    """The application's answer as it gave it; 404 while there is none."""
    response = record.response
    if response is None:
        problem.respond(
            exchange, 404, f"request {record.id} has no answer: it is {record.status}", headers=(RETRY_AFTER,)
        )
    elif not response.whole:
        detail = f"the answer had {response.length} bytes; at most {RESPONSE_BYTES_MAX} are kept"
        problem.respond(exchange, 410, detail, kind="response-too-long")
    else:
        replay(exchange, response, ())


def replay(exchange: Exchange, response: Response, more: Iterable[tuple[bytes, bytes]]) -> None:
    """Answer as the application did."""
    fields = Fields(response.block).replace(remove=frozenset({b"date"}), add=more)
    exchange.respond(response.status, fields, response.body)


def accepted(exchange: Exchange, record: RequestRecord, *, asked: bool) -> None:
    """202: it is on the disk and will be run (RFC 9110 15.3.3, RFC 7240)."""
    more = [_location(exchange, record), RETRY_AFTER]
    if asked:
        more.append((b"Preference-Applied", b"respond-async"))
    answer_json(exchange, 202, records.view(record, root_path=exchange.root_path), more)


def repeated(exchange: Exchange, record: RequestRecord | None, *, same: bool) -> None:
    """The Idempotency-Key has been used: its first answer, 409 while that is not there, 422 for another request."""
    if not same:
        detail = "this Idempotency-Key was used for a request with another target, body or cookie"
        problem.respond(exchange, 422, detail, kind="idempotency-conflict")
    elif record is None:
        problem.respond(exchange, 409, "the first request with this Idempotency-Key has expired; use a new key")
    elif record.status in ("queued", "running"):
        detail = f"the first request with this Idempotency-Key is {record.status}; its status is at the Location"
        headers = (_location(exchange, record), RETRY_AFTER)
        problem.respond(exchange, 409, detail, kind="idempotency-in-progress", headers=headers)
    elif record.response is not None and record.response.whole:
        replay(exchange, record.response, (_content_location(exchange, record), _REPLAYED))
    else:
        answer_json(
            exchange,
            200 if record.status == "done" else 500,
            records.view(record, root_path=exchange.root_path),
            (_content_location(exchange, record), _REPLAYED),
        )


def answer_json(exchange: Exchange, status: int, value: Any, more: Iterable[tuple[bytes, bytes]]) -> None:
    exchange.respond(status, Fields.of((_JSON, _NO_STORE, *more)), msgspec.json.encode(value) + b"\n")


def _location(exchange: Exchange, record: RequestRecord) -> tuple[bytes, bytes]:
    return b"Location", records.location_of(record.id, exchange.root_path).encode()


def _content_location(exchange: Exchange, record: RequestRecord) -> tuple[bytes, bytes]:
    return b"Content-Location", records.location_of(record.id, exchange.root_path).encode()
