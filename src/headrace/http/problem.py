"""Error answers of our own: problem details (RFC 9457) for programs, a plain page for browsers."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1.5rem}}
h1{{font-size:1.5rem;margin:0 0 .5rem}}p{{margin:0;opacity:.75}}</style></head>
<body><h1>{title}</h1><p>{detail}</p></body></html>
"""
_POLICY: Final = (b"Content-Security-Policy", b"default-src 'none'; style-src 'unsafe-inline'")
_NO_STORE: Final = (b"Cache-Control", b"no-store")


def respond(
    exchange: Exchange,
    status: int,
    detail: str,
    *,
    kind: str = "about:blank",
    headers: Iterable[tuple[bytes, bytes]] = (),
    members: Mapping[str, Any] | None = None,
) -> None:
    """Answer with an error, unless an answer has begun: then abort.

    Args:
        status: 400 to 599.
        detail: one sentence for people: what was wrong, the value and the bound, what to do.
        kind: the problem's type: `queue-full`, `payload-too-large`, …
        headers: more headers: Retry-After, Allow, …
        members: more members of the problem object.
    """
    if exchange.answered:
        exchange.abort()
        return
    content_type, body = render(exchange.headers.get(b"accept", b""), status, detail, kind=kind, members=members)
    exchange.respond(status, Fields.of(((b"Content-Type", content_type), _POLICY, _NO_STORE, *headers)), body)


def error_body(status: int, reason: str) -> tuple[bytes, bytes]:
    """For `Listener(error_body=…)`: of a request that could not be read, so that nobody knows what it accepts."""
    return render(b"", status, reason)


def render(
    accept: bytes, status: int, detail: str, *, kind: str = "about:blank", members: Mapping[str, Any] | None = None
) -> tuple[bytes, bytes]:
    """Content type and body, as the request's Accept header wants it."""
    title = _phrase(status)
    if b"text/html" in accept:
        page = _PAGE.format(title=html.escape(f"{status} {title}"), detail=html.escape(detail))
        return b"text/html; charset=utf-8", page.encode()
    problem = {"type": kind, "title": title, "status": status, "detail": detail, **(members or {})}
    return b"application/problem+json", msgspec.json.encode(problem)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
