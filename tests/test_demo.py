"""The demo's ledger can fail, and the demo itself loses nothing."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from demo import flights
from demo.ledger import ACCEPTED, CUT, DELETED, DELIVERED, Audit, Event, Page, audit, read
from demo.pipeline import Window, audit_windows, one_shot
from demo.view import curve

ROOT = Path(__file__).parent.parent
GOOD = [
    Event(ACCEPTED, 1, 0, "a"),
    Event(ACCEPTED, 1, 1, "b"),
    Event(DELIVERED, 2, 0, "a", 1),
    Event(DELIVERED, 2, 1, "b", 1),
    Event(DELETED, 3, 0, "a"),
    Event(DELETED, 3, 1, "b"),
]
CLEAN = Audit(
    flights=2, accepted=2, processed=2, lost=0, redelivered=0, revived=0, cut=0, cut_stored=0, strange=0,
    flights_missing=0,
)  # fmt: skip


def test_audit_of_a_clean_run_holds() -> None:
    found = audit(GOOD, flights=2)
    assert found == CLEAN
    assert found.holds


def test_audit_does_not_depend_on_the_order_of_lines() -> None:
    assert audit(reversed(GOOD), flights=2) == CLEAN


def test_audit_counts_an_accepted_message_that_was_never_processed_as_lost() -> None:
    found = audit(GOOD[:-1], flights=2)
    assert (found.lost, found.flights_missing, found.holds) == (1, 1, False)


def test_audit_counts_a_delivery_asked_for_after_the_delete_was_answered() -> None:
    found = audit([*GOOD, Event(DELIVERED, 4, 0, "a", 2)], flights=2)
    assert found == replace(CLEAN, redelivered=1, revived=1)
    assert not found.holds


def test_audit_allows_a_redelivery_before_the_delete() -> None:
    found = audit([*GOOD, Event(DELIVERED, 2, 0, "a", 2)], flights=2)
    assert found == replace(CLEAN, redelivered=1)
    assert found.holds


def test_audit_counts_a_delivery_that_nobody_saw_by_the_receive_count() -> None:
    events = [event._replace(receives=3) if event.kind == DELIVERED and event.id == "a" else event for event in GOOD]
    assert audit(events, flights=2) == replace(CLEAN, redelivered=2)


def test_audit_explains_a_second_id_of_a_flight_by_a_cut_send() -> None:
    second = [Event(DELIVERED, 5, 1, "c", 1), Event(DELETED, 6, 1, "c")]
    found = audit([*GOOD, Event(CUT, 1, 1), *second], flights=2)
    assert found == replace(CLEAN, processed=3, cut=1, cut_stored=1)
    assert found.holds


def test_audit_finds_a_message_that_nobody_sent() -> None:
    found = audit([*GOOD, Event(DELIVERED, 5, 1, "c", 1), Event(DELETED, 6, 1, "c")], flights=2)
    assert (found.strange, found.holds) == (1, False)


def test_audit_finds_a_message_with_another_ones_body() -> None:
    events = [event._replace(row=1) if event.kind == DELIVERED else event for event in GOOD]
    assert audit(events, flights=2).strange == 1


def test_audit_finds_a_missing_flight() -> None:
    found = audit(GOOD, flights=3)
    assert (found.flights_missing, found.holds) == (1, False)


def test_ledger_reads_back_what_workers_wrote(tmp_path: Path) -> None:
    for worker, event in (("producer 1", GOOD[0]), ("consumer 1", GOOD[2])):
        page = Page(tmp_path, worker)
        page.write(event)
        page.close()
    assert sorted(read(tmp_path)) == sorted([GOOD[0], GOOD[2]])


def test_flights_are_numbered_rows_of_the_package() -> None:
    first, second = flights.read(2)
    assert first.startswith(b'{"row":0,"year":2013,"month":1,"day":1,"dep_time":517,')
    assert second.startswith(b'{"row":1,')


def test_flights_come_in_the_order_of_the_year() -> None:
    months = [msgspec.json.decode(body)["month"] for body in flights.read(90_000)]
    assert months == sorted(months)
    assert set(months) == {1, 2, 3, 4}


def test_one_shot_windows_count_a_flight_as_often_as_it_was_a_message() -> None:
    expected = one_shot([0, 1, 1])
    assert {key: window.flights for key, window in expected.items()} == {
        ("2013-01-01", "EWR"): 1,
        ("2013-01-01", "LGA"): 2,
    }
    assert expected["2013-01-01", "LGA"].delay == 4.0


def test_window_audit_finds_wrong_missing_and_doubled_windows() -> None:
    expected = one_shot([0, 1])
    right = list(expected.values())
    wrong = msgspec.structs.replace(right[0], flights=2)
    assert audit_windows(right, expected, late=0).holds
    assert not audit_windows(right, expected, late=1).holds
    assert not audit_windows(right[:1], expected, late=0).holds
    assert not audit_windows([wrong, right[1]], expected, late=0).holds
    doubled = audit_windows([*right, right[0]], expected, late=0)
    assert (doubled.twice, doubled.holds) == (1, False)
    assert not audit_windows(
        [*right, Window(dt.datetime(2014, 1, 1, tzinfo=dt.UTC), "EWR", 1, 1, 1.0)], expected, late=0
    ).holds


def test_curve_is_blocks_of_height() -> None:
    assert curve([0, 1, 2, 4, 8], 8) == " ▁▂▄█"


def test_demo_loses_nothing_when_broker_and_pipeline_are_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "--flights", "4000", "--kills", "2", "--rate", "2000", "--plain"]
    done = subprocess.run(
        [*command, "--clients", "boto3,native", "--data", str(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("broker killed with SIGKILL") == 2
    assert done.stdout.count("pipeline killed with SIGKILL") == 1
    assert "Nothing was lost, every window is right. 4,000 flights, 3 SIGKILL" in done.stdout
