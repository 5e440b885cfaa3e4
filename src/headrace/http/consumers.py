"""Calls of consumers, from a connection. What a consumer's bug costs is its own request: the others go on."""

from __future__ import annotations

import logging
from typing import Final

from headrace.http.engine import INTERNAL, Service
from headrace.http.exchange import DONE, Exchange
from headrace.http.fields import Fields

_log: Final = logging.getLogger("headrace.http")


def give(service: Service, exchange: Exchange) -> None:
    """A new request, to the target."""
    service.requests += 1
    try:
        service.target(exchange)
    except Exception:  # noqa: BLE001  # a consumer's, whatever it is
        _answer_bug(service, exchange)


def notify(service: Service, exchange: Exchange) -> None:
    """Something has changed. Only from the loop, never from inside one of the consumer's own calls."""
    if exchange.notify is None or exchange.stage is DONE:
        return
    try:
        exchange.notify()
    except Exception:  # noqa: BLE001  # as in `give`
        _answer_bug(service, exchange)


def lose(exchange: Exchange) -> None:
    """The client has left. What that brings about must not stop what else is due."""
    try:
        exchange.lost()
    except Exception:  # noqa: BLE001  # as in `give`
        _log.exception("a consumer failed", extra={"action": "http.target.failed", "path": exchange.path})


def _answer_bug(service: Service, exchange: Exchange) -> None:
    _log.exception("a target failed", extra={"action": "http.target.failed", "path": exchange.path})
    if exchange.answered:
        exchange.abort()
    else:
        content_type, body = service.error_body(500, INTERNAL)
        exchange.respond(500, Fields.of([(b"Content-Type", content_type), *service.error_fields]), body)
