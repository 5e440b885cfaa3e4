"""Where a pipeline's state is kept: in the broker, by its transactions, or in memory, for as long as it runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec
import pyarrow as pa

from headrace.clock import SteadyClock
from headrace.errors import HeadraceError, InvalidParameter, OutcomeUnknown, StateChanged, StoreFull, Unavailable
from headrace.native.client import Client
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.engine.state import OperatorState, StateBackend
from headrace.stream.errors import DefinitionChanged
from headrace.stream.runner import state_keys

T = TypeVar("T")

_log = logging.getLogger("headrace.stream")

PASSING = (Unavailable, OutcomeUnknown, StoreFull)
"""Errors that pass: a broker that restarts, a disk that is full for a while."""


class Store(Protocol):
    """The state of a pipeline. `durable`: it outlives the process."""

    durable: bool

    def synchronise(self) -> None:
        """Synchronise the clock with the store's, from time to time."""

    def now_ms(self) -> int:
        """Steady time, the same for all processes that use the store."""

    def read(self, prefix: bytes, limit: int | None = None) -> dict[bytes, bytes]:
        """Values whose keys start with `prefix`, sorted; at most `limit`."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The same without a limit, read in pages of about SCAN_BYTES, for state that may be larger than memory."""

    def transact(self, operation: ops.Transact) -> None:
        """Apply the operation atomically; `operation.name` is filled in.

        Only for operations that may be repeated: they expect something, or are idempotent.

        Raises:
            StateChanged: an expected value differs; perhaps because an earlier try succeeded after all.
        """


class RetryPolicy:
    """Repeats a call while the broker is unavailable: for `seconds` (None: without limit), or until `stop`."""

    def __init__(self, seconds: float | None, stop: threading.Event) -> None:
        self._seconds = seconds
        self._stop = stop

    def call(self, function: Callable[[], T]) -> T:
        started_s, pause_s, told = time.monotonic(), limits.RETRY_FIRST_S, False
        while True:
            try:
                return function()
            except PASSING as error:
                waited_s = time.monotonic() - started_s
                told = told or _tell(error, waited_s)
                self._wait(error, pause_s, waited_s)
                pause_s = min(pause_s * 2, limits.RETRY_MAX_S)

    def _wait(self, error: HeadraceError, pause_s: float, waited_s: float) -> None:
        over = self._seconds is not None and waited_s + pause_s > self._seconds
        if over or self._stop.wait(pause_s):
            raise error


def _tell(error: HeadraceError, waited_s: float) -> bool:
    """Log the wait once an outage, so that the process is not silent; a short interruption is not logged."""
    if waited_s < limits.AWAY_TOLD_S:
        return False
    _log.warning("waiting: %s", error, extra={"action": "stream.broker_away"})
    return True


class BrokerStore:
    """State in the broker, under `name`."""

    durable = True

    def __init__(self, client: Client, name: str, retry: RetryPolicy) -> None:
        self._client = client
        self._name = name
        self._retry = retry
        self._ahead_ms = 0.0  # of the broker's steady time before this process's clock
        self.synchronise()

    def synchronise(self) -> None:
        """Read the broker's steady time. Between two calls it is computed locally, so that a batch needs no request for it."""
        statistics = self._retry.call(self._client.statistics)
        self._ahead_ms = statistics.now_ms - time.monotonic() * 1_000

    def now_ms(self) -> int:
        return int(self._ahead_ms + time.monotonic() * 1_000)

    def read(self, prefix: bytes, limit: int | None = None) -> dict[bytes, bytes]:
        return self._retry.call(lambda: self._client.state(self._name, prefix, limit=limit))

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return scan(lambda operation: self._retry.call(lambda: self._client.call(operation)), self._name, prefix)

    def transact(self, operation: ops.Transact) -> None:
        self._retry.call(lambda: self._client.call(operation))


def scan(
    call: Callable[[ops.GetState], Sequence[tuple[bytes, bytes]]], name: str, prefix: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """State in pages of about SCAN_BYTES, estimated from the length of earlier values: an answer has no other bound."""
    count, after = limits.SCAN_KEYS_FIRST, b""
    while page := call(ops.GetState(name, prefix, count, after)):
        yield from page
        if len(page) < count:
            return
        size_bytes = sum(len(value) for _, value in page)
        fitting = limits.SCAN_BYTES * len(page) // max(1, size_bytes)
        count, after = max(1, min(fitting, 2 * count, limits.SCAN_KEYS_MAX)), page[-1][0]


class MemoryStore:
    """State in memory, of a pipeline without queues. It ends with the process."""

    durable = False

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self.now_ms = SteadyClock()

    def synchronise(self) -> None:
        """No other clock exists."""

    def read(self, prefix: bytes, limit: int | None = None) -> dict[bytes, bytes]:
        with self._lock:
            found = sorted(key for key in self._values if key.startswith(prefix))[:limit]
            return {key: self._values[key] for key in found}

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.read(prefix).items())

    def transact(self, operation: ops.Transact) -> None:
        if operation.sends or operation.claims:
            raise InvalidParameter("broker", "None", "a pipeline with queues needs a broker")
        if operation.name == state_keys.DIRECTORY:  # no other process can read it
            return
        with self._lock:
            for key, value in operation.expect:
                if self._values.get(key) != value:
                    raise StateChanged(operation.name, key.decode())
            for key, value in operation.state:
                if value is None:
                    self._values.pop(key, None)
                else:
                    self._values[key] = value


# --- Commands to a running pipeline: `headrace stream pause|resume` ---


class Control(msgspec.Struct, frozen=True):
    """`paused`: no batch is begun; what is under way is finished."""

    paused: bool = False


def read_control(store: Store) -> Control:
    found = store.read(state_keys.CONTROL).get(state_keys.CONTROL)
    return Control() if found is None else msgspec.json.decode(found, type=Control)


def write_control(store: Store, pipeline: str, control: Control) -> None:
    """A running pipeline follows within MEMBER_BEAT_MS."""
    state = [(state_keys.CONTROL, msgspec.json.encode(control))]
    store.transact(ops.Transact(name=state_keys.state_name(pipeline), state=list(state)))


# --- The schemas of operators' parts, kept with them: so that state is read by who has no pipeline, and never misread ---


class SchemaRecorder(StateBackend):
    """Another StateBackend, whose operators' schemas go into the first commit that follows, if they are new."""

    def __init__(self, parts: StateBackend, store: Store, pipeline: str) -> None:
        self._parts = parts
        self._pipeline = pipeline
        self._prepared = store.read(state_keys.SCHEMA)
        self._new: list[tuple[bytes, bytes | None]] = []

    def open(self, operator: str, keys_: Sequence[str], schema: pa.Schema) -> OperatorState:
        """Raises DefinitionChanged: the operator's parts have other columns. Parts are without their schema, and would be
        read as what they are not."""
        key = state_keys.SCHEMA + operator.encode()
        if key not in self._prepared:
            self._new.append((key, schema.serialize().to_pybytes()))
        else:
            kept = pa.ipc.read_schema(pa.py_buffer(self._prepared[key]))
            if not kept.equals(schema):
                change = (
                    f"state of {operator} has columns {_schema_text(kept)}; this version keeps {_schema_text(schema)}"
                )
                raise DefinitionChanged(self._pipeline, [change])
        return self._parts.open(operator, keys_, schema)

    def take_changes(self) -> Mapping[bytes, bytes | None]:
        return self._parts.take_changes()

    def take_puts(self) -> list[tuple[bytes, bytes | None]]:
        """All that is to be put into the step's commit."""
        new, self._new = self._new, []
        return [*new, *self._parts.take_changes().items()]

    def size_bytes(self) -> int:
        return self._parts.size_bytes()


def _schema_text(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
