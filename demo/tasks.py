"""The demo's tasks: what the web server accepts is filed by a worker, and published flight by flight."""

from __future__ import annotations

import datetime as dt
from functools import cache
from pathlib import Path

import msgspec

import headrace
from demo.shapes import AIRPORTS, REPORTS, RESULTS, TOPIC, Filed, Flight, Report, Window
from headrace.work import App, Backoff, Middleware

_encoder = msgspec.json.Encoder()
_window = msgspec.json.Decoder(Window)


class UnknownAirport(ValueError):
    """Nobody's flights: another try would not help."""


class Opening(Middleware):
    """A worker begins: what it writes to must be there."""

    def on_start(self, app: App) -> None:
        prepare(app.broker or "data/store")


app = headrace.App(middleware=[Opening()])  # HEADRACE_BROKER says where the broker is; `headrace up` sets it


def prepare(broker: str | Path) -> None:
    """Make the topics, with logs: a pipeline may begin at the beginning, and the demo's ledger is read from it. Idempotent."""
    with headrace.connect(broker) as client:
        for queue in (RESULTS, REPORTS):
            client.queue(queue, create=True)
        client.topic(RESULTS, create=True, retention="1 day").subscribe(RESULTS, if_absent=True)
        client.topic(
            TOPIC, create=True, retention="1 day"
        )  # last: the pipeline, which publishes to the other, needs it


@app.task(outbox=True, backoff=Backoff(first_ms=100, max_ms=2_000), give_up_on=UnknownAirport)
async def file_departures(request: str, flights: list[Flight]) -> None:
    """Publish every flight, in the commit that ends this task: exactly once, whoever is killed when."""
    for flight in flights:
        if flight.origin not in AIRPORTS:
            raise UnknownAirport(f"{flight.origin} is none of {', '.join(AIRPORTS)}")
    app.publish(TOPIC, *[_encoder.encode(Filed.of(flight, request)) for flight in flights])


_told = 0
"""The windows up to this number have been told, by this process."""


@app.every("5s", missed="skip", overlap="skip")
@app.task(outbox=True, retries=0)
def report_the_worst() -> None:
    """Every five seconds, whichever worker: the worst of the days that the pipeline has closed meanwhile."""
    global _told
    new = broker().topic(RESULTS).read_log(_told)
    windows = [_window.decode(message.body) for message in new]
    worst = max(
        (window for window in windows if window.delay is not None), key=lambda each: each.delay or 0, default=None
    )
    app.send(REPORTS, _encoder.encode(Report(dt.datetime.now(dt.UTC), len(windows), worst)))
    _told = new[-1].sequence if new else _told


@cache
def broker() -> headrace.Client:
    return headrace.connect(app.broker or "data/store")
