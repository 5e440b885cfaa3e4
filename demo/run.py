"""A run of the demo: everything is started, flights flow, harm is done, everything is stopped, and both sides are compared."""

from __future__ import annotations

import multiprocessing
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import msgspec

import headrace
from demo import client, ledger
from demo import flights as data
from demo.client import Assignment, Orders
from demo.harm import Harm
from demo.keyboard import Keyboard
from demo.ledger import Audit, Processed
from demo.progress import Progress, Rate
from demo.shapes import AIRPORTS, LETTERS, RESULTS, TOPIC, Filed, Flight
from demo.stack import Stack, fresh
from demo.tasks import app, prepare
from demo.view import Snapshot, View
from demo.watch import Watch
from demo.windows import WindowAudit, audit_windows, one_shot, read_parquet

TICK_S: Final = 0.25
PROBE_S: Final = 3.0
PROBE_TRIES: Final = 8  # of each client at once: enough to keep every stage busy
PROBE_RATE: Final = 1_000.0
SHARE: Final = 0.45
"""Of what the machine did in the first seconds: the rest is for harm, the console and whoever else uses the machine."""
RATE_MIN: Final = 5.0
FLOW_S: Final = 110.0
"""How long flights flow when nobody watches: the demo as a whole stays below three minutes, however slow the machine."""
LENGTH_SHARE: Final = 0.8
"""Harm is done while flights flow: of few flights some pass before the first is seen."""
DRAIN_S: Final = 60.0
HARM_AT: Final = (
    (0.1, "web"),
    (0.2, "worker"),
    (0.3, "pipeline"),
    (0.42, "broker"),
    (0.54, "feed_poison"),
    (0.62, "spike"),
)
"""Unattended: when in the flow, as a share of its length."""
HARM: Final = ("web", "worker", "pipeline", "broker", "poison", "spike")
SPIKE_SHARE: Final = 0.15
KEYS: Final = {"w": "web", "t": "worker", "p": "pipeline", "b": "broker", "s": "spike", "f": "feed_poison"}
END_OF_YEAR: Final = Flight(-1, data.YEAR.replace(year=2015), "END", "", "", 0, None, None, None)


@dataclass(frozen=True)
class Outcome:
    """What a run proved. `letters`: dead letters that were not poison, and poison that is not there."""

    audit: Audit
    windows: WindowAudit
    harm: list[str]
    poison: int
    letters: int
    unexplained_letters: list[str]
    seconds: float
    exit_code: int
    rate: float
    undone: list[str] = field(default_factory=list)
    """Harm that was to be done, and was not: then nothing is proved."""

    @property
    def holds(self) -> bool:
        proved = self.audit.holds and self.windows.holds and not self.unexplained_letters
        return proved and not self.undone and self.exit_code == 0


class Run:
    """One run. `run` sequences it; whatever happens, what was started is ended."""

    def __init__(
        self,
        folder: Path,
        view: View,
        *,
        limit: int,
        rate: float | None,
        unattended: bool,
        browse: bool = False,
        store: str | None = None,
    ) -> None:
        """Args:
        folder: emptied at the start.
        limit: of the data's flights.
        rate: requests a second; None: as many as suit this machine.
        unattended: do each harm once, and end by itself.
        browse: open the console in a browser.
        store: a PostgreSQL store's URL; None: a folder.
        """
        self._folder, self._view = folder, view
        self._limit, self._rate, self._unattended, self._browse = limit, rate, unattended, browse
        self._stack = Stack(folder, store)
        self._progress = Progress(limit)
        self._reader = ledger.Reader(folder)
        self._rates = {"requests": Rate(), "filed": Rate(), "windowed": Rate()}
        self._orders = Orders(multiprocessing.get_context("spawn").Array("d", Orders.SIZE, lock=False))
        self._started_s = time.monotonic()
        self._quit = False

    def run(self) -> Outcome:
        """Raises RuntimeError: a part could not run."""
        fresh(self._folder)
        with self._view, Keyboard() as keys:
            try:
                self._start()
                self._watch = Watch(self._stack.broker, self._stack.urls["console"])
                self._harm = Harm(self._stack, self._watch.client, self._orders, self._view.tell, self._spike_s())
                with self._clients() as clients:
                    self._flow(keys, clients)
                    self._end(keys, clients)
                return self._compare()
            finally:
                app.close()
                if hasattr(self, "_watch"):
                    self._watch.close()
                self._stack.stop()

    # Start

    def _start(self) -> None:
        stack, tell = self._stack, self._view.tell
        stack.start()
        stack.wait_for(lambda: "broker" in stack.readies, "the broker")
        prepare(stack.broker)
        app.connect(stack.broker)
        stack.wait_for(lambda: {"web", "console"} <= stack.urls.keys(), "the console")
        tell(f"console: {stack.urls['console']}   web: {stack.urls['web']}   SQS: {stack.urls['broker']}", "bold")
        self._view.address = stack.urls["console"]
        if self._browse:
            webbrowser.open(stack.urls["console"])

    @contextmanager
    def _clients(self) -> Iterator[list[BaseProcess]]:
        """A process an airport. They end when nothing is left to send; on an error, at once."""
        spawn = multiprocessing.get_context("spawn")
        url = self._stack.urls["web"]
        told = [Assignment(airport, url, self._folder, self._limit, self._orders) for airport in AIRPORTS]
        processes: list[BaseProcess] = [
            spawn.Process(target=client.run, args=(each,), name=f"client {each.airport}", daemon=True) for each in told
        ]
        try:
            for process in processes:
                process.start()
            yield processes
        finally:
            for process in processes:
                process.terminate()
                process.join()

    # Workflow

    def _flow(self, keys: Keyboard, clients: list[BaseProcess]) -> None:
        """Until the year is over, or it is time to stop."""
        rate = self._rate or self._probe(keys)
        self._rate = rate
        self._set_rate(rate, tries_max=1_000_000)
        self._first(keys)
        began_s = time.monotonic()
        length_s = self._length_s(rate)
        self._view.tell(
            f"{rate:.0f} requests/s with {rate * data.FLIGHTS_A_REQUEST:,.0f} flights/s, whatever happens", ""
        )
        planned = [(began_s + share * length_s, what) for share, what in HARM_AT] if self._unattended else []
        while any(process.is_alive() for process in clients) and not self._quit:
            self._step(keys)
            self._harm.tick()
            if planned and time.monotonic() >= planned[0][0] and self._does(planned[0][1]):
                planned.pop(0)
            if self._unattended and not planned and time.monotonic() >= began_s + length_s:
                break

    def _does(self, what: str) -> bool:
        """Do harm. False: it could not be done right now."""
        before = len(self._harm.done)
        getattr(self._harm, what)()
        return len(self._harm.done) > before

    def _probe(self, keys: Keyboard) -> float:
        """How many requests a second suit this machine: a share of what it does with a few at a time."""
        self._set_rate(PROBE_RATE, tries_max=PROBE_TRIES)
        self._view.tell("measuring this machine ...", "dim")
        self._first(keys)
        began_s, before = time.monotonic(), self._progress.processed
        while time.monotonic() < began_s + PROBE_S and not self._quit:
            self._step(keys)
        processed = (self._progress.processed - before) / (time.monotonic() - began_s) / data.FLIGHTS_A_REQUEST
        whole_year = self._limit / data.FLIGHTS_A_REQUEST / FLOW_S
        return max(RATE_MIN, min(SHARE * processed, whole_year))

    def _first(self, keys: Keyboard) -> None:
        """Until the first flight has passed."""
        while not self._progress.processed and not self._quit:
            self._step(keys)

    def _set_rate(self, rate: float, *, tries_max: int) -> None:
        self._orders.set(pace=rate / data.REQUESTS_AN_HOUR, tries_max=tries_max)

    def _length_s(self, rate: float) -> float:
        return min(FLOW_S, LENGTH_SHARE * self._limit / data.FLIGHTS_A_REQUEST / rate)

    def _spike_s(self) -> float:
        return (
            10.0 if not self._unattended or self._rate is None else min(10.0, SPIKE_SHARE * self._length_s(self._rate))
        )

    def _step(self, keys: Keyboard) -> None:
        """Wait for a tick or a key; look; show."""
        for key in keys.wait(TICK_S):
            self._press(key)
        self._stack.check()
        self._look()
        self._view.show(self._snapshot())

    def _press(self, key: str) -> None:
        if key == "q":
            self._quit = True
        elif key == "c":
            webbrowser.open(self._stack.urls["console"])
            self._view.tell(f"console: {self._stack.urls['console']}", "bold")
        elif key in KEYS and not self._quit:
            getattr(self._harm, KEYS[key])()

    def _look(self) -> None:
        self._progress.hear(self._reader.news())
        idle = self._watch.idle()
        self._progress.see(self._watch.look())
        if idle and self._watch.seen.broker_up:
            self._progress.settle()
        floor = self._progress.floor()
        self._orders.set(floor=min(floor, 1e9))

    def _snapshot(self) -> Snapshot:
        progress, seen = self._progress, self._watch.seen
        windowed = sum(window.flights for window in seen.windows)
        return Snapshot(
            elapsed_s=time.monotonic() - self._started_s,
            total=progress.limit,
            requests=len(progress.accepted),
            flights=progress.flights,
            processed=progress.processed,
            windowed=windowed,
            lost=progress.lost,
            tries=dict(progress.tries),
            rates={
                "requests": self._rates["requests"].add(len(progress.accepted)),
                "filed": self._rates["filed"].add(progress.processed),
                "windowed": self._rates["windowed"].add(windowed),
            },
            seen=seen,
            harm=tuple(self._harm.done),
            poison=len(self._harm.poison),
        )

    # End

    def _end(self, keys: Keyboard, clients: list[BaseProcess]) -> None:
        """Nothing new; everything that was accepted is processed; every window is closed."""
        self._view.tell("no new requests; what is under way is finished", "bold")
        self._orders.set(over=True)
        self._harm.tick()
        self._until(keys, lambda: not any(process.is_alive() for process in clients), "clients")
        self._until(keys, lambda: self._watch.idle() and self._progress.processed >= self._progress.flights, "tasks")
        with headrace.connect(self._stack.broker) as broker:  # with patience: the broker may just have been killed
            broker.topic(TOPIC).publish(msgspec.json.encode(Filed.of(END_OF_YEAR, "")))
        self._until(
            keys, lambda: sum(each.flights for each in self._watch.seen.windows) >= self._progress.processed, "windows"
        )

    def _until(self, keys: Keyboard, fact: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + DRAIN_S
        while not fact():
            self._step(keys)
            if time.monotonic() > deadline_s:
                self._view.tell(
                    f"{what} have not come to their end within {DRAIN_S:.0f} s: what is missing counts as lost",
                    "bold red",
                )
                return

    def _compare(self) -> Outcome:
        """Read everything anew, and compare."""
        self._view.tell("comparing the ids of both sides, and every window ...", "dim")
        with headrace.connect(self._stack.broker) as broker:
            processed = Processed()
            processed.add(message.body for message in broker.topic(TOPIC).log())
            late = self._watch.seen.late
            letters = [message.text for message in broker.queue(LETTERS, create=True).peek(1_000)]
        events = list(ledger.read(self._folder))
        expected = one_shot(row for rows in ledger.accepted_of(events).values() for row in rows)
        exit_code = self._stack.stop()  # what the pipeline has yet to write to the folder, it writes before it ends
        parquet = read_parquet(self._folder / RESULTS)
        return Outcome(
            audit=ledger.audit(events, processed.times),
            windows=audit_windows(self._watch.seen.windows, parquet, expected, late=late),
            harm=list(self._harm.done),
            poison=len(self._harm.poison),
            letters=len(letters),
            unexplained_letters=_unexplained(letters, self._harm.poison),
            seconds=time.monotonic() - self._started_s,
            exit_code=exit_code,
            rate=self._rate or 0.0,
            undone=[name for name in HARM if name not in self._harm.done]
            if self._unattended and not self._quit
            else [],
        )


def _unexplained(letters: list[str], poison: list[str]) -> list[str]:
    """Dead letters that nobody poisoned, and poison that is no dead letter or is one twice."""
    found = [next((mark for mark in poison if f'"{mark}"' in letter), letter[:200]) for letter in letters]
    strange = [mark for mark in found if mark not in poison]
    return strange + [mark for mark in poison if found.count(mark) != 1]
