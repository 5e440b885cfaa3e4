"""What a handler sees of HTTP: a complete request, and one call to answer it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

Headers: TypeAlias = dict[bytes, bytes]
"""Lower-case names; a repeated header's values are joined by `, ` (the engine has refused repeats that must not be)."""


class Request(Protocol):
    """A request whose body has fully arrived, within the listener's limits.

    A handler calls `respond` once, at once or later. The engine keeps pipelined answers in order.
    """

    method: str
    target: str
    """As sent: path and query, percent-encoded (absolute form already reduced)."""
    path: str
    """`target` up to the `?`, still percent-encoded."""
    query: str
    headers: Headers
    body: bytes
    peer: str
    """The client's address, or `unix` for a Unix socket."""
    secure: bool
    """Whether it came over TLS."""
    on_disconnect: Callable[[], None] | None
    """Set by a handler that answers later: called once if the client leaves before the answer."""

    def connected(self) -> bool:
        """Whether the client is still there: neither closed, half-closed nor reset as far as the kernel knows now."""

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        """Answer. Content-Length, Date, Server and Connection are the engine's. Ignored once the client has left."""


Handler: TypeAlias = Callable[[Request], None]
