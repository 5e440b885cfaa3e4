"""Harm, done on purpose: what each key does, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from demo.client import Orders
from demo.flights import FLIGHTS_A_REQUEST, YEAR
from demo.shapes import TASKS, Flight
from demo.stack import Stack, ask, kill, present, web_worker
from demo.tasks import app, file_departures
from headrace.errors import HeadraceError
from headrace.native.client import Client

SPIKE_TIMES: Final = 10
SPIKE_S: Final = 10.0
POISON_EACH: Final = 5  # of both kinds
MARK: Final = "poison-"
NOBODYS: Final = Flight(-1, YEAR, "XXX", "XXX", "XX", 0, None, None, None)

Tell = Callable[[str, str], None]
"""(text, style)."""


@dataclass
class Harm:
    """Does harm to a stack; `tick` ends a spike in time.

    Attributes:
        done: what was done, in order: web, broker, pipeline, worker, spike, poison.
        poison: the marks of the messages that can only become dead letters.
    """

    stack: Stack
    client: Client
    orders: Orders
    tell: Tell
    spike_s: float = SPIKE_S
    done: list[str] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)
    _spike_until_s: float | None = None
    _pace: float = 0.0

    def web(self) -> None:
        """Kill a process that answers requests."""
        self._kill("web", "web worker", ask(lambda: web_worker(self.client)))

    def broker(self) -> None:
        """Kill the broker; of two nodes the one, and the next time the other."""
        brokers = self.stack.brokers()
        name = "broker" if self.stack.node is None else "one of two brokers"
        self._kill("broker", name, brokers[self.done.count("broker") % len(brokers)] if brokers else None)

    def pipeline(self) -> None:
        """Kill the pipeline."""
        self._kill("pipeline", "pipeline", ask(lambda: present(self.client, "stream")))

    def worker(self) -> None:
        """Kill a process that runs tasks."""
        self._kill("worker", "task worker", ask(lambda: present(self.client, "worker")))

    def spike(self) -> None:
        """Ten times as many requests, each with one flight, for ten seconds."""
        if self.spiking:
            return
        self._pace = self.orders.pace
        self._spike_until_s = time.monotonic() + self.spike_s
        # A flight is a request now, where it was a seventeenth of one.
        self.orders.set(pace=self._pace * SPIKE_TIMES / FLIGHTS_A_REQUEST, singly=True)
        self.done.append("spike")
        self.tell(
            f"spike: {SPIKE_TIMES}x the requests for {self.spike_s:.0f} s; what does not fit gets 503, and comes again",
            "bold yellow",
        )

    @property
    def spiking(self) -> bool:
        return self._spike_until_s is not None

    def tick(self) -> None:
        """End a spike whose time is over."""
        if self._spike_until_s is not None and time.monotonic() >= self._spike_until_s:
            self._spike_until_s = None
            self.orders.set(pace=self._pace, singly=False)
            self.tell("the spike is over; what was put off is sent again", "bold green")

    def feed_poison(self) -> None:
        """Messages that no task can make anything of, straight onto the task queue: they belong into the dead letters."""
        marks = [f"{MARK}{len(self.poison) + place}" for place in range(2 * POISON_EACH)]
        try:
            self.client.queue(TASKS).send_many(
                [{"note": "this is no task", "mark": mark} for mark in marks[:POISON_EACH]]
            )
            file_departures.send_many([(mark, [NOBODYS]) for mark in marks[POISON_EACH:]])
        except HeadraceError as error:
            self.tell(f"no poison, the broker is away: {error}", "yellow")
            return
        self.poison += marks
        self.done.append("poison")
        self.tell(f"{len(marks)} poison messages fed: half are no tasks, half are flights from nowhere", "bold yellow")

    def _kill(self, what: str, name: str, pid: int | None) -> None:
        if not kill(pid):
            self.tell(f"no {name} to kill right now: press again", "yellow")
            return
        self.done.append(what)
        self.tell(f"{name} killed with SIGKILL (pid {pid}), in the middle of its work", "bold red")


def connect(stack: Stack) -> None:
    """The tasks that are sent from here go to that broker."""
    app.connect(stack.broker)
