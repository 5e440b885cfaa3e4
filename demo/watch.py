"""What the demo shows while it runs: the broker's own counts, the log of the topic, the windows, the letters; and the same
rates that the console shows, from the console."""

from __future__ import annotations

import http.client
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

import headrace
from demo.ledger import Processed
from demo.shapes import LATE, LETTERS, REPORTS, RESULTS, TASKS, TOPIC, Filed, Report, Window
from headrace.errors import HeadraceError
from headrace.native.queue import ReceivedMessage

PAGE: Final = 2_000
RATES_EACH_S: Final = 1.0
"""The console looks once a second; to ask more often would bring nothing."""


class QueueLine(msgspec.Struct, frozen=True):
    """What the console says of a queue."""

    name: str
    visible: int = 0
    in_flight: int = 0
    delayed: int = 0
    oldest_s: float | None = None
    sent_rate: float = 0.0
    deleted_rate: float = 0.0


@dataclass
class Seen:
    """What has been seen so far. `queues`: as the console last said, by name; empty while it cannot be reached."""

    processed: Processed = field(default_factory=Processed)
    windows: list[Window] = field(default_factory=list)
    letters: int = 0
    late: int = 0
    reports: deque[Report] = field(default_factory=lambda: deque(maxlen=3))
    queues: dict[str, QueueLine] = field(default_factory=dict)
    broker_up: bool = False


class Watch:
    """Looks; never waits for what is down, and tries again at the next look."""

    def __init__(self, broker: str, console: str) -> None:
        self.client = headrace.connect(broker, timeout=5, patience=0)
        self.seen = Seen()
        self._console = urlsplit(console)
        self._log_after = 0
        self._taken: set[str] = set()
        self._rates_at_s = 0.0

    def look(self) -> list[Filed]:
        """Look once. Returns: the flights that have been processed since the last look."""
        filed: list[Filed] = []
        try:
            filed = self._tail_topic()
            self.seen.windows += [message.json(Window) for message in self._take(RESULTS)]
            self.seen.reports.extend(message.json(Report) for message in self._take(REPORTS))
            self.seen.letters = self._depth(LETTERS)
            self.seen.late = self._depth(LATE)
            self.seen.broker_up = True
        except HeadraceError:
            self.seen.broker_up = False
        if time.monotonic() >= self._rates_at_s + RATES_EACH_S:
            self._rates_at_s = time.monotonic()
            self.seen.queues = self._ask_console()
        return filed

    def idle(self) -> bool:
        """Whether no task waits, runs or is put off: all that was accepted has been processed, or is a dead letter."""
        try:
            return self._depth(TASKS) == 0
        except HeadraceError:
            return False

    def close(self) -> None:
        self.client.close()

    def _tail_topic(self) -> list[Filed]:
        filed: list[Filed] = []
        topic = self.client.topic(TOPIC)
        while page := topic.read_log(self._log_after, PAGE):
            self._log_after = page[-1].sequence
            filed += self.seen.processed.add(message.body for message in page)
        return filed

    def _take(self, name: str) -> list[ReceivedMessage]:
        """All that waits there, received and deleted. What comes again since its delete was cut is left out."""
        queue = self.client.queue(name)
        found: list[ReceivedMessage] = []
        while messages := queue.receive(max=1_000, wait=0):
            found += [message for message in messages if message.id not in self._taken]
            self._taken.update(message.id for message in messages)
            queue.delete(messages)
        return found

    def _depth(self, name: str) -> int:
        try:
            counts = self.client.queue(name).counts()
        except headrace.errors.QueueNotFound:
            return 0
        return counts.visible + counts.in_flight + counts.delayed

    def _ask_console(self) -> dict[str, QueueLine]:
        connection = http.client.HTTPConnection(self._console.hostname or "", self._console.port, timeout=2)
        try:
            connection.request("GET", "/api/queues")
            facts = msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
            lines = msgspec.convert(facts.get("queues", []), list[QueueLine])
            return {line.name: line for line in lines}
        except (OSError, http.client.HTTPException, msgspec.DecodeError, msgspec.ValidationError):
            return {}
        finally:
            connection.close()
