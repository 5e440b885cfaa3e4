"""Whether the client at the other end of a socket is still there, as far as the kernel knows now.

The event loop learns of a FIN at its next turn; messages handed out before that turn go to nobody.
"""

from __future__ import annotations

import select
import socket
from typing import Final

_LEFT: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


def peer_present(fd: int) -> bool:
    """False once the client has closed, half-closed or reset. Bytes that wait unread do not hide it (on Linux)."""
    if not hasattr(select, "POLLRDHUP"):
        return peek(fd)
    poller = select.poll()
    poller.register(fd, _LEFT)
    return not poller.poll(0)


def has_input(fd: int) -> bool:
    """Whether bytes, or an end of file, wait to be read."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def peek(fd: int) -> bool:
    """The same where `poll` cannot tell: a closed peer shows as an end of file, but only behind all unread bytes."""
    borrowed = socket.socket(fileno=fd)
    try:
        return borrowed.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        borrowed.detach()
