"""Lines of the access log → rows."""

from __future__ import annotations

import datetime as dt

import pytest

from headrace.stream.errors import SchemaInvalid
from headrace.stream.formats.access_log import ACCESS_LOG, AccessLogDecoder
from headrace.stream.schema import ORIGIN, Schema

at = dt.datetime.fromisoformat

COMBINED = b'1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET /a?b=1 HTTP/1.1" 200 2326 "-" "curl \\x22q"'
JSON = b'{"ts":"2000-10-10T20:55:36Z","client":"::1","target":"/x?y","status":404,"duration_s":0.5,"wait_s":0}'


def test_both_forms_are_rows_of_one_schema() -> None:
    schema = Schema.of(
        "ts timestamp, client string, method string, path string, status int, duration_s double, agent string"
    )
    decoded = AccessLogDecoder(schema).decode([COMBINED, JSON])
    moment = at("2000-10-10T20:55:36")
    assert [tuple(row.values()) for row in decoded.rows.to_pylist()] == [
        (moment, "1.2.3.4", "GET", "/a", 200, None, "curl \\x22q", 0),
        (moment, "::1", None, "/x", 404, 0.5, None, 1),
    ]


def test_lines_that_are_none_are_bad_alone() -> None:
    lines = [b"junk", b'{"ts":1', COMBINED.replace(b"Oct", b"Okt"), COMBINED.replace(b"10/", b"99/"), b"{}", COMBINED]
    decoded = AccessLogDecoder(Schema.of("ts timestamp, method string NOT NULL")).decode([*lines, JSON], first=10)
    assert [origin for origin, _ in decoded.bad] == [10, 11, 12, 13, 14, 16]
    assert decoded.rows.column(ORIGIN).to_pylist() == [15]


def test_a_column_that_no_log_has_is_refused_with_those_it_has() -> None:
    with pytest.raises(SchemaInvalid, match="duration_s"):
        AccessLogDecoder(Schema.of("latency double"))


def test_every_column_of_the_log_can_be_asked_for() -> None:
    assert AccessLogDecoder(ACCESS_LOG).decode([COMBINED]).rows.column_names == [*ACCESS_LOG.names, ORIGIN]
