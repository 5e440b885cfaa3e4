"""Options of a task: validated when it is decorated, not when it runs."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, TypedDict

import msgspec

from headrace.durations import Duration, DurationInvalid, duration_text, duration_us
from headrace.errors import InvalidParameter
from headrace.work import limits, names
from headrace.work.errors import InvalidOption
from headrace.work.limiting import parse_rate
from headrace.work.retries import Backoff

Text: TypeAlias = "str | Callable[..., str]"
"""A text, or a function that makes it of the task's arguments."""
RetryRule: TypeAlias = Callable[[BaseException, int], "float | None"]
"""(error, attempts made) → seconds until the next attempt, None for no further one."""


class OptionValues(TypedDict, total=False):
    """What `@app.task(…)` and `task.options(…)` take. Lengths of time: seconds, a timedelta, or text as "5 minutes".

    Attributes:
        queue: whose messages they are: `tasks` unless said otherwise. A name ending in `.fifo` keeps order per group.
        delay: hidden for so long after sending, 0 to 14 days. Not on a FIFO queue.
        eta: hidden until this moment, at most 14 days ahead: a datetime with a time zone. Not with `delay`, nor on a FIFO
            queue. A time in the past means at once.
        priority: -1, 0 or 1: what is higher is taken first. Not on a FIFO queue.
        unique: at most one task of this key is queued or runs: a text, a function of the arguments, or True for all
            arguments. A second send answers the handle of the first.
        unique_until: the unique lock is held until the task is `finished` (default) or `started`; `ttl`: for all of `unique_ttl`, also when the
            task is long done, as an Idempotency-Key is.
        unique_ttl: the unique lock ends after this at the latest: 1 day unless said otherwise.
        group: standard queue: the tenant, for fairness. FIFO queue: the unit of order; required.
        retries: how often it is tried again, 0 to 1,000; 20 unless said otherwise.
        max_worker_losses: how often its worker may die with it (or its lease end), apart from retries, 0 to 100; 5 unless said otherwise.
            A task that was fetched with others and not begun is lost, too. 0: at most once.
        backoff: a Backoff, or the first wait (doubling up to an hour).
        retry_on: only these exceptions are retried.
        give_up_on: these exceptions are not retried.
        retry: a function (error, attempts made) → seconds or None; decides alone.
        timeout: how long one attempt may run, up to 12 hours.
        expires: not begun later than so long after it was sent.
        result_ttl: how long its result is kept for its handle; None: not at all.
        outbox: what it sends is committed with its own acknowledgement, or not at all.
        rate: at most so many starts, such as "100/m", over all workers.
        concurrency: at most so many at a time, over all workers.
        key: makes `rate` and `concurrency` hold for each key: a function of the arguments.
    """

    queue: str
    delay: Duration
    eta: dt.datetime | None
    priority: Literal[-1, 0, 1]
    unique: Text | bool | None
    unique_until: Literal["finished", "started", "ttl"]
    unique_ttl: Duration
    group: Text | None
    retries: int
    max_worker_losses: int
    backoff: Backoff | Duration
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    give_up_on: type[BaseException] | tuple[type[BaseException], ...]
    retry: RetryRule | None
    timeout: Duration | None
    expires: Duration | None
    result_ttl: Duration | None
    outbox: bool
    rate: str | None
    concurrency: int | None
    key: Text | None


class ConsumerValues(TypedDict, total=False):
    """What `@app.consumer(…)` takes: fields of OptionValues that mean something for another's message."""

    retries: int
    max_worker_losses: int
    backoff: Backoff | Duration
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    give_up_on: type[BaseException] | tuple[type[BaseException], ...]
    retry: RetryRule | None
    timeout: Duration | None
    outbox: bool


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options, checked, with units. Fields as in OptionValues."""

    queue: str = "tasks"
    delay_ms: int = 0
    eta_ms: int | None = None
    priority: int = 0
    unique: Text | bool | None = None
    unique_until: str = "finished"
    unique_ttl_ms: int = limits.UNIQUE_TTL_MS
    group: Text | None = None
    retries: int = limits.RETRIES
    max_worker_losses: int = limits.LOSSES
    backoff: Backoff = Backoff()
    retry_on: tuple[type[BaseException], ...] = ()
    give_up_on: tuple[type[BaseException], ...] = ()
    retry: RetryRule | None = None
    timeout_s: float | None = None
    expires_ms: int | None = None
    result_ttl_s: float | None = None
    outbox: bool = False
    rate: str | None = None
    concurrency: int | None = None
    key: Text | None = None

    def __post_init__(self) -> None:
        if self.eta_ms is not None and self.delay_ms:
            raise InvalidOption("eta", str(self.eta_ms), "give either eta= or delay=")
        if self.fifo:
            for option, value in (("delay", self.delay_ms), ("eta", self.eta_ms), ("priority", self.priority)):
                if value:
                    raise InvalidOption(
                        option, repr(value), "a FIFO queue keeps order: it has neither delay nor priority"
                    )
        if self.fifo and self.group is None:
            raise InvalidOption(
                "group", "None", f"{self.queue} is a FIFO queue: say which tasks keep order among each other"
            )
        if self.key is not None and self.rate is None and self.concurrency is None:
            raise InvalidOption("key", repr(self.key), "it belongs to rate= or concurrency=")

    @property
    def fifo(self) -> bool:
        return self.queue.endswith(".fifo")

    def delay_from(self, now_ms: int) -> int:
        """The delay of a message that is sent at `now_ms`. Raises InvalidOption: `eta` is too far ahead."""
        if self.eta_ms is None:
            return self.delay_ms
        delay_ms = max(0, self.eta_ms - now_ms)
        if delay_ms > limits.DELAY_MAX_MS:
            most = duration_text(limits.DELAY_MAX_MS * 1_000)
            raise InvalidOption("eta", duration_text(delay_ms * 1_000) + " ahead", f"a task waits at most {most}")
        return delay_ms

    @property
    def limited(self) -> bool:
        return self.rate is not None or self.concurrency is not None


DEFAULTS: Final = Options()


def changed(options: Options, values: Mapping[str, Any]) -> Options:
    """The options with `values` (OptionValues) in place.

    Raises:
        InvalidOption: there is no such option, a value is out of range, or two do not go together.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        rule = _RULES.get(name)
        if rule is None:
            raise InvalidOption(name, repr(value), _unknown(name))
        field, convert = rule
        fields[field] = convert(name, value)
    return msgspec.structs.replace(options, **fields)


def of_consumer(queue: str, values: Mapping[str, Any], batch: int | None = None) -> Options:
    """The options of a queue's consumer. Raises as `changed`."""
    if batch is not None:
        _number(1, limits.CONSUMER_BATCH_MAX)("batch", batch)
        if values.get("outbox"):
            raise InvalidOption(
                "outbox", "True", "a batch has no one acknowledgement that it could be part of; take batch=None"
            )
    for name, value in values.items():
        if name in _RULES and name not in ConsumerValues.__annotations__:
            raise InvalidOption(
                name, repr(value), f"a consumer's options are {', '.join(ConsumerValues.__annotations__)}"
            )
    named = (
        Options(queue=_queue("queue", queue), group="")
        if queue.endswith(".fifo")
        else Options(queue=_queue("queue", queue))
    )
    return changed(named, values)


def milliseconds(name: str, value: Any, *, low: int, high: int) -> int:
    """Raises InvalidOption for what is no length of time, or out of range."""
    if isinstance(value, bool) or (not isinstance(value, int | float | str) and not hasattr(value, "total_seconds")):
        raise InvalidOption(
            name, repr(value), "it must be a duration: seconds, a timedelta, or text such as '5 minutes'"
        )
    try:
        found = round(duration_us(value) / 1_000)
    except (DurationInvalid, ValueError, OverflowError) as error:
        raise InvalidOption(name, repr(value), str(error)) from None
    if not low <= found <= high:
        raise InvalidOption(
            name, repr(value), f"it must be from {duration_text(low * 1_000)} to {duration_text(high * 1_000)}"
        )
    return found


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _RULES, 1)
    return (
        f"unknown option; did you mean {near[0]}?" if near else f"unknown option; the options are {', '.join(_RULES)}"
    )


def _length(low: int, high: int, *, unit: int = 1, optional: bool = False) -> Callable[[str, Any], Any]:
    def convert(name: str, value: Any) -> Any:
        if value is None and optional:
            return None
        found = milliseconds(name, value, low=low, high=high)
        return found if unit == 1 else found / unit

    return convert


def _one_of(*allowed: Any) -> Callable[[str, Any], Any]:
    def convert(name: str, value: Any) -> Any:
        if isinstance(value, bool) or value not in allowed:
            raise InvalidOption(name, repr(value), f"it must be one of {', '.join(map(repr, allowed))}")
        return value

    return convert


def _number(low: int, high: int, *, optional: bool = False) -> Callable[[str, Any], Any]:
    def convert(name: str, value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidOption(name, repr(value), f"it must be a whole number from {low} to {high}")
        return value

    return convert


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption(name, repr(value), "it must be True or False")
    return value


def _text(name: str, value: Any) -> Any:
    if value is not None and not callable(value) and not (isinstance(value, str) and value):
        raise InvalidOption(
            name, repr(value), "it must be a string, or a function of the task's arguments that returns one"
        )
    return value


def _unique(name: str, value: Any) -> Any:
    return (value or None) if isinstance(value, bool) else _text(name, value)


def _queue(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidOption(name, repr(value), "it must be the name of a queue")
    plain = value.removesuffix(".fifo")
    if len(value) > 75 or not plain.replace("-", "").replace("_", "").isalnum() or not plain.isascii():
        raise InvalidOption(
            name, value, "1 to 75 characters of A-Z, a-z, 0-9, - and _ (its dead letters' name is 5 longer)"
        )
    return value


def _task_queue(name: str, value: Any) -> str:
    queue = _queue(name, value)
    if names.base(queue) != queue:
        raise InvalidOption(
            name, queue, f"that is where {names.base(queue)} keeps its priorities; say queue and priority="
        )
    return queue


def _errors(name: str, value: Any) -> tuple[type[BaseException], ...]:
    kinds = value if isinstance(value, tuple | list) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise InvalidOption(name, repr(kind), "it must be an exception class or a tuple of them")
    return tuple(kinds)


def _function(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise InvalidOption(name, repr(value), "it must be a function (error, attempts made) → seconds or None")
    return value


def _eta(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise InvalidOption(name, repr(value), "it must be a datetime with a time zone, such as datetime.now(UTC)")
    return round(value.timestamp() * 1_000)


def _backoff(name: str, value: Any) -> Backoff:
    if isinstance(value, Backoff):
        return value
    first = milliseconds(name, value, low=0, high=limits.BACKOFF_MAX_MS)
    return Backoff(first_ms=first)


def _rate(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidOption(name, repr(value), "it must be a string such as '100/m' or '5/s'")
    try:
        parse_rate(value)
    except InvalidParameter as error:
        raise InvalidOption(name, repr(value), error.reason) from None
    return value


_RULES: Final[dict[str, tuple[str, Callable[[str, Any], Any]]]] = {
    "queue": ("queue", _task_queue),
    "delay": ("delay_ms", _length(0, limits.DELAY_MAX_MS)),
    "eta": ("eta_ms", _eta),
    "priority": ("priority", _one_of(-1, 0, 1)),
    "unique": ("unique", _unique),
    "unique_until": ("unique_until", _one_of("finished", "started", "ttl")),
    "unique_ttl": ("unique_ttl_ms", _length(1, limits.UNIQUE_TTL_MAX_MS)),
    "group": ("group", _text),
    "retries": ("retries", _number(0, limits.RETRIES_MAX)),
    "max_worker_losses": ("max_worker_losses", _number(0, limits.LOSSES_MAX)),
    "backoff": ("backoff", _backoff),
    "retry_on": ("retry_on", _errors),
    "give_up_on": ("give_up_on", _errors),
    "retry": ("retry", _function),
    "timeout": ("timeout_s", _length(1, limits.TIMEOUT_MAX_MS, unit=1_000, optional=True)),
    "expires": ("expires_ms", _length(1, limits.RETENTION_MS, optional=True)),
    "result_ttl": ("result_ttl_s", _length(1, limits.RESULT_KEEP_MAX_MS, unit=1_000, optional=True)),
    "outbox": ("outbox", _switch),
    "rate": ("rate", _rate),
    "concurrency": ("concurrency", _number(1, 10_000, optional=True)),
    "key": ("key", _text),
}
"""Option → field of Options, and what checks and converts it. The one table to extend for a new option."""
