"""Paths to pages, and what a request carries: query, form, cookies. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote

_FIELDS_MAX: Final = 2_000  # of a form: as many letters as one press moves, and more
_NAME: Final = re.compile(r"\\{([a-z_]+)\\}")


class HasPath(Protocol):
    """A page or an action."""

    @property
    def path(self) -> str: ...


T = TypeVar("T", bound=HasPath)


class Table(Generic[T]):
    """Pages, or actions, by their paths; `{name}` in a path takes one part of it. Fixed parts win over names."""

    def __init__(self, entries: Sequence[T]) -> None:
        ordered = sorted(entries, key=lambda entry: (entry.path.count("{"), entry.path))
        self._entries = [(re.compile(_NAME.sub(r"(?P<\1>[^/]+)", re.escape(entry.path))), entry) for entry in ordered]

    def find(self, path: str) -> tuple[T, dict[str, str]] | None:
        """The entry of a path (as sent), and the names in it, decoded; None: there is none."""
        for pattern, entry in self._entries:
            found = pattern.fullmatch(path)
            if found is not None:
                return entry, {name: unquote(value, errors="replace") for name, value in found.groupdict().items()}
        return None


def query_of(text: str) -> dict[str, str]:
    """The last value of each name. Raises ValueError: too many fields."""
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX))


def form_of(body: bytes) -> dict[str, list[str]]:
    """All values of each name of a form as browsers post it. Raises ValueError: no such form."""
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX):
        found.setdefault(name, []).append(value)
    return found


def cookie_of(headers: Mapping[bytes, bytes], name: str) -> str:
    """The value of a cookie; empty without one."""
    # Engines join repeated Cookie headers by a comma; ours has only what base64url has.
    for piece in re.split(r"[;,]", headers.get(b"cookie", b"").decode("latin-1")):
        key, _, value = piece.strip().partition("=")
        if key == name:
            return value
    return ""


def local_place(text: str, default: str = "/") -> str:
    """A path of ours to go to next, or the default: a form must not send anybody elsewhere."""
    return (
        text if re.fullmatch(r"/(?:[A-Za-z0-9._~%!$&'()*+,;=:@?-][A-Za-z0-9._~%!$&'()*+,;=:@?/-]*)?", text) else default
    )
