"""Answers with the headers that keep a page from doing harm: strict policy, no sniffing, no store."""

from __future__ import annotations

from typing import Final

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Nothing inline, nothing evaluated, nothing from elsewhere: a body that slipped through unescaped would stay dead."""

HTML: Final = b"text/html; charset=utf-8"
JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"
EVENTS: Final = b"text/event-stream"
NO_STORE: Final = b"no-store"
FOR_EVER: Final = b"public, max-age=31536000, immutable"

# No stricter referrer policy: with `no-referrer` browsers send `Origin: null` along forms, which the guard refuses.
ALWAYS: Final = (
    (b"Content-Security-Policy", POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"same-origin"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"X-Frame-Options", b"DENY"),
)

Pairs = tuple[tuple[bytes, bytes], ...]


def fields_of(content_type: bytes, more: Pairs = (), *, cache: bytes = NO_STORE) -> Fields:
    return Fields.of(((b"Content-Type", content_type), (b"Cache-Control", cache), *ALWAYS, *more))


def respond(
    exchange: Exchange,
    status: int,
    body: bytes | str,
    content_type: bytes = HTML,
    more: Pairs = (),
    *,
    cache: bytes = NO_STORE,
) -> None:
    """Answer, unless an answer has begun."""
    if not exchange.answered:
        data = body.encode() if isinstance(body, str) else body
        exchange.respond(status, fields_of(content_type, more, cache=cache), data)


def redirect(exchange: Exchange, place: str, more: Pairs = ()) -> None:
    """To a page, by GET, after a form."""
    respond(exchange, 303, b"", TEXT, ((b"Location", place.encode("ascii", "replace")), *more))
