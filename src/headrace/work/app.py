"""An app: tasks and consumers, and the broker that they go through.

import headrace

app = headrace.App("./data")  # or http://HOST:9324; HEADRACE_BROKER otherwise

@app.task
def add(a: int, b: int) -> int:
    return a + b

add.send(1, 2)  # a worker runs it:  headrace worker module:app
add(1, 2)       # runs here
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, Unpack, overload

from headrace.clock import Clock
from headrace.durations import Duration
from headrace.native.bodies import Body
from headrace.native.messages import Outgoing, entries_of
from headrace.queue.model import Delivery, topic_arn_of
from headrace.work import declaring, inline, sqs_address
from headrace.work.backend import Backend
from headrace.work.composing import Call
from headrace.work.declaring import ScheduleValues
from headrace.work.dispatch import Posting
from headrace.work.errors import InvalidOption, NoBroker
from headrace.work.handle import Handle
from headrace.work.inline import Run
from headrace.work.job import Job, open_job
from headrace.work.middleware import Hooks, Middleware
from headrace.work.options import DEFAULTS, ConsumerValues, OptionValues, changed, of_consumer
from headrace.work.schedules import Definition, Timing
from headrace.work.sending import Sender
from headrace.work.task import Consumer, Task
from headrace.work.transaction import Transaction

P = ParamSpec("P")
R = TypeVar("R")

VARIABLE: Final = "HEADRACE_BROKER"


class App:
    """Tasks and consumers of one program. Safe for many threads; a context manager: leaving it closes it.

    Args:
        broker: `http://HOST:PORT`, `https://…`, `unix:///PATH`, or a data folder; an SQS endpoint as SqsBackend names them
            (`sqs://REGION`); None takes HEADRACE_BROKER when it is
            first needed. Nothing is connected before that.
        middleware: see Middleware.
        backend: another broker than headrace's; then `broker` is not looked at.
        clock: wall clock milliseconds; tests move it by hand.
        options: defaults for all tasks; see OptionValues.

    Attributes:
        tasks: by name.
        consumers: by queue.
    """

    def __init__(
        self,
        broker: str | Path | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        backend: Backend | None = None,
        clock: Clock | None = None,
        **options: Unpack[OptionValues],
    ) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        self.consumers: dict[str, Consumer] = {}
        self._schedules: dict[str, Definition] = {}
        self.hooks = Hooks(middleware)
        self.clock: Clock = clock or wall_ms
        self.sender = Sender(self)
        self._broker = broker
        self._backend = backend
        self._options = changed(DEFAULTS, options)
        self._opening = threading.Lock()

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, *, name: str | None = None, **options: Unpack[OptionValues]
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(  # type: ignore[misc] # mypy does not see that an unpacked TypedDict fits **options
        self, function: Any = None, /, *, name: str | None = None, **options: Any
    ) -> Any:
        """Make a function a task: `@app.task` or `@app.task(retries=3, …)`.

        Args:
            name: what messages call it; `module.function` unless said otherwise. Must not change while messages wait.
            options: see OptionValues.

        Raises:
            InvalidOption: an option is unknown, out of range, or does not go with another; an annotation cannot be sent.
        """
        made = changed(self._options, options)

        def register(function: Callable[P, R]) -> Task[P, R]:
            task = Task(self, function, name or _name(function), made)
            known = self.tasks.get(task.name)
            if known is not None and known.function.__code__ is not getattr(function, "__code__", None):
                raise InvalidOption("name", task.name, "there is another task of this name; give one of them name=")
            self.tasks[task.name] = task
            return task

        return register if function is None else register(function)

    def consumer(
        self, queue: str, *, batch: int | None = None, **options: Unpack[ConsumerValues]
    ) -> Callable[[Callable[..., Any]], Consumer]:
        """Make a function the consumer of a queue, whoever fills it: `@app.consumer("orders")`.

        Its parameter's annotation says what it takes; see Consumer. A failed message is shown again after the backoff and goes
        to `<queue>-dead` when no retry is left, with its body as it came.

        Args:
            queue: the queue's name.
            batch: takes a list of at most so many messages, 1 to 10,000.
            options: see ConsumerValues.
        """

        def register(function: Callable[..., Any]) -> Consumer:
            if queue in self.consumers:
                raise InvalidOption("queue", queue, "it has a consumer already")
            made = of_consumer(queue, options, batch)
            self.consumers[queue] = Consumer(self, function, queue, made, batch)
            return self.consumers[queue]

        return register

    @overload
    def schedule(self, cron: str, /, **values: Unpack[ScheduleValues]) -> Callable[[Task[P, R]], Task[P, R]]: ...
    @overload
    def schedule(
        self,
        call: Call[Any],
        /,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        **values: Unpack[ScheduleValues],
    ) -> None: ...
    def schedule(
        self, what: Any, /, *, cron: str | None = None, every: Duration | None = None, **values: Unpack[ScheduleValues]
    ) -> Any:
        """Have a task sent at certain times, once for each however many workers run:
        `@app.schedule("*/5 * * * *", tz="Europe/Berlin")` above `@app.task`, or `app.schedule(task.s(7), cron=…, name=…)`.

        Args:
            cron: minute, hour, day, month, weekday; six fields begin with seconds.
            every: an interval, at least a second: multiples of it since 1970, UTC.
            values: see ScheduleValues.

        Raises:
            InvalidParameter: a time cannot be read, or a value is out of range.
            InvalidOption: there is another schedule of this name.
        """
        if isinstance(what, Call):
            self._declare(declaring.of_call(what, cron, every, values))
            return None
        return self._scheduled(declaring.timing(what, None, values), values)

    def every(self, interval: Duration, /, **values: Unpack[ScheduleValues]) -> Callable[[Task[P, R]], Task[P, R]]:
        """`@app.every("30s")` above `@app.task`: have it sent at each multiple of the interval since 1970, UTC. As `schedule`."""
        return self._scheduled(declaring.timing(None, interval, values), values)

    @property
    def schedules(self) -> list[Definition]:
        """All that are declared, sorted by name."""
        return [self._schedules[name] for name in sorted(self._schedules)]

    def _scheduled(self, timing: Timing, values: ScheduleValues) -> Callable[[Task[P, R]], Task[P, R]]:
        def register(task: Task[P, R]) -> Task[P, R]:
            self._declare(declaring.of_task(task, timing, values))
            return task

        return register

    def _declare(self, definition: Definition) -> None:
        if definition.name in self._schedules:
            raise InvalidOption(
                "name", definition.name, "there is another schedule of this name; give one of them name="
            )
        self._schedules[definition.name] = definition

    def handle(self, task_id: str) -> Handle[Any]:
        """The handle of a task that was sent, by anybody, from its id."""
        return Handle(self, task_id)

    def transaction(self) -> Transaction:
        """`with app.transaction():` what tasks of this app send in the block is sent in one commit when it ends well, and not
        at all if it raises. For this thread, or this asyncio task; `async with` does not block the loop."""
        return Transaction(self)

    def send(self, queue: str, *messages: Body | Outgoing) -> None:
        """Send plain messages, no tasks, to a queue: for consumers, pipelines, SQS clients. The queue is made if need be.

        In a task with `outbox=True` they are part of its acknowledgement: sent once if it succeeds, and not at all by attempts that fail.
        In `with app.transaction():` they are part of that. Else they are sent now, in one commit, and on the disk when this returns.

        Args:
            queue: its name.
            messages: bodies (bytes, str or what JSON can carry), or Outgoing with attributes, group, delay.

        Raises:
            InvalidMessage: one of them cannot be sent; then none is.
        """
        self.sender.post(_postings(queue, messages))

    async def asend(self, queue: str, *messages: Body | Outgoing) -> None:
        """As `send`, without blocking the event loop."""
        await self.sender.apost(_postings(queue, messages))

    def publish(self, topic: str, *messages: Body | Outgoing) -> None:
        """Publish plain messages to a topic that is there: as `send`, and every subscribed queue gets them in the same commit.

        Raises:
            TopicNotFound: there is no such topic.
            InvalidMessage: one of them cannot be sent; then none is.
        """
        self.sender.post(_postings(topic_arn_of(topic), messages))

    async def apublish(self, topic: str, *messages: Body | Outgoing) -> None:
        """As `publish`, without blocking the event loop."""
        await self.sender.apost(_postings(topic_arn_of(topic), messages))

    def run_pending(self, *, queues: Sequence[str] | None = None, runs_max: int = 10_000) -> list[Run]:
        """Run here, one after another, all that is due, and what that sends, until nothing is due any more.

        For tests (`headrace.testing.tasks` has a clock that moves by hand), and for scripts that empty a queue and end. By the
        same rules as the workers; time limits of sync tasks do not hold.

        Args:
            queues: only these; None for those of all tasks and consumers. Priorities' siblings are included.
            runs_max: stops after so many: a task that sends itself would go on for ever.

        Returns:
            A Run an attempt, in order.
        """
        return inline.run_pending(self, queues=queues, runs_max=runs_max)

    def open_job(self, queue: str, delivery: Delivery) -> Job:
        """For workers: what a delivery means to this app."""
        return open_job(queue, delivery, self.tasks, self.consumers)

    @property
    def queues(self) -> list[str]:
        """The queues of all tasks and consumers, sorted; priorities' siblings not named."""
        return sorted({*(task.defaults.queue for task in self.tasks.values()), *self.consumers})

    @property
    def broker(self) -> str | None:
        """Where the broker is: what this app was made with, else HEADRACE_BROKER; None: nobody has said."""
        return str(self._broker) if self._broker is not None else os.environ.get(VARIABLE) or None

    @property
    def backend(self) -> Backend:
        """The broker; connected when first asked for.

        Raises:
            NoBroker: none was named.
            StoreUnusable, InvalidParameter: as `headrace.connect`.
        """
        with self._opening:
            if self._backend is None:
                self._backend = open_backend(self._broker if self._broker is not None else os.environ.get(VARIABLE))
            return self._backend

    def connect(self, broker: str | Path | Backend) -> None:
        """Use this broker from now on, such as the one that the command line names; closes the one used so far."""
        self.close()
        with self._opening:
            if isinstance(broker, str | Path):
                self._broker = broker
            else:
                self._backend = broker

    @contextmanager
    def on(self, backend: Backend, *, clock: Clock | None = None) -> Iterator[None]:
        """This app on another backend, and maybe another clock, for a block: for tests. Closes that backend at its end."""
        before = self._backend, self.clock
        self._backend, self.clock = backend, clock or self.clock
        try:
            yield
        finally:
            self._backend, self.clock = before
            backend.close()

    def close(self) -> None:
        """Give up the connection. Idempotent; the next use connects again."""
        with self._opening:
            backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_backend(target: str | Path | None) -> Backend:
    """The backend for a broker's address. Raises as App.backend."""
    if target is None:
        raise NoBroker
    if sqs_address.is_sqs(str(target)):
        from headrace.work.sqs_backend import SqsBackend  # noqa: PLC0415 - the extra `sqs`

        return SqsBackend(str(target))
    from headrace.work.broker_backend import BrokerBackend  # noqa: PLC0415 - the client is loaded by who sends

    return BrokerBackend(target)


def _postings(queue: str, messages: Sequence[Body | Outgoing]) -> list[Posting]:
    return [Posting(queue, entry) for entry in entries_of(messages, delay=None, group=None)]


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _name(function: Callable[..., Any]) -> str:
    """`module.function`; for a script, the name that a worker imports it by."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        module = spec.name if spec is not None else Path(getattr(main, "__file__", None) or "__main__").stem
    return f"{module}.{function.__qualname__}"
