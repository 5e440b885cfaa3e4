"""Points in time: the fast way and the precise way agree, and what is no time is refused."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.formats import timestamps

EPOCH = dt.datetime.fromisoformat("1970-01-01")


def us(text: str) -> int:
    return (dt.datetime.fromisoformat(text) - EPOCH) // dt.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2013-01-01T05:00:00Z", "2013-01-01T05:00:00"),
        ("2013-01-01T05:00:00-05:00", "2013-01-01T10:00:00"),
        ("2013-01-01 05:00:00.5", "2013-01-01T05:00:00.500000"),
        ("2013-01-01", "2013-01-01T00:00:00"),
        ("2013-01-01T05:00:00.123456789Z", "2013-01-01T05:00:00.123456"),
        (1357016400, "2013-01-01T05:00:00"),
        (1357016400.25, "2013-01-01T05:00:00.250000"),
        (1357016400123, "2013-01-01T05:00:00.123000"),
        (1357016400123456, "2013-01-01T05:00:00.123456"),
        (1357016400123456789, "2013-01-01T05:00:00.123456"),
        (-1, "1969-12-31T23:59:59"),
        (0, "1970-01-01T00:00:00"),
    ],
)
def test_text_and_epochs_are_moments_in_utc(value: str | float, moment: str) -> None:
    assert timestamps.build([value, None]).to_pylist() == [dt.datetime.fromisoformat(moment), None]


@pytest.mark.parametrize(
    "value", ["", "x", "2013", "2013-02-30", "2013-01-01T25:00:00", "2013-W01-1", "20130101", "0000-01-01", 1 - 10**11]
)
def test_what_is_no_moment_is_refused(value: str | float) -> None:
    with pytest.raises(ValueError, match=r"."):
        timestamps.build([value])


def test_texts_with_and_without_zone_may_stand_together() -> None:
    found = timestamps.build(["2013-01-01T01:00:00+01:00", "2013-01-01T00:00:00", 1356998400])
    assert set(found.to_pylist()) == {dt.datetime.fromisoformat("2013-01-01")}


@settings(max_examples=60)
@given(
    st.datetimes(),
    st.sampled_from(["", "Z", "+00:00", "+0530", "-08"]),
    st.sampled_from(["T", " "]),
    st.sampled_from(["auto", "hours", "minutes", "seconds", "milliseconds", "microseconds"]),
)
def test_the_fast_way_gives_what_the_precise_one_gives(
    moment: dt.datetime, zone: str, between: str, digits: str
) -> None:
    text = moment.isoformat(between, digits) + zone
    try:
        precise = timestamps.to_us(text)
    except ValueError:  # the zone moves it out of the years 1 to 9999
        with pytest.raises(ValueError, match="years"):
            timestamps.build([text])
        return
    assert timestamps.build([text]).cast("int64").to_pylist() == [precise]
