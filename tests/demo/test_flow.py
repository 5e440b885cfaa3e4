"""The parts of the demo by themselves: data, task, web app, progress."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

import headrace
from demo import app as web
from demo import flights, harm
from demo.ledger import ACCEPTED, CUT, Event
from demo.progress import Progress
from demo.run import _unexplained
from demo.shapes import LETTERS, TOPIC, Departures, Filed
from demo.tasks import app as tasks
from demo.tasks import file_departures, prepare
from demo.view import curve
from headrace.work.broker_backend import BrokerBackend


@pytest.fixture
def client(tmp_path: Path) -> Iterator[headrace.Client]:
    with headrace.connect(tmp_path / "data") as client, tasks.on(BrokerBackend(client)):
        client.topic(TOPIC, create=True, retention="1 day")
        yield client


def departures(count: int = 3) -> Departures:
    return Departures("EWR", list(islice(flights.read(airport="EWR"), count)))


def ask(method: str, path: str, body: bytes = b"", key: str = "") -> tuple[int, Any]:
    """A request to the web app: (status, JSON)."""
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    headers = [(b"idempotency-key", key.encode())] if key else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(web.app(scope, receive, send))
    return told[0]["status"], msgspec.json.decode(told[1]["body"])


def published(client: headrace.Client) -> list[Filed]:
    return [message.json(Filed) for message in client.topic(TOPIC).log()]


def test_flights_come_hour_by_hour_and_an_airport_has_its_own() -> None:
    some = list(islice(flights.read(), 2_000))
    assert [flight.time_hour for flight in some] == sorted(flight.time_hour for flight in some)
    assert {flight.origin for flight in some} == {"EWR", "JFK", "LGA"}
    of_one = list(islice(flights.hours("LGA"), 5))
    assert all({flight.origin for flight in hour} == {"LGA"} for hour in of_one)
    assert all(len({flight.time_hour for flight in hour}) == 1 for hour in of_one)
    assert [flight for hour in of_one for flight in hour] == list(
        islice((flight for flight in some if flight.origin == "LGA"), sum(map(len, of_one)))
    )


def test_a_limit_takes_the_first_lines_of_the_data() -> None:
    rows = [flight.row for flight in flights.read(1_000)]
    assert sorted(rows) == list(range(1_000))
    assert sum(len(hour) for airport in ("EWR", "JFK", "LGA") for hour in flights.hours(airport, 1_000)) == 1_000


def test_what_is_posted_is_published_flight_by_flight_once(client: headrace.Client) -> None:
    body = msgspec.json.encode(departures())
    first = ask("POST", "/departures", body, "EWR-1")
    assert (first[0], first[1]["repeated"]) == (202, False)
    tasks.run_pending()
    again = ask("POST", "/departures", body, "EWR-1")  # long after it was done
    assert again == (202, {"task": first[1]["task"], "repeated": True})
    tasks.run_pending()
    assert [(flight.row, flight.request) for flight in published(client)] == [
        (flight.row, "EWR-1") for flight in departures().flights
    ]


@pytest.mark.parametrize(
    ("body", "key", "said"),
    [
        (b'{"airport": "EWR", "flights": []}', "", "Idempotency-Key"),
        (b'{"airport": "XXX", "flights": []}', "k", "XXX"),
        (b'{"airport": "EWR", "flights": [{"row": 1}]}', "k", "time_hour"),
        (b"no json", "k", "JSON"),
    ],
)
def test_what_is_no_departures_is_refused_with_the_reason(
    client: headrace.Client, body: bytes, key: str, said: str
) -> None:
    status, answer = ask("POST", "/departures", body, key)
    assert (status, said in answer["error"]) == (400, True)
    assert ask("GET", "/nothing")[0] == 404


def test_flights_from_nowhere_are_dead_letters_at_once_and_nothing_of_them_is_published(
    client: headrace.Client,
) -> None:
    file_departures.send("poison-1", [*departures().flights, harm.NOBODYS])
    [run] = tasks.run_pending(queues=["tasks"])
    assert (run.disposition, run.attempt) == ("dead", 1)
    assert published(client) == []
    [letter] = client.queue(LETTERS).peek()
    assert _unexplained([letter.text], ["poison-1"]) == []


def test_letters_that_nobody_poisoned_and_poison_that_is_no_letter_are_named() -> None:
    letters = ['{"mark": "poison-0"}', '{"mark": "poison-1"}']
    assert _unexplained(letters, ["poison-0", "poison-1"]) == []
    assert _unexplained([*letters, "what?"], ["poison-0", "poison-1"]) == ["what?"]
    assert _unexplained(letters[:1], ["poison-0", "poison-1"]) == ["poison-1"]
    assert _unexplained([*letters, letters[0]], ["poison-0", "poison-1"]) == ["poison-0"]


def test_topics_are_made_once_with_a_log(tmp_path: Path) -> None:
    for _ in range(2):
        prepare(tmp_path / "data")
    with headrace.connect(tmp_path / "data") as client:
        assert client.topic(TOPIC).describe().retention == 86_400


def filed(row: int, request: str) -> Filed:
    return Filed.of(next(flight for flight in flights.read(100) if flight.row == row), request)


def test_progress_counts_a_request_once_and_knows_what_is_missing() -> None:
    progress = Progress(limit=3)
    progress.hear(
        [Event(ACCEPTED, "a", (0, 1)), Event(CUT, "b"), Event(ACCEPTED, "b", (2,)), Event(ACCEPTED, "b", (2,))]
    )
    assert (len(progress.accepted), progress.flights, progress.tries[CUT]) == (2, 3, 1)
    progress.see([filed(0, "a")])
    progress.settle()
    assert progress.lost == 2
    progress.see([filed(1, "a"), filed(2, "b")])
    progress.settle()
    assert (progress.lost, progress.processed) == (0, 3)


def test_the_floor_is_the_hour_of_the_oldest_flight_that_is_missing() -> None:
    first, second = list(flights.read(2))
    progress = Progress(limit=2)
    assert progress.floor() == flights.hour_of(first.time_hour)
    progress.see([Filed.of(first, "a")])
    assert progress.floor() == flights.hour_of(second.time_hour)
    progress.see([Filed.of(second, "a")])
    assert progress.floor() == math.inf


def test_curve_is_blocks_of_height() -> None:
    assert curve([0, 1, 2, 4, 8], 8) == " ▁▂▄█"
