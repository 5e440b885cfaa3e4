"""What nodes tell each other, by LISTEN and NOTIFY: in which queues something is ready, that the catalogue has moved.

NOTIFY holds a lock of the whole database until its transaction is committed, the sync to the disk included. So it is never
in the transaction that it tells of, but in one of its own, which is not synced: told a moment later, and if a node dies in
that moment, others find out within a second (`watch.py`). What gathers while one is on its way is told by the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.queue.store.postgres.connecting import Connection
from headrace.queue.store.postgres.glance import Glance
from headrace.queue.store.postgres.shared import Shared

CHANNEL: Final = "headrace"
WAIT_S: Final = 0.25  # so long a listener is deaf for being told to stop
PAYLOAD_BYTES_MAX: Final = 7_900  # PostgreSQL takes less than 8,000
PACE_S: Final = 75e-6
"""Between two tellings of a node, times the square of the number of nodes: each telling wakes a listener of each node, which
costs the database some 30 µs. So all of them together cost it less than half a processor, however many they are."""
PACE_MAX_S: Final = (
    1.0  # what would wait for longer is not told: by then others have looked for themselves (`watch.py`)
)
BUSY_PAUSES: Final = 4
"""A node waits at least so many times as long as the transaction took that it tells of. That is a few ms, unless all are busy:
then whoever is told waits for longer anyway. Told after each commit, news cost 7 of 90 µs a message there, of two nodes."""
BUSY_MAX_S: Final = 0.05  # a transaction that took long was held up, which says nothing of the next
_PAUSE_S: Final = 0.25  # between two tries to connect


class News(msgspec.Struct, frozen=True):
    """One notification. `node` is who tells it."""

    node: str
    queues: list[int] = []
    state: list[tuple[str, bytes]] = []
    catalog: bool = False


class Listener:
    """Hears what other nodes tell. `hear` runs in a thread of its own; it never raises."""

    def __init__(self, shared: Shared, glance: Glance) -> None:
        self._shared = shared
        self._glance = glance
        self._connection: Connection | None = None

    def hear(self) -> list[News]:
        """Wait a moment for news, and take it; what concerns the catalogue is read at once."""
        try:
            return self._hear()
        except Exception:  # noqa: BLE001 - while the database is away, lanes tell whoever asks
            self.close()
            self._glance.close()  # broken by the same, and it would only notice when it is needed
            time.sleep(_PAUSE_S)
            return []

    def _hear(self) -> list[News]:
        self._glance.open()
        connection = self._connection
        if connection is None or not self._shared.is_home(connection):
            self.close()
            connection = self._connection = self._shared.connect_home()
            connection.execute("LISTEN headrace")
            self._shared.look(connection)  # whatever was told while nobody listened
        until_s = time.monotonic() + WAIT_S
        news: list[News] = []
        while not news and (left_s := until_s - time.monotonic()) > 0:  # its own are none: they wake nobody here
            told = [read(one.payload) for one in connection.notifies(timeout=left_s, stop_after=1)]
            news = [one for one in told if one is not None and one.node != self._shared.node]
        if any(one.catalog for one in news):
            self._shared.look(connection)
        return news

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Teller:
    """Tells other nodes. `tell` runs in a thread of its own; it never raises."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._connection: Connection | None = None
        self._next_s = 0.0

    def tell(
        self, queues: Iterable[int], state: Iterable[tuple[str, bytes]], *, catalog: bool, batch_s: float = 0.0
    ) -> None:
        """`batch_s`: how long the transaction took that this is of."""
        wait_s = self._next_s - time.monotonic()
        if wait_s > PACE_MAX_S and not catalog:
            return
        time.sleep(min(PACE_MAX_S, max(0.0, wait_s)))
        try:
            connection = self._connected()
            with connection.statements.together():
                for payload in payloads(self._shared.node, list(queues), list(state), catalog=catalog):
                    connection.statements.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
        except Exception:  # noqa: BLE001 - others look for themselves within a second
            self.close()
        self._next_s = time.monotonic() + pace_s(self._shared.known.nodes, batch_s=batch_s)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed or not self._shared.is_home(self._connection):
            self.close()
            self._connection = self._shared.connect_home()
            self._connection.execute("SET synchronous_commit = off")
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def pace_s(nodes: int, *, batch_s: float) -> float:
    """How long a node that has told of a transaction, which took so long, waits before it tells the next; what comes meanwhile is
    told together."""
    return max(PACE_S * nodes * nodes, min(BUSY_MAX_S, BUSY_PAUSES * batch_s))


def payloads(node: str, queues: list[int], state: list[tuple[str, bytes]], *, catalog: bool) -> list[str]:
    """News as the texts of as few notifications as hold it."""
    text = msgspec.json.encode(News(node, queues, state, catalog)).decode()
    if len(text.encode()) <= PAYLOAD_BYTES_MAX:
        return [text]
    if len(queues) + len(state) <= 1:
        return []  # one key that is too long: whoever waits for it looks within a second
    if not state:
        half = len(queues) // 2
        parts = [(queues[:half], state), (queues[half:], state)]
    else:
        half = (len(state) + 1) // 2
        parts = [(queues, state[:half]), ([], state[half:])] if len(state) > 1 else [(queues, []), ([], state)]
    return [one for part in parts for one in payloads(node, *part, catalog=catalog)]


def read(payload: str) -> News | None:
    """What was told; None for what no node has written."""
    try:
        return msgspec.json.decode(payload, type=News)
    except msgspec.MsgspecError:
        return None
