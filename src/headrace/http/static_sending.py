"""Sends parts of an open file as the client takes them. Holds one descriptor, no bytes."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable
from typing import Final, TypeAlias

from headrace.http.exchange import Exchange
from headrace.http.static_conditions import Span

PIECE_BYTES: Final = 4 * 1_048_576
"""Of a file at once: between two the client's presence and the file's length are looked at."""

Part: TypeAlias = "bytes | Span"

_log: Final = logging.getLogger("headrace.http")


class FileSender:
    """Call `advance` once; from then on the exchange does. Takes `handle`.

    Invariant: the file is open until the exchange is done, and not longer.
    """

    __slots__ = ("_exchange", "_handle", "_parts")

    def __init__(self, exchange: Exchange, handle: int, parts: Iterable[Part]) -> None:
        self._exchange = exchange
        self._handle = handle
        self._parts = deque(parts)
        exchange.notify = self.advance

    def advance(self) -> None:
        """Send what the client takes now."""
        exchange = self._exchange
        while self._parts and not exchange.gone and exchange.writable:
            part = self._parts.popleft()
            if isinstance(part, Span):
                self._send_span(part)
            else:
                exchange.send(part)
        if exchange.gone:
            self._close()
        elif not self._parts:
            self._close()
            exchange.finish()

    def _send_span(self, span: Span) -> None:
        stop = min(span.stop, span.start + PIECE_BYTES)
        if os.fstat(self._handle).st_size < stop:
            # Shorter than its headers have said: the client must see that this is not the whole.
            _log.warning("a file was cut while it was sent", extra={"action": "http.static.cut"})
            self._exchange.abort()
            return
        if stop < span.stop:
            self._parts.appendleft(Span(stop, span.stop))
        self._exchange.send_file(os.dup(self._handle), span.start, stop - span.start)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self._close()  # an exchange that somebody else has aborted notifies nobody
