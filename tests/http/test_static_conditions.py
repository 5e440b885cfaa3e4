"""Conditions and ranges as rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.http.static_conditions import RANGES_MAX, RangeRefused, Span, Validators, precondition, read_date, spans

MODIFIED_S = 784_111_777
NOW = b"Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = b"Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = b"Sun, 06 Nov 1994 08:49:38 GMT"
STRONG = Validators(b'"x"', NOW, MODIFIED_S)
WEAK = Validators(b'W/"x"', NOW, MODIFIED_S)


@pytest.mark.parametrize(
    ("headers", "validators", "expected"),
    [
        ({}, STRONG, 200),
        ({b"if-match": b'"x"'}, STRONG, 200),
        ({b"if-match": b'"y", "x"'}, STRONG, 200),
        ({b"if-match": b"*"}, STRONG, 200),
        ({b"if-match": b'"y"'}, STRONG, 412),
        ({b"if-match": b'W/"x"'}, STRONG, 412),
        ({b"if-match": b'W/"x"'}, WEAK, 412),
        ({b"if-match": b'"x"'}, WEAK, 412),
        ({b"if-match": b"x"}, STRONG, 412),
        ({b"if-match": b'"x"', b"if-unmodified-since": BEFORE}, STRONG, 200),
        ({b"if-unmodified-since": BEFORE}, STRONG, 412),
        ({b"if-unmodified-since": NOW}, STRONG, 200),
        ({b"if-unmodified-since": AFTER}, STRONG, 200),
        ({b"if-unmodified-since": b"nonsense"}, STRONG, 200),
        ({b"if-none-match": b'"x"'}, STRONG, 304),
        ({b"if-none-match": b'W/"x"'}, STRONG, 304),
        ({b"if-none-match": b'"x"'}, WEAK, 304),
        ({b"if-none-match": b'"a,b", "x"'}, STRONG, 304),
        ({b"if-none-match": b"*"}, STRONG, 304),
        ({b"if-none-match": b'"y"'}, STRONG, 200),
        ({b"if-none-match": b'"y"', b"if-modified-since": AFTER}, STRONG, 200),
        ({b"if-modified-since": NOW}, STRONG, 304),
        ({b"if-modified-since": AFTER}, STRONG, 304),
        ({b"if-modified-since": BEFORE}, STRONG, 200),
        ({b"if-modified-since": b"nonsense"}, STRONG, 200),
        ({b"if-modified-since": b"Sunday, 06-Nov-94 08:49:38 GMT"}, STRONG, 304),
        ({b"if-modified-since": b"Sun Nov  6 08:49:38 1994"}, STRONG, 304),
        ({b"if-match": b'"y"', b"if-none-match": b'"x"'}, STRONG, 412),
    ],
)
def test_preconditions(headers: dict[bytes, bytes], validators: Validators, expected: int) -> None:
    assert precondition(headers, validators) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"bytes=0-0", [Span(0, 1)]),
        (b"bytes=0-", [Span(0, 100)]),
        (b"bytes=10-19", [Span(10, 20)]),
        (b"BYTES=10-19", [Span(10, 20)]),
        (b"bytes=90-200", [Span(90, 100)]),
        (b"bytes=-10", [Span(90, 100)]),
        (b"bytes=-1000", [Span(0, 100)]),
        (b"bytes=50-59,0-9", [Span(50, 60), Span(0, 10)]),
        (b"bytes=0-9, 200-300", [Span(0, 10)]),
        (b"bytes=0-9,10-19", [Span(0, 10), Span(10, 20)]),
        (b"lines=0-1", []),
        (b"bytes", []),
        (b"bytes=", []),
        (b"bytes=-", []),
        (b"bytes=a-b", []),
        (b"bytes=5-1", []),
        (b"bytes=0-9,", []),
        (b"bytes=0x1-2", []),
        (b"bytes=0-1_0", []),
        (b"bytes=+1-2", []),
        (b"bytes=1--2", []),
        (b"bytes=0-" + b"9" * 19, []),
        (b"bytes=" + b"0-0," * 1000, []),
    ],
)
def test_spans(header: bytes, expected: list[Span]) -> None:
    assert spans({b"range": header}, STRONG, 100) == expected


@pytest.mark.parametrize(
    "header",
    [
        b"bytes=100-",
        b"bytes=100-200",
        b"bytes=-0",
        b"bytes=0-10,5-20",
        b"bytes=0-,0-",
        b"bytes=" + b",".join(b"%d-%d" % (i, i) for i in range(0, 2 * RANGES_MAX + 2, 2)),
    ],
)
def test_ranges_refused(header: bytes) -> None:
    with pytest.raises(RangeRefused):
        spans({b"range": header}, STRONG, 100)


def test_empty_file_has_no_range() -> None:
    with pytest.raises(RangeRefused):
        spans({b"range": b"bytes=0-"}, STRONG, 0)


@pytest.mark.parametrize(
    ("condition", "validators", "holds"),
    [
        (b'"x"', STRONG, True),
        (NOW, STRONG, True),
        (b'"y"', STRONG, False),
        (BEFORE, STRONG, False),
        (AFTER, STRONG, False),
        (b'W/"x"', WEAK, False),
        (b'W/"x"', STRONG, False),
    ],
)
def test_if_range(condition: bytes, validators: Validators, holds: bool) -> None:
    assert bool(spans({b"range": b"bytes=0-1", b"if-range": condition}, validators, 100)) == holds


@given(st.binary(max_size=80) | st.from_regex(rb"bytes=[0-9,\- ]{0,40}", fullmatch=True), st.integers(0, 50))
@settings(max_examples=500)
def test_whatever_is_asked_spans_lie_in_the_file_apart(header: bytes, size: int) -> None:
    try:
        found = spans({b"range": header}, STRONG, size)
    except RangeRefused:
        return
    assert len(found) <= RANGES_MAX
    covered = [offset for span in found for offset in range(*span)]
    assert len(covered) == len(set(covered)) and all(0 <= offset < size for offset in covered)
    assert all(span.start < span.stop for span in found)


@given(st.binary(max_size=70) | st.text(max_size=40).map(str.encode))
@settings(max_examples=500)
def test_dates_of_any_kind_are_read_or_refused(value: bytes) -> None:
    read_date(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0",
        b"99 99 9999 99:99:99 GMT",
        b"Sun, 06 Nov 99999999 08:49:37 GMT",
        b"Mon, 00 Jan 0000 00:00:00 GMT",
        b"\xff",
    ],
)
def test_hostile_dates(value: bytes) -> None:
    read_date(value)


@given(
    st.dictionaries(st.sampled_from([b"if-match", b"if-none-match", b"if-modified-since", b"if-range"]), st.binary())
)
@settings(max_examples=200)
def test_whatever_the_conditions_say_there_is_an_answer(headers: dict[bytes, bytes]) -> None:
    assert precondition(headers, STRONG) in (200, 304, 412)
