"""Rows POSTed as JSON arrays. At least once; a repeated post has the same Idempotency-Key.

Only hosts of the allow-list are allowed, by its exact name or by `*.example.com`; at addresses that are looked up
once and connected to, so that it cannot change in between. Private and loopback addresses only if the host
stands in the list by its very name; link-local ones (where clouds keep credentials) only as literal addresses. Redirects
are not followed, proxies of the environment not used.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from headrace.stream import limits
from headrace.stream.errors import SinkFailed, UnsupportedQuery
from headrace.stream.formats.encoding import JsonEncoder
from headrace.stream.plan import HttpSink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import RowsOutbox, unpack

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], list[str]]
"""(host, port) → addresses, as text. Raises OSError."""

_AGAIN: Final = {408, 425, 429}
"""Beside 5xx: what may be right the next time."""


class TransientError(Exception):
    """A post failed for a transient reason. `after_s`: the wait that the server asks for."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class HttpOutbox(RowsOutbox):
    """See Outbox."""

    def __init__(
        self,
        sink: HttpSink,
        schema: Schema,
        *,
        resolve: Resolve | None = None,
        sleep: Callable[[float], None] = time.sleep,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Raises UnsupportedQuery: no http or https URL, or a host that is not allowed."""
        self._url = _checked_url(sink)
        host = self._url.hostname or ""
        self.name = f"POST {host}"
        self._sink = sink
        self._json = JsonEncoder(schema.arrow())
        self._named = host.lower() in {entry.lower() for entry in sink.allow}
        self._resolve = resolve or _look_up
        self._sleep = sleep
        self._context = context
        self._connection: http.client.HTTPConnection | None = None

    def deliver(self, batch: int, staged: bytes) -> None:
        del batch  # the token says which it is, also after a reset
        token, rows = unpack(staged)
        for number, first in enumerate(range(0, len(rows), self._sink.rows_max)):
            body = self._json.array(rows.slice(first, self._sink.rows_max))
            self._post_surely(body, key=f"{token}-{number}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post_surely(self, body: bytes, *, key: str) -> None:
        for attempt in range(1, limits.POST_ATTEMPTS_MAX + 1):
            try:
                self._post(body, key)
                return
            except TransientError as error:
                self.close()
                if attempt == limits.POST_ATTEMPTS_MAX:
                    raise SinkFailed(self.name, f"{attempt} tries failed, the last: {error}") from None
                self._sleep(pause_s(attempt, error.after_s, chance=random.random()))  # noqa: S311 - jitter needs no secure randomness

    def _post(self, body: bytes, key: str) -> None:
        """Raises TransientError; SinkFailed where a repeat is useless."""
        try:
            connection = self._connected()
            connection.request("POST", _target(self._url), body, self._headers(key))
            response = connection.getresponse()
            response.read(limits.POST_ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{type(error).__name__}: {error}") from None
        if not response.isclosed():  # more than anybody wants to read
            self.close()
        if response.status >= 500 or response.status in _AGAIN:
            raise TransientError(f"{response.status} {response.reason}", _seconds(response.getheader("Retry-After")))
        if not 200 <= response.status < 300:
            raise SinkFailed(self.name, f"it answers {response.status} {response.reason}: a repeat would not help")

    def _headers(self, key: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "headrace", "Idempotency-Key": key}
        return headers | dict(self._sink.headers)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = self._url.hostname or "", _port(self._url)
            connection = http.client.HTTPConnection(host, port, timeout=limits.POST_TIMEOUT_S)
            connection.sock = self._open_socket(host, port)
            self._connection = connection
        return self._connection

    def _open_socket(self, host: str, port: int) -> socket.socket:
        plain = _connect(self._addresses(host, port), port)
        if self._url.scheme == "http":
            return plain
        context = self._context or ssl.create_default_context()
        try:
            return context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def _addresses(self, host: str, port: int) -> list[str]:
        """At least one. All must be allowed: a name with one bad address is a trap, or a mistake."""
        found = self._resolve(host, port)
        for address in found:
            reason = refusal(host, ipaddress.ip_address(address), named=self._named)
            if reason:
                raise SinkFailed(self.name, f"{host} is {address}, {reason}")
        if not found:
            raise TransientError(f"{host} has no address")
        return found


def refusal(host: str, address: Address, *, named: bool) -> str:
    """Why an address must not be connected to; empty: it may.

    Args:
        named: whether the allow-list has the host by its very name.
    """
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = inner or address
    if named and host.strip("[]") == str(address):
        return ""
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return "an address of the link, of many, or of none: name the address itself in the URL and in allow"
    if not address.is_global and not named:
        return f"a private address: name {host!r} itself in allow if that is meant"
    return ""


def pause_s(attempt: int, after_s: float | None, *, chance: float) -> float:
    """How long to wait behind try number `attempt`: doubling, with jitter by `chance` (0 to 1); what the server asks for,
    within the bound."""
    pause: float = limits.POST_PAUSE_FIRST_S * 2.0 ** (attempt - 1) * (0.5 + chance)
    return min(max(pause, after_s or 0), limits.POST_PAUSE_MAX_S)


def _checked_url(sink: HttpSink) -> SplitResult:
    place = f"sink {sink.url[:200]!r}"
    try:
        url = urlsplit(sink.url)
        _port(url)
    except ValueError as error:
        raise UnsupportedQuery(place, f"it is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UnsupportedQuery(place, "it is not an http or https URL")
    if url.username is not None:
        raise UnsupportedQuery(place, "user and password in a URL end up in logs", "headers=(('Authorization', …),)")
    if not any(_matches(url.hostname.lower(), entry.lower()) for entry in sink.allow):
        raise UnsupportedQuery(place, f"host {url.hostname!r} is not in allow={list(sink.allow)}", "add it")
    return url


def _matches(host: str, entry: str) -> bool:
    return host == entry or (entry.startswith("*.") and host.endswith(entry[1:]))


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _target(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def _connect(addresses: list[str], port: int) -> socket.socket:
    """To the first that answers: a server need not listen on every address of its name (`localhost` is often ::1, too).

    Raises OSError: none does; that of the last.
    """
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), limits.POST_TIMEOUT_S)
    return socket.create_connection((addresses[-1], port), limits.POST_TIMEOUT_S)


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]).split("%")[0] for *_, address in found]
