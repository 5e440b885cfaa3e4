"""Rate limits of clients, as token buckets. Pure: `now_s` is an argument.

Theory (GCRA). A bucket is one number: when it will be full again. A request moves that time on by 1/rate; it is refused
if the bucket would then be empty for longer than `burst` requests take to come back. A bucket that was not used
for burst/rate seconds is full, and a full one need not be kept. So there are two generations of buckets: after
burst/rate seconds the older one is dropped, all full, and the younger becomes the older. Nothing is searched for, and
only full buckets are forgotten.

Memory is bounded even if there are more addresses than that: a generation that has CLIENTS_MAX clients ends early,
and forgets those who were not seen during it. IPv6 clients are counted by /64, which is what one customer has at least.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final, TypeAlias

from headrace.http.messages import Headers
from headrace.settings import SettingsError, flag_of
from headrace.web.paths import canonical, is_below, prefix_of
from headrace.web.settings import LimitSettings, WebSettings

CLIENTS_MAX: Final = 100_000
"""In a generation: 25 MB for a limit with two full ones (measured). More clients than that in burst/rate seconds are an attack
that per-client limits cannot stop."""
_KEY_BYTES_MAX: Final = 40
"""Longer header values are counted by their hash, so that keys do not fill the memory either."""

_RATE: Final = re.compile(r"([0-9]{1,9})\s*/\s*([smhd])", re.ASCII)
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_HEADER: Final = re.compile(r"header:([!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_NAME: Final = re.compile(r"[A-Za-z0-9_. :/-]{1,64}")

Key: TypeAlias = str | bytes
"""Of a client: an address, or a header's value. They cannot be taken for each other."""


@dataclass(frozen=True, slots=True)
class Denial:
    """A request exceeds a limit."""

    limit: str
    retry_after_s: int
    """Seconds until the next one may come; at least 1."""
    rate: str
    """As configured."""
    headers: tuple[tuple[bytes, bytes], ...]
    """Retry-After, RateLimit and RateLimit-Policy."""


class RateLimit:
    """One limit, and the buckets of its clients."""

    __slots__ = (
        "_ends_s",
        "_older",
        "_policy",
        "_younger",
        "burst",
        "clients_max",
        "header",
        "name",
        "prefix",
        "rate",
        "step_s",
    )

    def __init__(self, settings: LimitSettings, *, place: str, clients_max: int = CLIENTS_MAX) -> None:
        """Raises: SettingsError, naming `place`."""
        count, window_s = parse_rate(settings.rate, place)
        if settings.burst < 0:
            raise SettingsError(
                place,
                f"invalid burst {settings.burst}: 0 means one second's requests, else the number of requests at once",
            )
        if _NAME.fullmatch(settings.name) is None:
            raise SettingsError(place, f"invalid name {settings.name!r}: use 1 to 64 letters, digits, blanks and _.:/-")
        try:
            self.prefix = prefix_of(settings.path)
        except ValueError as error:
            raise SettingsError(place, str(error)) from None
        self.name = settings.name
        self.rate = settings.rate
        self.header = _parse_by(settings.by, place)
        self.step_s = window_s / count
        self.burst = settings.burst or max(1, count // window_s)
        self.clients_max = clients_max
        self._policy = f'"{self.name}";q={count};w={window_s}'.encode()
        self._younger: dict[Key, float] = {}
        self._older: dict[Key, float] = {}
        self._ends_s = -math.inf

    def key(self, headers: Headers, peer: str) -> Key:
        """The key of the client."""
        if self.header:
            value = headers.get(self.header)
            if value:
                return value if len(value) <= _KEY_BYTES_MAX else hashlib.blake2b(value, digest_size=16).digest()
        return peer if ":" not in peer else client_of(peer)

    def covers(self, path: str) -> bool:
        """Whether a canonical path is below this limit's."""
        return not self.prefix or is_below(self.prefix, path)

    def take(self, key: Key, now_s: float) -> float:
        """Take a token: 0, or the seconds until there is one. A refused request costs none."""
        if now_s >= self._ends_s or len(self._younger) >= self.clients_max:
            self._turn(now_s)
        full_s = self._younger.get(key)
        if full_s is None:
            full_s = self._older.get(key, now_s)
        full_s = (full_s if full_s > now_s else now_s) + self.step_s  # noqa: FURB136 (max costs three times as much)
        wait_s = full_s - now_s - self.burst * self.step_s
        if wait_s > 1e-9 * self.step_s:  # sums of steps are not exact
            self._younger[key] = full_s - self.step_s  # unchanged, but seen: not to be forgotten early
            return wait_s
        self._younger[key] = full_s
        return 0.0

    def deny(self, wait_s: float) -> Denial:
        """The refusal of a client that has to wait.

        Source: draft-ietf-httpapi-ratelimit-headers-11; RFC 9110 10.2.3 (Retry-After), RFC 6585 4 (429).
        """
        seconds = max(1, math.ceil(wait_s))
        headers = (
            (b"Retry-After", b"%d" % seconds),
            (b"RateLimit", b'"%s";r=0;t=%d' % (self.name.encode(), seconds)),
            (b"RateLimit-Policy", self._policy),
        )
        return Denial(self.name, seconds, self.rate, headers)

    @property
    def clients(self) -> int:
        """Buckets in memory."""
        return len(self._younger) + len(self._older)

    def _turn(self, now_s: float) -> None:
        window_s = self.burst * self.step_s
        # After a pause the younger ones are full as well.
        self._older = self._younger if now_s < self._ends_s + window_s else {}
        self._younger = {}
        self._ends_s = now_s + window_s


class RateLimits:
    """All limits of a server. A request must pass each that covers its path."""

    __slots__ = ("_limits", "_spelled")

    def __init__(self, limits: Iterable[RateLimit]) -> None:
        self._limits = tuple(limits)
        self._spelled = any(limit.prefix for limit in self._limits)

    def find_denial(self, headers: Headers, *, peer: str, path: str, now_s: float) -> Denial | None:
        """None if the request may pass; it is counted then. Asked in order: one that a limit refuses has been counted by
        those before it."""
        if self._spelled:
            path = canonical(path)
        for limit in self._limits:
            if limit.covers(path):
                wait_s = limit.take(limit.key(headers, peer), now_s)
                if wait_s:
                    return limit.deny(wait_s)
        return None


def limits_of(settings: WebSettings) -> Iterator[tuple[LimitSettings, str]]:
    """All limits of a server, in the order in which they are asked, each with how an error names it."""
    for index, limit in enumerate(settings.limits):
        yield limit, f"web.limits[{index}]"
    if settings.rate_limit:
        yield LimitSettings(rate=settings.rate_limit), flag_of("rate_limit")


def parse_rate(text: str, place: str) -> tuple[int, int]:
    """Requests, and in how many seconds.

    Raises: SettingsError.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise SettingsError(place, f"invalid rate {text!r}; use for example 100/s, 600/m, 5000/h or 20000/d")
    return int(found[1]), _UNITS_S[found[2]]


@lru_cache(maxsize=4_096)
def client_of(peer: str) -> str:
    """An IPv6 address's /64, or the IPv4 address that is mapped into it; anything else as it is."""
    try:
        address = IPv6Address(peer.partition("%")[0])
    except AddressValueError:
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex(":", 2) + "::/64"


def _parse_by(by: str, place: str) -> bytes:
    if by == "address":
        return b""
    found = _HEADER.fullmatch(by)
    if found is None:
        raise SettingsError(place, f"invalid by {by!r}: use address or header:X-Api-Key")
    return found[1].lower().encode()
