"""Where a broker is: a folder, an http(s) URL or a Unix socket; several of these URLs, if it has several nodes."""

from __future__ import annotations

import dataclasses
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from headrace.errors import InvalidParameter

PORT_DEFAULT: Final = 9324
SOCKET_NAME: Final = "headrace.sock"
"""The broker listens on this Unix socket in its data folder too."""

_ALIVE: Final = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000))
"""Seconds, and for the last one ms: a broker whose machine is gone is noticed within some 11 s, also while a call waits for an
answer. Its closed port or its end is told by its machine at once."""

_EXPECTED: Final = (
    "it is a folder, http://HOST:PORT, https://HOST:PORT or unix:///PATH; several nodes: http://HOST:PORT,HOST:PORT"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker that another process runs. Either `unix_path` or `host` and `port`.

    `others`: further nodes of the same broker (one database); they have no others themselves.
    """

    host: str
    port: int = PORT_DEFAULT
    unix_path: str | None = None
    tls: bool = False
    others: tuple[Endpoint, ...] = ()

    def __str__(self) -> str:
        return ",".join(node.url for node in self.nodes)

    @property
    def nodes(self) -> tuple[Endpoint, ...]:
        """All of them, this one first."""
        return (self, *self.others)

    @property
    def url(self) -> str:
        """Of this node alone."""
        if self.unix_path is not None:
            return f"unix://{self.unix_path}"
        return f"{'https' if self.tls else 'http'}://{self.host_header}"

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.unix_path is None else host

    def ssl_context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context() if self.tls else None


def parse(target: str | Path) -> Endpoint | Path:
    """What `headrace.connect` was given. Several URLs are separated by commas; one without a scheme has that before it.

    A folder that a running broker holds is that broker's Unix socket: so the folder is a good name in both cases.

    Raises:
        InvalidParameter: a URL that is not http, https or unix, or has no host.
    """
    text = str(target)
    if "://" not in text:
        folder = Path(text)
        return Endpoint("localhost", unix_path=str(folder / SOCKET_NAME)) if is_served(folder) else folder
    first, *others = [_parse_url(url) for url in _urls(text)]
    return dataclasses.replace(first, others=tuple(others))


def _urls(text: str) -> list[str]:
    """The URLs of a list; a path of a socket may have commas, too."""
    urls: list[str] = []
    for part in text.split(","):
        scheme = urls[-1].partition("://")[0] if urls else ""
        if "://" in part or not urls:
            urls.append(part)
        elif scheme == "unix":
            urls[-1] += f",{part}"
        else:
            urls.append(f"{scheme}://{part}")
    return urls


def _parse_url(text: str) -> Endpoint:
    url = urlsplit(text)
    if url.scheme == "unix" and url.path:
        return Endpoint("localhost", unix_path=url.netloc + url.path)
    try:
        port = url.port
    except ValueError:
        raise InvalidParameter("url", text, "its port is no number from 0 to 65535") from None
    if url.scheme in ("http", "https") and url.hostname and url.path in ("", "/") and url.username is None:
        return Endpoint(url.hostname, port if port is not None else PORT_DEFAULT, tls=url.scheme == "https")
    raise InvalidParameter("url", text, _EXPECTED)


def is_served(folder: Path) -> bool:
    """Whether a broker answers on the socket in `folder`."""
    path = folder / SOCKET_NAME
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def keep_alive(connected: socket.socket) -> None:
    """Let the system find out if the other machine is gone. As far as the system can."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
