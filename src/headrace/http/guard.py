"""Refuses what a web page may send to a server on the operator's machine: DNS rebinding and cross-site requests.

Without it, with authentication off, any page could purge a queue by a plain form post. A browser names the host it
believes it talks to (Host), the page that asks (Origin) and their relation (Sec-Fetch-Site); SDKs send only Host.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from headrace.http.messages import Headers

ANY: Final = "*"
"""Among the allowed hosts: any Host will do, for a listener whose callers must sign."""

_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::[0-9]*)?")
_SERVICE: Final = re.compile(r"(?:sqs\.[a-z0-9-]+|(?:[a-z0-9-]+\.)?queue)\.(.+)")
_FRIENDLY_SITES: Final = (b"same-origin", b"none")


def find_offence(headers: Headers, allowed_hosts: AbstractSet[str] = frozenset()) -> str | None:
    """Why this request must be refused, or None. Pure.

    Loopback names and addresses are always allowed as Host; so are, below an allowed host, the names by which AWS
    SDKs address a queue service: `sqs.<region>.<host>`, `<region>.queue.<host>`, `queue.<host>`.

    Args:
        headers: of the request; a missing Host (HTTP/1.0) passes, since every browser sends one.
        allowed_hosts: more names and addresses, lower case, without port; ANY allows all.

    Source: DESIGN: safety. Fetch Metadata (W3C); RFC 6454 (Origin).
    """
    host = headers.get(b"host")
    if host is not None and not _is_allowed(host, frozenset(allowed_hosts)):
        return f"Host {host.decode('latin-1')!r} is not one that this server answers to"
    origin = headers.get(b"origin")
    if origin is not None and not _is_own(origin, host, allowed_hosts):
        return f"requests from pages of {origin.decode('latin-1')!r} are not answered"
    site = headers.get(b"sec-fetch-site")
    if site is not None and site not in _FRIENDLY_SITES:
        return "requests from pages of other sites are not answered"
    return None


def is_loopback(host: str) -> bool:
    """Whether `host` (lower case, no port) is `localhost`, a name below it, or a loopback address, IPv6 in brackets."""
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _parse_address(host)
    return address is not None and address.is_loopback


@lru_cache(maxsize=1024)
def _is_allowed(host: bytes, allowed_hosts: frozenset[str]) -> bool:
    if ANY in allowed_hosts:
        return True
    name = _name_of(host)
    if name is None:
        return False
    if is_loopback(name) or name in allowed_hosts:
        return True
    service = _SERVICE.fullmatch(name)
    return service is not None and (is_loopback(service[1]) or service[1] in allowed_hosts)


def _is_own(origin: bytes, host: bytes | None, allowed_hosts: AbstractSet[str]) -> bool:
    """A page of this server itself, or of a host that was allowed by name; not of another port of this machine."""
    scheme, _, authority = origin.lower().partition(b"://")
    if scheme not in (b"http", b"https"):
        return False
    return (host is not None and authority == host.lower()) or _name_of(authority) in allowed_hosts


def _name_of(authority: bytes) -> str | None:
    match = _AUTHORITY.fullmatch(authority.decode("latin-1").lower())
    return match[1].removesuffix(".") if match else None


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return None
