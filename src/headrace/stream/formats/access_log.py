"""Lines of headrace's access log → rows; JSON and combined, also mixed in one file.

The columns are those of the JSON form; `path` is `target` without the query. The combined form (Apache's and nginx's, too)
knows ts, client, method, target, version, status, sent_bytes, referer and agent; the rest is NULL.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final

import msgspec
import pyarrow.compute as pc

from headrace.stream.errors import SchemaInvalid
from headrace.stream.formats.conform import conform, nullable, split_nulls
from headrace.stream.formats.decoding import ORIGIN_FIELD, Decoded, JsonDecoder
from headrace.stream.schema import ORIGIN, Schema

_LOGGED: Final = Schema.of(
    "ts timestamp NOT NULL, client string, method string, host string, target string, version string, status int,"
    " sent_bytes bigint, duration_s double, wait_s double, route string, referer string, agent string, request_id string"
)
ACCESS_LOG: Final = Schema((*_LOGGED.fields, *Schema.of("path string").fields))
"""What a source of this format may have as columns."""

_COMBINED: Final = re.compile(
    rb'(?P<client>\S+) \S+ \S+ \[(?P<ts>[^\]]+)\] "(?P<method>\S+) (?P<target>\S+) (?:HTTP/)?(?P<version>[^" ]+)"'
    rb' (?P<status>\d{3}) (?P<sent_bytes>\d+|-)(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?\s*'
)
_NO_LINE: Final = "neither a line of JSON nor one of the combined format"
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1
    )
}
_STAMP: Final = re.compile(r"(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")


class AccessLogDecoder:
    """See Decoder."""

    def __init__(self, schema: Schema) -> None:
        """Raises SchemaInvalid: the log has no such column."""
        for field in schema.fields:
            if ACCESS_LOG.find(field.name) is None:
                raise SchemaInvalid(str(schema), f"an access log has no {field.name!r}; it has {ACCESS_LOG.names}")
        self._schema = schema
        self._json = JsonDecoder(_LOGGED)

    def decode(self, bodies: Sequence[bytes], first: int = 0) -> Decoded:
        decoded = self._json.decode([line if line.startswith(b"{") else _as_json(line) for line in bodies], first)
        target = decoded.rows.column("target")
        table = decoded.rows.append_column("path", pc.replace_substring_regex(target, r"\?.*", ""))
        rows = conform(table, nullable(self._schema)).append_column(ORIGIN_FIELD, table.column(ORIGIN))
        rows, absent = split_nulls(rows, self._schema)
        bad = [(line, reason if bodies[line - first].startswith(b"{") else _NO_LINE) for line, reason in decoded.bad]
        return Decoded(rows, sorted(bad + absent))


def _as_json(line: bytes) -> bytes:
    """A combined line as the JSON form; one that is none stays as it is, and is no JSON either."""
    found = _COMBINED.fullmatch(line)
    if found is None:
        return line or b"-"
    values = {name: value.decode("utf-8", "replace") for name, value in found.groupdict().items() if value is not None}
    try:
        stamp = _iso(values["ts"])
    except ValueError:
        return line
    sent = 0 if values["sent_bytes"] == "-" else int(values["sent_bytes"])
    texts = {name: None if values.get(name) == "-" else values.get(name) for name in ("referer", "agent")}
    version = "2" if values["version"] == "2.0" else values["version"]
    numbers = {"ts": stamp, "status": int(values["status"]), "sent_bytes": sent, "version": version}
    return msgspec.json.encode({**values, **texts, **numbers})


def _iso(stamp: str) -> str:
    """`10/Oct/2000:13:55:36 -0700` in ISO 8601, whatever the locale. Raises ValueError."""
    found = _STAMP.fullmatch(stamp)
    if found is None or found[2] not in _MONTHS:
        raise ValueError(stamp)
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
    text = f"{year}-{_MONTHS[month]:02}-{day}T{hour}:{minute}:{second}{sign}{zone_hours}:{zone_minutes}"
    dt.datetime.fromisoformat(text)
    return text
