"""The client for threads. `headrace.native.aio` is its twin for an event loop: same names, same arguments.

Times are seconds. Queues are named plainly (`orders`), or by ARN where region or account are not the default.
Every error is a HeadraceError: a CallerError (the request was wrong, nothing was done), Unavailable (the broker cannot
be reached, nothing was done), OutcomeUnknown (the connection broke in between) or another StoreError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, Unpack

from headrace.native import calls, endpoint, topic_calls
from headrace.native.embedded import EmbeddedTransport
from headrace.native.http_sync import HttpTransport
from headrace.native.protocol import BrokerStatistics
from headrace.native.queue import Queue, ReceivedMessage
from headrace.native.settings import SettingValues, to_fields, to_ms
from headrace.native.signing import Credentials
from headrace.native.summary import QueueSummary, summary_of
from headrace.native.topic import Topic
from headrace.native.topic_calls import TopicSummary, TopicValues
from headrace.native.transaction import Collected
from headrace.native.transport import Transport
from headrace.queue import operations as ops
from headrace.queue.model import HolderState, MoveTask, arn_of, topic_arn_of

TIMEOUT_S: Final = 30.0
PATIENCE_S: Final = 10.0


def connect(
    target: str | Path,
    *,
    timeout: float = TIMEOUT_S,
    patience: float = PATIENCE_S,
    key: tuple[str, str] | None = None,
    cooldowns: bool = True,
) -> Client:
    """A client of the broker at `target`, safe for many threads.

    Args:
        target: `http://HOST:PORT`, `https://HOST:PORT`, `unix:///PATH`; or a folder. A folder is opened in this process
            (created if need be), which then owns it; if a running broker owns it, the client talks to that one. Several
            nodes of one broker: `http://HOST:PORT,HOST:PORT`; the client asks one, and goes on with another when that
            cannot be reached.
        timeout: seconds that an answer may take, a receive's wait not counted.
        patience: seconds that a call goes on trying while the broker cannot be reached; 0 tries once.
        key: access key and secret key, for a broker that has keys; its Unix socket needs none.
        cooldowns: for a folder of one's own: whether SQS's 60 seconds between purges, and between the deletion of a
            queue and its creation, are kept.

    Raises:
        StoreUnusable: the folder cannot be opened.
        StoreDamaged: what is in it cannot be trusted.
        InvalidParameter: the URL is none of these.
    """
    place = endpoint.parse(target)
    if isinstance(place, Path):
        return Client(EmbeddedTransport(place, cooldowns=cooldowns))
    credentials = Credentials(*key) if key is not None else None
    return Client(HttpTransport(place, timeout_s=timeout, patience_s=patience, credentials=credentials))


class Client:
    """A broker's client; made by `connect`. A context manager: leaving it closes it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def queue(
        self,
        name: str,
        *,
        create: bool = False,
        tags: Mapping[str, str] | None = None,
        **settings: Unpack[SettingValues],
    ) -> Queue:
        """The queue of that name.

        Args:
            name: plain name or ARN. 1 to 80 characters of A-Z, a-z, 0-9, - and _; a FIFO queue's ends in `.fifo`.
            create: make it if it is not there. Idempotent: a queue that is there must have the settings given.
            tags: for a queue that is made.
            settings: with `create`; see SettingValues.

        Raises:
            QueueNotFound: it is not there (without `create`).
            QueueExists: it is there and has other settings than those given.
            InvalidSetting: a setting is out of its range, or does not fit the others.
        """
        arn = arn_of(name)
        if create:
            self._transport.call(ops.CreateQueue(arn, to_fields(settings), tags=dict(tags or {})))
        else:
            calls.check_no_settings(settings, tags)
            self._transport.call(ops.GetQueue(arn))
        return Queue(self._transport, arn)

    def queues(self, prefix: str = "") -> list[QueueSummary]:
        """All queues whose name starts with `prefix`, sorted by ARN, with settings and counts.

        An empty prefix finds those of every region and account, any other those of the default ones (or of its ARN).
        """
        found: list[QueueSummary] = []
        while True:
            page = self._transport.call(calls.list_queues(prefix, found))
            found += [summary_of(description) for description in page]
            if len(page) < calls.PAGE:
                return found

    def receive_any(
        self,
        queues: Iterable[str],
        max: int = 10,  # noqa: A002 - as in Queue.receive
        *,
        wait: float = 20,
        visibility_timeout: float | None = None,
        holder: str | None = None,
    ) -> list[ReceivedMessage]:
        """Take messages of several queues in one go: all that the first has, up to `max`, then the next. As priorities.

        Args:
            queues: 1 to 100, by name or ARN, the most important first.
            max, wait, visibility_timeout, holder: as in Queue.receive.

        Returns:
            Messages in that order; empty if none came. `queue_arn` tells whose each is.
        """
        operation = calls.receive_any(queues, limit=max, visibility_timeout=visibility_timeout, holder=holder)
        given = self._transport.call(operation, to_ms("wait", wait))
        return [ReceivedMessage(Queue(self._transport, arn), one) for arn, some in given for one in some]

    def holders(self, kind: str = "") -> list[HolderState]:
        """Who is present at the broker (workers, pipelines, servers, …), sorted by name; `kind`: only these."""
        found: list[HolderState] = self._transport.call(ops.ListHolders(kind))
        return found

    def topic(self, name: str, *, create: bool = False, **settings: Unpack[TopicValues]) -> Topic:
        """The topic of that name.

        Args:
            name: plain name or ARN. 1 to 256 characters of A-Z, a-z, 0-9, - and _; a FIFO topic's ends in `.fifo`.
            create: make it if it is not there. Idempotent: a topic that is there must have the settings given.
            settings: with `create`; see TopicValues.

        Raises:
            TopicNotFound: it is not there (without `create`).
            TopicExists: it is there and has other settings than those given.
            InvalidSetting: a setting is out of its range, or does not fit the others.
        """
        arn = topic_arn_of(name)
        if create:
            self._transport.call(ops.CreateTopic(arn, topic_calls.to_fields(settings)))
        else:
            calls.check_no_settings(settings, None)
            self._transport.call(ops.GetTopic(arn))
        return Topic(self._transport, arn)

    def topics(self, prefix: str = "") -> list[TopicSummary]:
        """All topics whose name starts with `prefix`, sorted by ARN. As `queues`."""
        found: list[TopicSummary] = []
        while True:
            page = self._transport.call(topic_calls.list_topics(prefix, found))
            found += [topic_calls.summary_of(description) for description in page]
            if len(page) < calls.PAGE:
                return found

    def transact(self, name: str = "", *, epoch: int | None = None) -> Transaction:
        """A transaction: `with client.transact() as tx:`. It commits, atomically and durably, when the block ends well.

        Args:
            name: whose state it writes, and whose fence guards it; not needed without state or fence.
            epoch: what `fence(name)` answered; the commit is Fenced if somebody has taken over since.

        Raises (at the end of the block; then nothing was done):
            ReceiptExpired: a message that it acknowledges is not in flight any more.
            Fenced: a newer owner of `name`.
            CallerError: a message that it sends was refused.
        """
        return Transaction(self._transport, name, epoch)

    def fence(self, name: str) -> int:
        """Take over `name`: every earlier epoch's transactions fail from now on. Durable. Returns the new epoch."""
        epoch: int = self._transport.call(ops.Fence(name))
        return epoch

    def state(
        self, name: str, prefix: bytes | str = b"", *, limit: int | None = None, wait: float = 0
    ) -> dict[bytes, bytes]:
        """The state that transactions wrote under `name`: keys that start with `prefix`, sorted.

        Args:
            limit: no more than these; None for all.
            wait: seconds to wait until there is at least one, 0 to 20.
        """
        found: dict[bytes, bytes] = {}
        while True:
            operation = calls.get_state(name, prefix, found, limit)
            page = self._transport.call(operation, 0 if found else to_ms("wait", wait))
            found.update(page)
            if len(page) < operation.limit or len(found) == limit:
                return found

    def call(self, operation: ops.Operation, *, wait: float = 0) -> Any:
        """The outcome of an operation of `headrace.queue.operations`, as its docstring says; its error is raised.

        For systems built on the broker, such as streams, that put operations together themselves.

        Args:
            wait: for an operation that may wait (`operations.Waiting`), seconds, 0 to 20.
        """
        return self._transport.call(operation, to_ms("wait", wait))

    def cancel_move(self, task: MoveTask | str) -> MoveTask:
        """Stop a running redrive (the task or its handle). What has moved stays moved."""
        moved: MoveTask = self._transport.call(ops.CancelMove(task if isinstance(task, str) else task.handle))
        return moved

    def statistics(self) -> BrokerStatistics:
        """What the broker's store has done since it started: commits, latency, size."""
        return self._transport.statistics()

    def close(self) -> None:
        """End connections; an embedded broker finishes its commits and gives up the folder. Idempotent."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transaction(Collected):
    """A transaction for threads; made by `Client.transact`."""

    def __init__(self, transport: Transport, name: str, epoch: int | None) -> None:
        super().__init__(name, epoch)
        self._transport = transport

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        operation = self._operation() if error is None else None
        if operation is not None:
            self._committed(self._transport.call(operation))
