"""Long polls: who waits for what, in which order, and who is served when something is ready.

A poll waits at places: the queues that it would receive from, or the prefix of state that it would read. At each place
it stands in a line. Pure but for the calls that it makes: no clock, no I/O; timers are the broker's.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from headrace.errors import InFlightLimit
from headrace.queue.operations import ChangeVisibility, GetState, Operation, Polling, Receive, ReceiveAny
from headrace.queue.store.base import Done, Ready

SERVED_AT_ONCE: Final = 32  # polls of a place tried in one commit

Place: TypeAlias = Ready
"""A queue's ARN; or (name, prefix) of state."""


def nothing(outcome: Any) -> bool:
    """Whether a poll should go on waiting: no message is ready, or (SQS: long polls are then silent) none may be."""
    return outcome == [] or isinstance(outcome, InFlightLimit)


def places_of(operation: Polling) -> Sequence[Place]:
    if isinstance(operation, ReceiveAny):
        return list(dict.fromkeys(operation.queues))
    if isinstance(operation, GetState):
        return [(operation.name, operation.prefix)]
    return [operation.queue]


class Poll:
    """An operation that waits. `cancel()` once its client has gone: it takes nothing and answers nothing."""

    __slots__ = ("_polls", "connected", "done", "operation", "over", "places", "stands", "timer")

    def __init__(self, polls: Polls, operation: Polling, done: Done, connected: Callable[[], bool]) -> None:
        self._polls = polls
        self.operation = operation
        self.places = places_of(operation)
        self.done: Done | None = done
        self.connected = connected
        self.timer: asyncio.TimerHandle | None = None
        self.stands = False  # in the lines of its places; not while its operation is under way
        self.over = False  # its time is up: it does not wait again

    def cancel(self) -> None:
        self.done = None
        if self.timer is not None:
            self.timer.cancel()
        self._polls.leave(self)

    def answer(self, outcome: Any) -> None:
        done = self.done
        if done is not None:
            self.cancel()
            done(outcome)

    def give_up(self) -> None:
        """Its time is up. If its operation is under way, that one's outcome is its answer."""
        self.over = True
        if self.stands:
            self.answer([])


Line: TypeAlias = OrderedDict[Poll, None]
"""The polls that wait at a place, in order of arrival."""


class Polls:
    """The polls of one broker, and their lines.

    Invariants: a poll stands in the lines of all its places or of none; there is no empty line.

    Args:
        submit: asks the store, as `Broker.submit`.

    Attributes:
        waiting: how many polls stand in line.
    """

    def __init__(self, submit: Callable[[Operation, Done], None]) -> None:
        self.waiting = 0
        self._submit = submit
        self._lines: dict[Place, Line] = {}
        self._prefixes: Counter[int] = Counter()  # how long the prefixes of state are that are waited for
        self._closed = False

    def begin(self, poll: Poll) -> None:
        """Try at once; unless others wait already at all its places: then there is nothing, and they come first."""
        if all(place in self._lines for place in poll.places) and poll.places:
            self._stand(poll)
        elif poll.connected():
            self._submit(poll.operation, lambda outcome: self._tried(poll, outcome))
        else:
            poll.cancel()

    def close(self) -> None:
        """Answer those that wait with nothing; none waits from now on."""
        self._closed = True
        for line in list(self._lines.values()):
            for poll in list(line):
                poll.answer([])

    def dismiss(self, holder: str) -> None:
        """A holder is gone: answer its polls with nothing, before what it gives back could go to them again."""
        for poll in [poll for line in self._lines.values() for poll in line]:
            if getattr(poll.operation, "holder", None) == holder:
                poll.answer([])

    def leave(self, poll: Poll) -> None:
        """Out of its lines."""
        if not poll.stands:
            return
        poll.stands = False
        self.waiting -= 1
        for place in poll.places:
            line = self._lines[place]
            del line[poll]
            if not line:
                self._close_line(place)

    def serve(self, ready: Iterable[Ready]) -> None:
        """Let those try who wait for something that is ready now."""
        for one in ready if self._lines else ():
            for place in self._places_with(one):
                if place in self._lines:
                    self._serve_line(place)

    def _places_with(self, one: Ready) -> Sequence[Place]:
        if isinstance(one, str):
            return (one,)
        name, key = one
        return [(name, key[:length]) for length in self._prefixes if length <= len(key)]

    def _stand(self, poll: Poll, *, first: bool = False) -> None:
        """Into the lines of its places: at the end, or back at the front."""
        poll.stands = True
        self.waiting += 1
        for place in poll.places:
            line = self._lines.get(place)
            if line is None:
                line = self._open_line(place)
            line[poll] = None
            if first:
                line.move_to_end(poll, last=False)

    def _open_line(self, place: Place) -> Line:
        line = self._lines[place] = OrderedDict()
        if isinstance(place, tuple):
            self._prefixes[len(place[1])] += 1
        return line

    def _close_line(self, place: Place) -> None:
        del self._lines[place]
        if isinstance(place, tuple):
            length = len(place[1])
            self._prefixes[length] -= 1
            if not self._prefixes[length]:
                del self._prefixes[length]

    def _tried(self, poll: Poll, outcome: Any) -> None:
        if poll.done is None:
            self._return(poll, outcome)
        elif self._goes_on(poll, outcome):
            self._stand(poll)
        else:
            poll.answer([] if nothing(outcome) else outcome)

    def _goes_on(self, poll: Poll, outcome: Any) -> bool:
        """Whether the poll should wait (again): nothing is ready, and its time is not up."""
        return nothing(outcome) and not poll.over and not self._closed

    def _return(self, poll: Poll, outcome: Any) -> None:
        """The client left, or gave up, while its receive was on its way: what it was leased is visible again. What was
        bound to a claim stays so: the reader reads it by the same number."""
        if not isinstance(outcome, list) or self._closed:
            return
        operation = poll.operation
        if isinstance(operation, Receive):
            outcome = [(operation.queue, outcome)] if outcome else []
        elif not isinstance(operation, ReceiveAny):
            return
        for queue, deliveries in outcome:
            changes = [(delivery.receipt, 0) for delivery in deliveries]
            self._submit(ChangeVisibility(queue, changes, strict=True), lambda _outcome: None)

    def _serve_line(self, place: Place) -> None:
        """Let the first in line try, some at once; those that get nothing keep their places."""
        group: list[Poll] = []
        while len(group) < SERVED_AT_ONCE and (line := self._lines.get(place)):
            poll = next(iter(line))
            self.leave(poll)
            if poll.connected():
                group.append(poll)
            else:
                poll.cancel()
        still_empty: list[Poll] = []
        left = len(group)

        def served(poll: Poll, outcome: Any) -> None:
            nonlocal left
            left -= 1
            if poll.done is not None and self._goes_on(poll, outcome):
                still_empty.append(poll)
            else:
                self._tried(poll, outcome)
            if not left:
                self._line_served(place, still_empty)

        for poll in group:
            self._submit(poll.operation, partial(served, poll))

    def _line_served(self, place: Place, still_empty: list[Poll]) -> None:
        for poll in reversed(still_empty):
            if poll.done is None:
                continue  # its client left while others of its group were tried
            if poll.over or self._closed:
                poll.answer([])
            else:
                self._stand(poll, first=True)
        if not still_empty:
            self._serve_line(place)
