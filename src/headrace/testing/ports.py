"""Ports for servers that must be told theirs before they start."""

from __future__ import annotations

import random
import socket
from typing import Final

_FIRST: Final = 10_000
_END: Final = 32_768
"""From here on Linux gives ports to connections; others begin higher. One of those may be taken until a server starts."""
_CHANCE: Final = random.SystemRandom()
"""Not what a test seeds: processes with the same seed would be given the same ports."""


def free_port() -> int:
    """A port of the loopback at which nobody listens, and that no connection is given."""
    while True:
        port = _CHANCE.randrange(_FIRST, _END)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def free_ports(count: int) -> list[int]:
    """As many of them, each another."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)
