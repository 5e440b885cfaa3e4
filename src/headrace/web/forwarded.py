"""Determines the client behind trusted proxies, from Forwarded (RFC 7239) and X-Forwarded-*. Pure.

A header is believed only if the connection comes from a trusted proxy, and only as far as trusted proxies wrote it: the
list of addresses is read from its right end, trusted ones are skipped, and the first other one is the client. What
stands left of it, the client may have written itself. Something that is no address ends the reading.

A proxy that knows one of the two families passes the other on as the client has sent it. So if both came and do not
name the same client, neither is believed; if they do, X-Forwarded-* is.

X-Forwarded-Host is ignored: proxies that do not set it (nginx, unless configured) pass on the client's, with which
links and caches can be poisoned. A proxy that must change Host can say the true one in Forwarded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from headrace.http.messages import Headers
from headrace.settings import SettingsError

HEADERS: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-real-ip",
    }
)
"""What says who the client is; a proxy route passes none of it on, and says it itself."""

ANYBODY: Final = "*"

_HOPS_MAX: Final = 32
"""Proxies in a row that are looked at; more is a loop or an attack."""
_CACHED: Final = 4_096
"""Header values whose meaning is remembered: to read them costs some µs, and a client sends the same again."""
_CACHED_BYTES_MAX: Final = 256
"""Longer ones are read each time: 4,096 of 64 KiB would be too much to remember."""
_FORWARDED_BYTES_MAX: Final = 4_096
"""Of Forwarded, which must be read from its beginning; a longer one is not believed. 32 hops have about 2,000."""
_ADDRESS: Final = re.compile(
    r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)", re.ASCII
)
_PAIR: Final = re.compile(r'([a-zA-Z]+)=("(?:[^"\\]|\\.)*"|[^\s";,=]*)\s*', re.ASCII)
_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_SECURE: Final = {"https": True, "wss": True, "http": False, "ws": False}


@dataclass(frozen=True, slots=True)
class Client:
    """The client as trusted proxies name it; None for what they do not name."""

    address: str | None = None
    port: int = 0
    secure: bool | None = None
    host: bytes | None = None
    """For the Host header."""
    server_port: int | None = None
    """The port that the client has connected to."""


UNKNOWN_CLIENT: Final = Client()


class TrustedProxies:
    """The proxies that are believed, and what they say."""

    __slots__ = ("_cache", "_networks", "_peers", "_read", "anybody", "unix")

    def __init__(self, proxies: Iterable[str]) -> None:
        """Addresses, networks (`10.0.0.0/8`), `unix` for the clients of a Unix socket, `*` for all.

        Raises: SettingsError.
        """
        names = tuple(proxies)
        self.anybody = ANYBODY in names
        self.unix = "unix" in names or self.anybody
        self._networks = tuple(_parse_network(name) for name in names if name not in (ANYBODY, "unix"))
        self._peers: Callable[[str], bool] = lru_cache(_CACHED)(self._is_trusted)
        self._read = lru_cache(_CACHED)(self._interpret)

    def trusts(self, peer: str) -> bool:
        """Whether what this neighbour says is believed; `peer` as in an exchange."""
        return self._peers(peer)

    def client(self, headers: Headers, peer: str) -> Client:
        """The client, from the headers of a request that came from `peer`."""
        if not self._peers(peer):
            return UNKNOWN_CLIENT
        get = headers.get
        forwarded, addresses = get(b"forwarded"), get(b"x-forwarded-for")
        scheme, port = get(b"x-forwarded-proto"), get(b"x-forwarded-port")
        if forwarded is None and addresses is None and scheme is None and port is None:
            return UNKNOWN_CLIENT
        size = len(forwarded or b"") + len(addresses or b"") + len(scheme or b"") + len(port or b"")
        read = self._read if size <= _CACHED_BYTES_MAX else self._interpret
        return read(forwarded, addresses, scheme, port)

    def _is_trusted(self, peer: str) -> bool:
        if self.anybody:
            return True
        if peer == "unix":
            return self.unix
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def _interpret(
        self, forwarded: bytes | None, addresses: bytes | None, scheme: bytes | None, port: bytes | None
    ) -> Client:
        if forwarded is None:
            return self._read_old(addresses or b"", scheme, port)
        new = self._read_forwarded(forwarded)
        if addresses is None and scheme is None and port is None:
            return new
        old = self._read_old(addresses or b"", scheme, port)
        return old if old.address == new.address else UNKNOWN_CLIENT

    def _read_old(self, addresses: bytes, scheme: bytes | None, port: bytes | None) -> Client:
        hops = _split(addresses)
        index = self._find_client(hops)
        address, client_port = (None, 0) if index is None else _parse_address(hops[index]) or (None, 0)
        from_end = 0 if index is None else len(hops) - 1 - index
        return Client(
            address,
            client_port,
            _SECURE.get(_aligned(scheme, len(hops), from_end).lower()),
            None,
            _parse_port(_aligned(port, len(hops), from_end)),
        )

    def _read_forwarded(self, value: bytes) -> Client:
        hops = _parse_forwarded(value.decode("latin-1"))
        index = self._find_client([hop.get("for", "") for hop in hops])
        if index is None:
            return UNKNOWN_CLIENT
        hop = hops[index]
        address, port = _parse_address(hop["for"]) or (None, 0)
        host = hop.get("host", "")
        return Client(
            address,
            port,
            _SECURE.get(hop.get("proto", "").lower()),
            host.encode("latin-1") if _HOST.fullmatch(host) else None,
        )

    def _find_client(self, hops: Sequence[str]) -> int | None:
        """From the right: the first that is not trusted, else the last that is an address."""
        found = None
        for index in range(len(hops) - 1, max(-1, len(hops) - 1 - _HOPS_MAX), -1):
            hop = _parse_address(hops[index])
            if hop is None:
                break
            found = index
            if not self._peers(hop[0]):
                break
        return found


def _aligned(value: bytes | None, hops: int, from_end: int) -> str:
    """The element of a list that belongs to a hop of another list, if there are as many; else the nearest proxy's word."""
    elements = _split(value or b"")
    if not elements:
        return ""
    return elements[-1 - from_end] if len(elements) == hops else elements[-1]


def _split(value: bytes) -> list[str]:
    """The last elements of a list; the rest to the left of them stays in one piece."""
    text = value.decode("latin-1").strip()
    return [part.strip() for part in text.rsplit(",", _HOPS_MAX)] if text else []


def _parse_address(text: str) -> tuple[str, int] | None:
    """Address and port (0 if none) of `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None
    try:
        address = ip_address(found[1] or found[3] or found[5])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), int(found[2] or found[4] or 0)


def _parse_port(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        return None
    return int(text) if 0 < int(text) < 65_536 else None


def _parse_forwarded(value: str) -> list[dict[str, str]]:
    """The elements of a Forwarded header; none if it is malformed anywhere.

    Because of quotes it can only be read from the left, where the client's own part is: if that has a quote too many,
    it is unknown where the proxies' part begins.
    """
    if len(value) > _FORWARDED_BYTES_MAX:
        return []
    hops: list[dict[str, str]] = [{}]
    position = 0
    while position < len(value):
        found = _PAIR.match(value, position)
        if found is not None:
            hops[-1].setdefault(found[1].lower(), _unquote(found[2]))
            position = found.end()
        elif value[position] not in ",; \t":
            return []
        if position < len(value):
            if value[position] == ",":
                hops.append({})
            elif value[position] not in "; \t":
                return []
            position += 1
    return hops


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _parse_network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name)
    except ValueError as error:
        raise SettingsError("web.trusted_proxies", f"{name!r}: {error}; an address, a network, unix or *") from None
