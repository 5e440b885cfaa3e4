"""Conditional requests and ranges (RFC 9110 sections 13 and 14). Pure: headers and a file's validators in, decisions out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

RANGES_MAX: Final = 16
"""Of one request. A PDF viewer asks for a few; hundreds are an attack (CVE-2011-3192)."""
_RANGE_BYTES_MAX: Final = 1_024
_DATE_BYTES_MAX: Final = 64
_TAG: Final = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_SPEC: Final = re.compile(rb"[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")

CONDITIONS: Final = frozenset(
    {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"range", b"if-range"}
)
"""Without any of these headers nothing here has a say."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What a representation is recognised by."""

    etag: bytes
    """With its quotes; weak ones with W/."""
    modified: bytes
    """Last-Modified as it is sent."""
    modified_s: int


class Span(NamedTuple):
    """Bytes `start` to `stop`, without `stop`."""

    start: int
    stop: int


class RangeRefused(Exception):
    """416: no range lies in the file, or they are too many or overlap."""


def precondition(headers: Mapping[bytes, bytes], validators: Validators) -> int:
    """What the headers' conditions make of a GET or HEAD, in the order of RFC 9110 13.2.2: 200, 304 or 412."""
    match = headers.get(b"if-match")
    if match is not None:
        if not _lists(match, validators.etag, strong=True):
            return 412
    elif (date := headers.get(b"if-unmodified-since")) is not None and not _is_since(validators, date, default=True):
        return 412
    none_match = headers.get(b"if-none-match")
    if none_match is not None:
        return 304 if _lists(none_match, validators.etag, strong=False) else 200
    date = headers.get(b"if-modified-since")
    return 304 if date is not None and _is_since(validators, date, default=False) else 200


def spans(headers: Mapping[bytes, bytes], validators: Validators, size: int) -> list[Span]:
    """The parts of the file that a GET asks for; empty: all of it (also for a Range that is malformed or outdated).

    Raises: RangeRefused.
    """
    header = headers.get(b"range")
    if header is None or len(header) > _RANGE_BYTES_MAX or not _same_file(headers.get(b"if-range"), validators):
        return []
    unit, equals, specs = header.partition(b"=")
    if not equals or unit.strip().lower() != b"bytes":
        return []
    found = _read_specs(specs, size)
    if found is not None:
        _check(found)
    return found or []


def _read_specs(specs: bytes, size: int) -> list[Span] | None:
    """The ranges that lie in the file, in the client's order; None if one is malformed."""
    found = []
    for spec in specs.split(b","):
        match = _SPEC.fullmatch(spec)
        if match is None or not (match[1] or match[2]):
            return None
        first, last = match[1], match[2]
        if first and last and int(last) < int(first):
            return None
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start < stop:
            found.append(Span(start, stop))
        if len(found) > RANGES_MAX:
            break
    return found


def _check(found: list[Span]) -> None:
    if not found:
        raise RangeRefused("no range lies in the file")
    if len(found) > RANGES_MAX:
        raise RangeRefused(f"at most {RANGES_MAX} ranges are answered at once")
    ordered = sorted(found)
    if any(before.stop > after.start for before, after in pairwise(ordered)):
        raise RangeRefused("the ranges overlap")


def _same_file(condition: bytes | None, validators: Validators) -> bool:
    """If-Range: only a strong tag, or the very date, keeps a range (RFC 9110 13.1.5)."""
    if condition is None:
        return True
    return condition in (validators.etag, validators.modified) and not condition.startswith(b"W/")


def _lists(header: bytes, etag: bytes, *, strong: bool) -> bool:
    """Whether a list of tags, or `*`, has this one."""
    if header == etag:
        return not (strong and etag.startswith(b"W/"))
    if header.strip() == b"*":
        return True
    if strong:
        return not etag.startswith(b"W/") and etag in _TAG.findall(header)
    bare = etag.removeprefix(b"W/")
    return any(tag.removeprefix(b"W/") == bare for tag in _TAG.findall(header))


def _is_since(validators: Validators, date: bytes, *, default: bool) -> bool:
    """Whether the file has not changed after `date`; `default` if that is no date: then the header has no effect."""
    if date == validators.modified:
        return True
    seconds = read_date(date)
    return default if seconds is None else validators.modified_s <= seconds


@lru_cache(maxsize=256)
def read_date(value: bytes) -> int | None:
    """Seconds since 1970 of an HTTP date, in any of its three forms (RFC 9110 5.6.7)."""
    if len(value) > _DATE_BYTES_MAX or not value.isascii():
        return None
    try:
        fields = parsedate_tz(value.decode())
        return None if fields is None else int(mktime_tz(fields))
    except (ValueError, OverflowError, IndexError, TypeError):  # what the standard library makes of hostile dates
        return None
