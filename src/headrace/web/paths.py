"""URL paths in canonical form: how routes, rate limits and durable rules compare them. Pure."""

from __future__ import annotations

import re
from typing import Final

_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_DOTS: Final = re.compile(r"/(\.|%2[eE])")
_SLASHES: Final = re.compile(r"//+")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH: Final = re.compile(r"/[!$&'()*+,;=:@~._%A-Za-z0-9/-]*")


def canonical(path: str) -> str:
    """A path as applications understand it: no needless escapes, no dot segments, single slashes. Idempotent.

    An escaped slash stays one: it is a part of a segment.

    Source: RFC 3986 6.2.2; merging slashes is what nginx does, and many applications.
    """
    if "%" in path:
        path = _ESCAPED.sub(_unescape, path)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    return _without_dots(path) if "/." in path else path


def is_below(prefix: str, path: str) -> bool:
    """Whether a canonical path is the prefix or continues it at a slash: `/api` has `/api/x` below it, not `/apis`."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("/", "")


def strip_prefix(prefix: str, path: str) -> str:
    """Strip `prefix` from a path that matched it; the result is never empty.

    As sent, as far as possible: only where dots climb, or the prefix itself was spelled oddly, canonical.
    """
    rest = path[len(prefix) :]
    if not path.startswith(prefix) or rest[:1] not in ("/", "") or _DOTS.search(rest) is not None:
        rest = canonical(path)[len(prefix) :]
    return rest or "/"


def prefix_of(path: str) -> str:
    """The canonical prefix of a configured path: without its last slash.

    Raises: ValueError: it is no path.
    """
    if _PATH.fullmatch(path) is None:
        raise ValueError(f"{path!r} is not a path: /, /api or /a/b, percent-encoded")
    return canonical(path).rstrip("/")


def _unescape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
