"""Where an upstream server is: `http://host:port`, `https://host:port`, `unix:/path/of/socket`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from headrace.settings import SettingsError
from headrace.web.settings import RouteSettings

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
_PATH: Final = re.compile(r"[a-z]+://[^/?#]+/[^?#]+", re.IGNORECASE)
_HEALTH_PATH: Final = re.compile(r"/[\x21-\x22\x24-\x7e]*", re.ASCII)
_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """An upstream, as configured."""

    url: str
    """As written; names it in logs and metrics."""
    secure: bool = False
    host: str = ""
    port: int = 0
    socket: str = ""
    """Path of a Unix socket, instead of host and port."""

    @property
    def authority(self) -> bytes:
        """What its own Host header is."""
        return b"localhost" if self.socket else self.url.partition("://")[2].rstrip("/").encode()


def upstreams_of(route: RouteSettings, place: str) -> tuple[Address, ...]:
    """The upstreams of a route; an entry may name several, with commas.

    Args:
        place: of the route in the settings, for errors.

    Raises: SettingsError: also if what else the route says of its upstreams cannot be.
    """
    if route.concurrency < 1:
        raise SettingsError(place, f"invalid concurrency {route.concurrency}: use at least 1")
    if route.health_path and _HEALTH_PATH.fullmatch(route.health_path) is None:
        raise SettingsError(place, f"invalid health_path {route.health_path!r}: use a path such as /health")
    for name in ("health_interval", "connect_timeout", "read_timeout"):
        if not getattr(route, name) > 0:
            raise SettingsError(place, f"invalid {name} {getattr(route, name):g}: use a number of seconds above 0")
    return _read_all(route.proxy, place)


def _read_all(urls: Iterable[str], place: str) -> tuple[Address, ...]:
    names = [name.strip() for entry in urls for name in entry.split(",")]
    found = tuple(_read(name, place) for name in names)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SettingsError(place, f"the upstream {name} is named twice")
    return found


def _read(url: str, place: str) -> Address:
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise SettingsError(place, f"the upstream {url!r} has no absolute path: unix:/path/of/socket")
        return Address(url, socket=path)
    match = _URL.fullmatch(url)
    if match is None:
        raise SettingsError(place, f"the upstream {url!r} {_what_is_wrong(url)}")
    secure = match["scheme"] == "https"
    port = int(match["port"] or (443 if secure else 80))
    if not 0 < port <= _PORT_MAX:
        raise SettingsError(place, f"the upstream {url!r} has port {port}; use 1 to {_PORT_MAX}")
    return Address(url, secure, match["host"].strip("[]"), port)


def _what_is_wrong(url: str) -> str:
    if _PATH.fullmatch(url):
        return "has a path: leave it out; what clients ask for is passed on as it is (a route's `strip` takes its path off)"
    if "@" in url:
        return "has a user name: credentials are not sent to upstreams"
    return "is none of http://host:port, https://host:port, unix:/path"
