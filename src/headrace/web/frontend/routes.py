"""Finds the route of a request: the most specific host, then the longest path. Pure.

Everything is decided when the table is built: for each host that is named, the list of all routes that could answer it,
best first. A request costs one dictionary look-up and, on average, one comparison; where a single route takes
everything, nothing.

Paths are compared in a canonical form, as an application would understand them: `/%61pi`, `//api` and `/x/../api` are
`/api`. Otherwise a client could choose by spelling which route, and which rate limit, its request falls under.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from headrace.settings import SettingsError
from headrace.web.paths import canonical, is_below, prefix_of
from headrace.web.settings import RouteSettings, WebSettings

T = TypeVar("T")

_HOSTS_CACHED_MAX: Final = 1_024
"""Host headers whose routes are remembered; clients invent them, so not without end. 1,024 are about 100 KB."""
_HOST: Final = re.compile(r"(\*\.)?([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])")


@dataclass(frozen=True, slots=True)
class Route(Generic[T]):
    """A route, ready to compare."""

    settings: RouteSettings
    to: T
    """What answers."""
    host: str
    prefix: str
    """Canonical and without its last slash: `` for `/`, `/api`."""
    label: str
    """For metrics and logs: host and path as configured."""

    def matches(self, path: str) -> bool:
        """Whether a canonical path is this route's."""
        return is_below(self.prefix, path)


class RouteTable(Generic[T]):
    """All routes of a server. Immutable but for a cache; a reload builds another one."""

    __slots__ = ("_any", "_cache", "_exact", "_wildcards", "only", "routes")

    def __init__(self, routes: Iterable[tuple[RouteSettings, T]]) -> None:
        """Build from what `routes_of` gives, in this order.

        Raises: SettingsError: two routes are the same.
        """
        self.routes = tuple(_read(settings, to) for settings, to in routes)
        _refuse_duplicates(self.routes)
        ordered = sorted(self.routes, key=lambda route: -len(route.prefix))
        self._any = tuple(route for route in ordered if not route.host)
        wildcards = {route.host[1:] for route in ordered if route.host.startswith("*")}
        # `.b.example.org` before `.example.org`
        self._wildcards = {
            suffix: tuple(route for route in ordered if route.host == "*" + suffix)
            for suffix in sorted(wildcards, key=len, reverse=True)
        }
        exact = {route.host for route in ordered if route.host and not route.host.startswith("*")}
        self._exact = {host: tuple(route for route in ordered if route.host == host) for host in exact}
        self._cache: dict[bytes, tuple[Route[T], ...]] = {}
        self.only: Route[T] | None = _find_only(self.routes)
        """The one that answers whatever the host and path, if the table is as simple as that."""

    def find(self, host: bytes, path: str) -> Route[T] | None:
        """The route of a request; `host` as in its header, `path` as sent."""
        if self.only is not None:
            return self.only
        path = canonical(path)
        for route in self._cache.get(host) or self._candidates(host):
            if route.matches(path):
                return route
        return None

    def serves(self, host: bytes) -> bool:
        """Whether any path of this host has a route: if not, the client has come to the wrong server (421)."""
        return bool(self._candidates(host))

    def _candidates(self, host: bytes) -> tuple[Route[T], ...]:
        name = host_name(host)
        found = self._exact.get(name, ())
        for suffix, routes in self._wildcards.items():
            if name.endswith(suffix):
                found += routes
        found += self._any
        if len(self._cache) >= _HOSTS_CACHED_MAX:
            self._cache.clear()
        self._cache[host] = found
        return found


def routes_of(settings: WebSettings) -> tuple[RouteSettings, ...]:
    """All routes of a server: the configured ones, and last what `app` or `proxy` answers: everything else.

    Raises:
        SettingsError: a route has not exactly one of app, static and proxy, its host, path or priority cannot be, or there
            is nothing to serve.
    """
    for index, route in enumerate(settings.routes):
        _check(route, place_of(index, settings))
    rest = _default_route(settings)
    if rest is None and not settings.routes:
        raise SettingsError(
            "web.app", "nothing to serve: give an app (module:app), a folder, --proxy or [[web.routes]]"
        )
    return settings.routes if rest is None else (*settings.routes, rest)


def place_of(index: int, settings: WebSettings) -> str:
    """The name of a route of `routes_of` in error messages."""
    if index < len(settings.routes):
        return f"web.routes[{index}]"
    return "web.proxy" if settings.proxy else "web.app"


def apps_of(settings: WebSettings) -> tuple[str, ...]:
    """The apps that the routes name, each once."""
    return tuple(dict.fromkeys(route.app for route in routes_of(settings) if route.app))


def _default_route(settings: WebSettings) -> RouteSettings | None:
    if settings.app and settings.proxy:
        raise SettingsError(
            "web.proxy", f"both an app ({settings.app}) and --proxy: give one of them a path in [[web.routes]]"
        )
    if settings.proxy:
        return RouteSettings(proxy=settings.proxy)
    if not settings.app:
        return None
    if is_folder(settings.app):
        return RouteSettings(static=settings.app, cache_control=settings.cache_control, index=settings.index)
    return RouteSettings(app=settings.app)


def is_folder(app: str) -> bool:
    """Whether `app` is a folder, not `module:app`."""
    return ":" not in app and Path(app).is_dir()


def _check(route: RouteSettings, place: str) -> None:
    given = [name for name in ("app", "static", "proxy") if getattr(route, name)]
    if len(given) != 1:
        raise SettingsError(
            place, f"a route needs exactly one of app, static and proxy; this has {' and '.join(given) or 'none'}"
        )
    if route.host and _HOST.fullmatch(route.host.lower().removesuffix(".")) is None:
        raise SettingsError(place, f"invalid host {route.host!r}: use a name without port, or *.name")
    if not 0 <= route.priority <= 2:
        raise SettingsError(place, f"invalid priority {route.priority}: 0 is first, 1 normal, 2 last")
    try:
        prefix_of(route.path)
    except ValueError as error:
        raise SettingsError(place, str(error)) from None


def host_name(host: bytes) -> str:
    """The name in a Host header: lower case, without port and without the root's dot."""
    name = host.decode("latin-1").lower()
    end = name.find("]") + 1 if name.startswith("[") else name.find(":")
    return (name[:end] if end > 0 else name).removesuffix(".")


def _read(settings: RouteSettings, to: T) -> Route[T]:
    prefix = prefix_of(settings.path)
    host = settings.host.lower().removesuffix(".")
    return Route(settings, to, host, prefix, host + (prefix or "/"))


def _refuse_duplicates(routes: Sequence[Route[T]]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for index, route in enumerate(routes):
        first = seen.setdefault((route.host, route.prefix), index)
        if first != index:
            other = routes[first]
            reason = (
                f"{_what(route)} has the host and path of web.routes[{first}], {_what(other)}: one of them has to go"
            )
            raise SettingsError(f"web.routes[{index}]", reason)


def _what(route: Route[T]) -> str:
    settings = route.settings
    return f"{route.label} ({settings.app or settings.static or ', '.join(settings.proxy)})"


def _find_only(routes: Sequence[Route[T]]) -> Route[T] | None:
    if len(routes) == 1 and not routes[0].host and not routes[0].prefix:
        return routes[0]
    return None
