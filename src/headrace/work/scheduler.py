"""Fires schedules. Any number of schedulers may run: a firing is one transaction that expects the row as it was read.

The row is the truth, not the code that a scheduler was started with: a scheduler writes its app's definitions once, when
it starts, and then fires whatever rows are due. So during a rolling restart the newest code's definitions stand, and
schedules fire even while their own app has no worker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from headrace.errors import StateChanged
from headrace.queue.model import arn_of
from headrace.queue.operations import Transact
from headrace.work import keys, schedules, unique
from headrace.work.backend import Backend, committed
from headrace.work.dispatch import Dispatch
from headrace.work.envelope import Unique, new_id
from headrace.work.schedules import Definition, Due, Row

log = logging.getLogger("headrace.work")

LOOK_MS: Final = 15_000
"""Between two looks at the rows, where nothing is due: what was paused, resumed or defined elsewhere is seen then."""
TRIES_MAX: Final = 20
"""Of a firing whose lock somebody else took or gave back meanwhile."""
LOCK_MS: Final = 86_400_000
"""How long a firing keeps the next ones from overlapping at most, should its task vanish."""

_decoder = msgspec.json.Decoder(Row)


class Scheduler:
    """Advanced by whoever runs it.

    Args:
        app: whose definitions these are.
        definitions: all that the app has; its rows that are not among them are marked as orphaned.
    """

    def __init__(self, app: str, definitions: Sequence[Definition], backend: Backend) -> None:
        self._app = app
        self._definitions = {one.name: msgspec.structs.replace(one, app=app) for one in definitions}
        self._backend = backend
        self._defined = False

    def advance(self, now_ms: int) -> int:
        """Fire what is due. Returns when to be called again, in wall clock ms: soon after `now_ms` at the latest.

        Args:
            now_ms: wall clock. It may step: back, and nothing fires until it has caught up; forward, and the times
                between are missed ones.
        """
        if not self._defined:
            self._define(now_ms)
            self._defined = True
        rows = read_rows(self._backend)
        nearest_ms = now_ms + LOOK_MS
        for row, stored in rows:
            nearest_ms = min(nearest_ms, self._advance_row(row, stored, now_ms))
        return nearest_ms

    def _define(self, now_ms: int) -> None:
        rows = {row.definition.name: (row, stored) for row, stored in read_rows(self._backend)}
        unreadable = dict(self._backend.state(keys.SCHEDULE))
        for name, definition in self._definitions.items():
            row, stored = rows.get(name) or (None, unreadable.get(keys.schedule(name)))
            after = schedules.defined(row, definition, now_ms)
            if after != row:
                write_row(self._backend, after, stored)
        for name, (row, stored) in rows.items():
            if row.definition.app == self._app and name not in self._definitions and not row.orphaned:
                write_row(self._backend, msgspec.structs.replace(row, orphaned=True), stored)
                log.warning(
                    "schedule %s is not in %s any more: it does not fire; `headrace schedule rm` removes it", name, self._app,
                    extra={"action": "schedule.orphaned", "schedule": name},
                )  # fmt: skip

    def _advance_row(self, row: Row, stored: bytes, now_ms: int) -> int:
        """Fire the row if it is due. Returns its next time, or far away."""
        due = schedules.due(row, now_ms)
        if due is not None:
            fired = fire(self._backend, row, due, stored, now_ms=now_ms)
            if fired is None:  # another scheduler was faster: its row tells what is next
                return now_ms + LOOK_MS
            row = fired
        at_ms = schedules.due_ms(row)
        return now_ms + LOOK_MS if at_ms is None else max(at_ms, now_ms)


def fire(backend: Backend, row: Row, due: Due, stored: bytes, *, now_ms: int) -> Row | None:
    """Send what is due, once: in one transaction with the row. Returns the row afterwards; None if somebody was faster."""
    name, key = row.definition.name, keys.schedule(row.definition.name)
    backend.prepare(row.definition.queue)
    for _ in range(TRIES_MAX):
        after, dispatches, locks = _fired(backend, row, due, now_ms)
        operation = Transact(
            sends=[(arn_of(one.queue), [one.entry()]) for one in dispatches],
            state=[(key, msgspec.json.encode(after)), *locks.puts.items()],
            name=keys.NAME,
            expect=[(key, stored), *locks.expects.items()],
        )
        if committed(backend, operation):
            _tell(name, due, len(dispatches))
            return after
        if backend.read(key) != stored:
            return None
    raise StateChanged(keys.NAME, name)


def fire_now(backend: Backend, row: Row, *, now_ms: int) -> str | None:
    """Send its task now, whatever its times are: these stay. Returns the task's id; None if a lock keeps it from running."""
    backend.prepare(row.definition.queue)
    for _ in range(TRIES_MAX):
        _, sent, locks = _fired(backend, row, Due([now_ms], row), now_ms)
        if not sent:
            return None
        operation = Transact(
            sends=[(arn_of(sent[0].queue), [sent[0].entry()])],
            state=list(locks.puts.items()),
            name=keys.NAME,
            expect=list(locks.expects.items()),
        )
        if committed(backend, operation):
            return sent[0].envelope.id
    raise StateChanged(keys.NAME, row.definition.name)


def _fired(backend: Backend, row: Row, due: Due, now_ms: int) -> tuple[Row, list[Dispatch], unique.Change]:
    """(the row afterwards, what is sent, what becomes of the locks that keep firings from overlapping)."""
    change = unique.Change()
    sent: list[Dispatch] = []
    for fire_ms in due.fires:
        dispatch = dispatch_of(row.definition, fire_ms, now_ms)
        claimed = unique.claim(
            dispatch, now_ms=now_ms, read=lambda key: change.puts[key] if key in change.puts else backend.read(key)
        )
        if isinstance(claimed, str):
            continue
        change.expects |= {key: value for key, value in claimed.expects.items() if key not in change.puts}
        change.puts |= claimed.puts
        sent.append(dispatch)
    skipped = due.row.skipped + len(due.fires) - len(sent)
    last_id = sent[-1].envelope.id if sent else row.last_id
    return msgspec.structs.replace(due.row, skipped=skipped, last_id=last_id), sent, change


def dispatch_of(definition: Definition, fire_ms: int, now_ms: int) -> Dispatch:
    """The task that a firing sends. Its template's `expires_ms` counts from the firing on."""
    template = definition.envelope
    lock = Unique(f"schedule:{definition.name}") if definition.overlap == "skip" else None
    envelope = msgspec.structs.replace(
        template,
        id=new_id(now_ms),
        unique=template.unique or lock,
        expires_ms=now_ms + template.expires_ms if template.expires_ms is not None else None,
        scheduled=f"{definition.name}@{fire_ms}",
        sent_ms=now_ms,
    )
    return Dispatch(definition.queue, envelope, ttl_ms=LOCK_MS)


def _tell(name: str, due: Due, sent: int) -> None:
    if due.dropped:
        log.warning(
            "schedule %s: %d firings were missed and are left out", name, due.dropped,
            extra={"action": "schedule.missed", "schedule": name, "count": due.dropped},
        )  # fmt: skip
    log.info(
        "schedule %s fired: %d task%s sent", name, sent, "" if sent == 1 else "s",
        extra={"action": "schedule.fired", "schedule": name, "count": sent},
    )  # fmt: skip


# --- rows, for commands and the console ---


def decode_row(stored: bytes) -> Row:
    """A schedule as it is stored."""
    return _decoder.decode(stored)


def read_rows(backend: Backend) -> list[tuple[Row, bytes]]:
    """All schedules, sorted by name, each with its row as it is stored. One that cannot be read keeps no other from firing."""
    rows: list[tuple[Row, bytes]] = []
    for key, value in backend.state(keys.SCHEDULE):
        try:
            rows.append((decode_row(value), value))
        except msgspec.DecodeError as error:
            log.error(
                "the row of a schedule cannot be read and does not fire: %r: %s", key, error,
                extra={"action": "schedule.unreadable"},
            )  # fmt: skip
    return rows


def write_row(backend: Backend, row: Row, stored: bytes | None) -> bool:
    """Write the row if it is as it was read; False if it was changed meanwhile."""
    return _replaced(backend, row.definition.name, stored, msgspec.json.encode(row))


def remove_row(backend: Backend, name: str, stored: bytes) -> bool:
    """Remove the row if it is as it was read."""
    return _replaced(backend, name, stored, None)


def _replaced(backend: Backend, name: str, stored: bytes | None, value: bytes | None) -> bool:
    key = keys.schedule(name)
    return committed(backend, Transact(state=[(key, value)], name=keys.NAME, expect=[(key, stored)]))
