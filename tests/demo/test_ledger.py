"""The ledger can fail: each kind of loss, planted, is found and named."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from demo.flights import YEAR
from demo.ledger import ACCEPTED, CUT, FAILED, PUT_OFF, REPEATED, Audit, Event, Page, Processed, Reader, audit, read
from demo.report import differences
from demo.run import Outcome
from demo.shapes import Filed, Flight, Window
from demo.windows import WindowAudit, audit_windows, one_shot, read_parquet

GOOD = [Event(ACCEPTED, "EWR-1", (0, 3)), Event(PUT_OFF, "JFK-1"), Event(CUT, "JFK-1"), Event(REPEATED, "JFK-1", (2,))]
TIMES: Mapping[str, Mapping[int, int]] = {"EWR-1": {0: 1, 3: 1}, "JFK-1": {2: 1}}
CLEAN = Audit(accepted=2, flights=3, processed=2, put_off=1, cut=1, repeated=1)


def filed(row: int, request: str) -> bytes:
    return msgspec.json.encode(Filed.of(Flight(row, YEAR, "EWR", "IAH", "UA", 1, None, 2.0, None), request))


def test_audit_of_a_clean_run_holds() -> None:
    assert audit(GOOD, TIMES) == CLEAN
    assert CLEAN.holds


def test_audit_does_not_depend_on_the_order_of_lines() -> None:
    assert audit(reversed(GOOD), TIMES) == CLEAN


@pytest.mark.parametrize(
    ("events", "times", "wrong"),
    [
        (GOOD, {"EWR-1": {0: 1, 3: 1}}, {"lost": ["JFK-1"], "processed": 1}),
        (GOOD, {**TIMES, "EWR-1": {0: 1}}, {"lost": ["EWR-1"], "processed": 1}),
        (GOOD, {**TIMES, "EWR-1": {0: 1, 3: 2}}, {"twice": ["EWR-1"]}),
        (GOOD, {**TIMES, "LGA-1": {5: 1}}, {"strange": ["LGA-1"]}),
        (GOOD, {**TIMES, "JFK-1": {2: 1, 9: 1}}, {"strange": ["JFK-1"]}),
        ([*GOOD, Event(PUT_OFF, "LGA-2")], TIMES, {"unheard": ["LGA-2"], "put_off": 2}),
        ([*GOOD, Event(CUT, "LGA-2")], TIMES, {"unheard": ["LGA-2"], "cut": 2}),
        ([*GOOD, Event(FAILED, "LGA-2")], TIMES, {"failed": 1}),
    ],
    ids=["request-lost", "row-lost", "row-twice", "request-unknown", "row-unknown", "put-off", "cut", "failed"],
)
def test_audit_finds_and_names_what_is_wrong(
    events: list[Event], times: Mapping[str, Mapping[int, int]], wrong: dict[str, object]
) -> None:
    found = audit(events, times)
    assert found == replace(CLEAN, **wrong)  # type: ignore[arg-type]
    assert not found.holds


def test_a_ledger_with_one_line_removed_does_not_hold(tmp_path: Path) -> None:
    page = Page(tmp_path, "EWR")
    for event in GOOD:
        page.write(event)
    page.close()
    assert audit(read(tmp_path), TIMES).holds
    file = tmp_path / "EWR.ledger"
    lines = file.read_text().splitlines(keepends=True)
    for gone in (0, 3):
        file.write_text("".join(line for place, line in enumerate(lines) if place != gone))
        assert not audit(read(tmp_path), TIMES).holds


def test_a_ledger_is_read_while_it_is_written_line_by_line(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert list(reader.news()) == []
    page = Page(tmp_path, "EWR")
    page.write(GOOD[0])
    assert list(reader.news()) == GOOD[:1]
    with (tmp_path / "EWR.ledger").open("a") as file:
        file.write("accepted LGA")
        file.flush()
        assert list(reader.news()) == []
        file.write("-1 7\n")
    assert list(reader.news()) == [Event(ACCEPTED, "LGA-1", (7,))]
    assert list(reader.news()) == []
    page.close()


def test_what_was_processed_is_counted_by_request_and_row_and_the_end_of_the_year_is_not() -> None:
    processed = Processed()
    processed.add([filed(0, "EWR-1"), filed(3, "EWR-1"), filed(-1, "")])
    processed.add([filed(3, "EWR-1")])
    assert processed.times == {"EWR-1": {0: 1, 3: 2}}
    assert processed.flights == 3


RIGHT = list(one_shot([0, 1]).values())
WRONG = msgspec.structs.replace(RIGHT[0], flights=2)
MORE = Window(dt.datetime(2014, 1, 1, tzinfo=dt.UTC), "EWR", 1, 1, 1.0)


def test_one_shot_is_a_plain_count_of_the_data() -> None:
    found = one_shot([0, 1, 2])
    assert {key: (window.flights, window.delay) for key, window in found.items()} == {
        ("2013-01-01", "EWR"): (1, 2.0),
        ("2013-01-01", "LGA"): (1, 4.0),
        ("2013-01-01", "JFK"): (1, 2.0),
    }


def test_windows_that_are_equal_hold() -> None:
    found = audit_windows(RIGHT, reversed(RIGHT), one_shot([0, 1]), late=0)
    assert found == WindowAudit(expected=2, closed=2)
    assert found.holds


@pytest.mark.parametrize(
    ("queue", "parquet", "late", "wrong"),
    [
        (RIGHT[:1], RIGHT, 0, "differ"),
        ([WRONG, RIGHT[1]], RIGHT, 0, "differ"),
        ([*RIGHT, MORE], [*RIGHT, MORE], 0, "differ"),
        ([*RIGHT, RIGHT[0]], RIGHT, 0, "twice"),
        (RIGHT, [*RIGHT, RIGHT[1]], 0, "twice"),
        (RIGHT, RIGHT[1:], 0, "parquet_differs"),
        (RIGHT, [WRONG, RIGHT[1]], 0, "parquet_differs"),
        (RIGHT, RIGHT, 1, "late"),
    ],
)
def test_windows_that_are_wrong_missing_doubled_or_late_are_found(
    queue: list[Window], parquet: list[Window], late: int, wrong: str
) -> None:
    found = audit_windows(queue, parquet, one_shot([0, 1]), late=late)
    assert getattr(found, wrong)
    assert not found.holds


def test_no_folder_holds_no_windows(tmp_path: Path) -> None:
    assert read_parquet(tmp_path / "delays") == []


def outcome(**wrong: object) -> Outcome:
    good = Outcome(
        audit=CLEAN, windows=WindowAudit(2, 2), harm=[], poison=2, letters=2, unexplained_letters=[], seconds=1.0,
        exit_code=0, rate=1.0,
    )  # fmt: skip
    return replace(good, **wrong)  # type: ignore[arg-type]


def test_a_run_holds_only_if_ledger_windows_letters_and_the_end_do() -> None:
    assert outcome().holds
    assert differences(outcome()) == []
    for wrong in (
        {"audit": replace(CLEAN, lost=["EWR-1"])},
        {"windows": WindowAudit(2, 2, differ=[("2013-01-01", "EWR")])},
        {"unexplained_letters": ["poison-1"]},
        {"exit_code": 1},
        {"undone": ["spike"]},
    ):
        assert not outcome(**wrong).holds
        [line] = differences(outcome(**wrong))
        assert line


def test_differences_are_named_a_few_of_many() -> None:
    [line] = differences(outcome(audit=replace(CLEAN, lost=[f"EWR-{number}" for number in range(12)])))
    assert line == "lost: EWR-0, EWR-1, EWR-2, EWR-3, EWR-4 and 7 more"
    [line] = differences(outcome(windows=WindowAudit(2, 2, differ=[("2013-01-01", "EWR")])))
    assert line == "windows that differ: 2013-01-01 EWR"
