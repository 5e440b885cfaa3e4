"""A task: a function, its options, and the ways to send it. A consumer: a function for any queue's messages."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

import msgspec

from headrace.work import names
from headrace.work.arguments import Arguments
from headrace.work.bodies import BodyReader
from headrace.work.composing import Call
from headrace.work.dispatch import Dispatch
from headrace.work.envelope import Envelope, Signature, Unique, new_id
from headrace.work.errors import InvalidOption
from headrace.work.job import Job
from headrace.work.options import Options, OptionValues, changed

if TYPE_CHECKING:
    from headrace.work.app import App
    from headrace.work.handle import Handle

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_PER_SEND: Final = frozenset(
    (
        "queue",
        "delay",
        "eta",
        "priority",
        "unique",
        "unique_until",
        "unique_ttl",
        "group",
        "retries",
        "timeout",
        "expires",
        "result_ttl",
    )
)
"""Options that travel with the message; the others are the worker's business."""


class Target(Protocol):
    """What a worker runs."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Any]: ...
    @property
    def is_async(self) -> bool: ...
    @property
    def defaults(self) -> Options: ...
    def call_arguments(self, job: Job) -> tuple[list[Any], dict[str, Any]]:
        """Raises InvalidArguments, InvalidMessage."""
        ...

    def encode_result(self, value: Any) -> msgspec.Raw:
        """Raises TypeError for what is no JSON."""
        ...


class Task(Generic[P, R]):
    """A function that can be sent; made by `@app.task`. Calling it runs it here, as the plain function.

    Attributes:
        app: whose it is.
        name: `module.function` unless said otherwise: what a message names.
        function: the function itself.
        is_async: whether it is a coroutine function.
        defaults: the options that it was decorated with: the worker goes by them.
        sent_with: the options that its sends carry.
        arguments: its signature, as a schema.
    """

    def __init__(self, app: App, function: Callable[P, R], name: str, options: Options) -> None:
        self.app = app
        self.name = name
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.defaults = options
        self.arguments = Arguments(function, name)
        self.sent_with = options
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Task({self.name})"

    @overload
    def send(self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Handle[T]: ...
    @overload
    def send(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a call of this task. It is on the broker's disk when this returns.

        Within `with app.transaction():`, and in a task with `outbox=True`, it is sent with that commit.

        Raises:
            InvalidArguments: the arguments do not fit. Nothing was sent.
            Unavailable: the broker cannot be reached. Nothing was sent.
            OutcomeUnknown: the connection broke; it may have been sent.
        """
        return self.app.sender.send(self, self.dispatch(args, kwargs))

    @overload
    async def asend(self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Handle[T]: ...
    @overload
    async def asend(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    async def asend(self, *args: Any, **kwargs: Any) -> Any:
        """As `send`, without blocking the event loop."""
        return await self.app.sender.asend(self, self.dispatch(args, kwargs))

    def send_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[Handle[Any]]:
        """Send many calls: one request and one commit for 10,000.

        Args:
            calls: an argument tuple, or a dict of arguments by name, a call. A generator is read as it is sent.

        Returns:
            A handle a call, in order.

        Raises:
            As `send`; calls before a slice that failed are sent.
        """
        return self.app.sender.send_many(self, (self.dispatch(*_call(call)) for call in calls))

    async def asend_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> list[Handle[Any]]:
        """As `send_many`, without blocking the event loop."""
        return await self.app.sender.asend_many(self, (self.dispatch(*_call(call)) for call in calls))

    def options(self, **values: Unpack[OptionValues]) -> Task[P, R]:
        """This task with other options for what is sent through the copy: `add.options(delay="10s").send(1, 2)`.

        Raises:
            InvalidOption: out of range, unknown, or one that only `@app.task` takes, since the worker goes by it.
        """
        for name, value in values.items():
            if name not in _PER_SEND and name in OptionValues.__annotations__:
                raise InvalidOption(name, repr(value), f"it applies to the whole task: set it with @app.task({name}=…)")
        bound = copy.copy(self)
        bound.sent_with = changed(self.sent_with, values)
        return bound

    def s(self, *args: Any, **kwargs: Any) -> Call[R]:
        """A call to be sent later or by others: in a chain, a group, a schedule. In a chain, the result before it becomes the
        first argument that is not given here.

        Raises:
            InvalidArguments: the arguments do not fit.
        """
        takes = self.arguments.first_open(args, kwargs)
        raw = self.arguments.encode_some(args, kwargs, without=takes) if takes else self.arguments.encode(args, kwargs)
        return self._signature(raw, takes)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """As `s`, immutable: it takes nothing of the result before it."""
        return self._signature(self.arguments.encode(args, kwargs), "")

    def dispatch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dispatch:
        """What `send` would send. Raises InvalidArguments."""
        return self.dispatch_raw(self.arguments.encode(args, kwargs))

    def dispatch_raw(self, raw: msgspec.Raw) -> Dispatch:
        """As `dispatch`, for arguments that are written already."""
        options = self.sent_with
        now_ms = self.app.clock()
        delay_ms = options.delay_from(now_ms)
        envelope = Envelope(
            self.name,
            new_id(now_ms),
            raw,
            retries_max=_if_changed(options.retries, self.defaults.retries),
            unique=self._unique(raw),
            group=self._text(options.group, raw),
            expires_ms=now_ms + delay_ms + options.expires_ms if options.expires_ms is not None else None,
            timeout_s=_if_changed(options.timeout_s, self.defaults.timeout_s),
            result_ttl_s=options.result_ttl_s,
            limit_key=self._text(self.defaults.key, raw),
            sent_ms=now_ms,
        )
        queue = names.of_priority(options.queue, options.priority)
        return Dispatch(queue, envelope, delay_ms, options.unique_ttl_ms)

    def call_arguments(self, job: Job) -> tuple[list[Any], dict[str, Any]]:
        """For the worker: what the function is called with. Raises InvalidArguments."""
        return self.arguments.call(job.envelope.args)

    def encode_result(self, value: Any) -> msgspec.Raw:
        """For the worker. Raises TypeError for what is no JSON."""
        return self.arguments.encode_result(value)

    def _signature(self, raw: msgspec.Raw, takes: str) -> Call[R]:
        options = self.sent_with
        if options.eta_ms is not None:
            raise InvalidOption("eta", str(options.eta_ms), "a call in a chain or group is sent later; use delay=")
        needing = {"unique": options.unique, "group": options.group, "key": self.defaults.key}
        unknown = next((name for name, value in needing.items() if callable(value)), None)
        if takes and unknown is not None:
            raise InvalidOption(
                unknown,
                "a function",
                "the arguments are not known before the result is; use .si(…), or a text",
            )
        dispatch = self.dispatch_raw(raw)
        envelope = dispatch.envelope
        signature = Signature(dispatch.queue, envelope, takes, dispatch.delay_ms, envelope.group)
        return Call(self.app, signature, dispatch.ttl_ms)

    def _unique(self, raw: msgspec.Raw) -> Unique | None:
        options = self.sent_with
        if options.unique is None:
            return None
        key = bytes(raw).decode() if options.unique is True else self._text(options.unique, raw)
        return Unique(f"{self.name}/{key}", options.unique_until)

    def _text(self, text: Any, raw: msgspec.Raw) -> str | None:
        return str(self.arguments.apply(text, raw)) if callable(text) else text


class Consumer:
    """A function for any queue's messages; made by `@app.consumer`.

    Its one parameter says what it takes: `bytes` and `str` the body; `dict`, a dataclass, a Struct, … the body's JSON as that;
    `headrace.work.Message` the message as a whole. With `batch`, the parameter is a list of these.

    Attributes:
        queue: whose messages.
        batch: at most so many messages a call; None: one message, not in a list.
    """

    def __init__(self, app: App, function: Callable[..., Any], queue: str, options: Options, batch: int | None) -> None:
        self.app = app
        self.queue = queue
        self.name = f"consumer:{queue}"
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.defaults = options
        self.batch = batch
        self._reader = BodyReader(function, batch=batch is not None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def call_arguments(self, job: Job) -> tuple[list[Any], dict[str, Any]]:
        return [self._reader.read(job.delivery)], {}

    def encode_result(self, value: Any) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(value))


def _call(call: tuple[Any, ...] | Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(call, Mapping):
        return (), dict(call)
    if isinstance(call, tuple):
        return call, {}
    raise InvalidOption(
        "calls", repr(call), "each is a tuple of arguments, or a dict of arguments by name: (7,), {'n': 7}"
    )


def _if_changed(value: Any, default: Any) -> Any:
    """What need not travel with the message does not."""
    return None if value == default else value
