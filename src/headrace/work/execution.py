"""Running one attempt: arguments decoded, hooks called, whatever it raises turned into an outcome. Nothing is committed."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace import tracing
from headrace.errors import InvalidMessage
from headrace.work import errors, limits
from headrace.work.context import Context, running
from headrace.work.options import Options, milliseconds
from headrace.work.outcome import Cancelled, ErrorInfo, Failed, Outcome, Succeeded

if TYPE_CHECKING:
    from headrace.work.app import App
    from headrace.work.task import Target


def run(app: App, target: Target, context: Context) -> Outcome:
    """One attempt of a sync task, in this thread. Never raises, but for KeyboardInterrupt.

    Cancelled and TimeLimitExceeded may be raised in this thread from outside, at any point of the task's code.
    """
    with _current(context):
        outcome = _attempt(app, target, context)
    app.hooks.after_run(context, outcome)
    return outcome


async def run_async(app: App, target: Target, context: Context) -> Outcome:
    """One attempt of an async task, on the running loop. Its time limit is kept here.

    Raises:
        asyncio.CancelledError: this was cancelled and `context.cancelled` is not set: the worker ends.
    """
    with _current(context):
        outcome = await _attempt_async(app, target, context)
    app.hooks.after_run(context, outcome)
    return outcome


def run_batch(app: App, consumer: Target, contexts: Sequence[Context]) -> list[Outcome]:
    """One call of a sync batch consumer with the messages of all contexts: an outcome for each, in order.

    A body that cannot be read fails alone; what the function raises is the outcome of all others. `current()` is the first.
    """
    batch = _Batch(app, consumer, contexts)
    if batch.values:
        with _current(contexts[0]):
            try:
                batch.begin()
                consumer.function(batch.values)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - as in `_attempt`
                batch.failed(error)
    return batch.end()


async def run_batch_async(app: App, consumer: Target, contexts: Sequence[Context]) -> list[Outcome]:
    """As `run_batch`, for an async one. Raises as `run_async`."""
    batch = _Batch(app, consumer, contexts)
    if batch.values:
        with _current(contexts[0]):
            try:
                batch.begin()
                await _limited(consumer.function(batch.values), contexts[0].job.timeout_s)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and _is_cancelled_from_outside():
                    raise
                batch.failed(error)
    return batch.end()


@contextmanager
def _current(context: Context) -> Iterator[None]:
    """In this block it is the running one, and what is sent carries its trace on."""
    token = running.set(context)
    try:
        with tracing.carrying(context.trace):
            yield
    finally:
        running.reset(token)


class _Batch:
    """A batch's messages as the function takes them, and what becomes of each."""

    def __init__(self, app: App, consumer: Target, contexts: Sequence[Context]) -> None:
        self._app = app
        self._consumer = consumer
        self._contexts = contexts
        self._outcomes: list[Outcome] = [Succeeded()] * len(contexts)
        self._readable: list[int] = []
        self.values: list[Any] = []
        for place, context in enumerate(contexts):
            self._read(place, context)

    def _read(self, place: int, context: Context) -> None:
        try:
            [value], _ = self._consumer.call_arguments(context.job)
        except InvalidMessage as error:
            self._outcomes[place] = Failed(describe(error), final=True)
            return
        self._readable.append(place)
        self.values.append(value)

    def begin(self) -> None:
        for place in self._readable:
            self._app.hooks.before_run(self._contexts[place])

    def failed(self, error: BaseException) -> None:
        for place in self._readable:
            self._outcomes[place] = failed(error, self._contexts[place], self._consumer.defaults)

    def end(self) -> list[Outcome]:
        for context, outcome in zip(self._contexts, self._outcomes, strict=True):
            self._app.hooks.after_run(context, outcome)
        return self._outcomes


def _attempt(app: App, target: Target, context: Context) -> Outcome:
    try:
        app.hooks.before_run(context)
        positional, named = target.call_arguments(context.job)
        value = target.function(*positional, **named)
        return _succeeded(target, context, value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a task may raise anything, and sys.exit() must not end its worker
        return failed(error, context, target.defaults)


async def _attempt_async(app: App, target: Target, context: Context) -> Outcome:
    try:
        app.hooks.before_run(context)
        positional, named = target.call_arguments(context.job)
        value = await _limited(target.function(*positional, **named), context.job.timeout_s)
        return _succeeded(target, context, value)
    except asyncio.CancelledError as error:
        if context.cancelled:
            return Cancelled()
        if _is_cancelled_from_outside():
            raise
        return failed(error, context, target.defaults)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as in `_attempt`
        return failed(error, context, target.defaults)


def _is_cancelled_from_outside() -> bool:
    """Whether the worker cancels what runs here; else a CancelledError is the task's own: it awaited what was cancelled."""
    here = asyncio.current_task()
    return here is not None and here.cancelling() > 0


async def _limited(running_task: Awaitable[Any], timeout_s: float | None) -> Any:
    """Its result. Raises TimeLimitExceeded in its place when it takes longer."""
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await running_task
    except TimeoutError as error:
        if limit.expired():
            raise errors.TimeLimitExceeded(f"it ran longer than {timeout_s:g} s") from error
        raise


def _succeeded(target: Target, context: Context, value: Any) -> Outcome:
    envelope = context.job.envelope
    outbox = tuple(context.outbox or ())
    if envelope.result_ttl_s is None and not envelope.then and envelope.workflow is None:
        return Succeeded(None, outbox)
    try:
        result = target.encode_result(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        text = f"what it returned cannot be kept: {error}"
        return Failed(ErrorInfo("ResultInvalid", text), final=True)  # to run it again would not change that
    if len(bytes(result)) > limits.RESULT_BYTES_MAX:
        text = f"what it returned has {len(bytes(result))} bytes as JSON; at most {limits.RESULT_BYTES_MAX} are kept"
        return Failed(ErrorInfo("ResultInvalid", text), final=True)
    return Succeeded(result, outbox)


def failed(error: BaseException, context: Context, options: Options) -> Outcome:
    """What an exception means: the task's own rules, in the order that OptionValues names them."""
    info = describe(error)
    if isinstance(error, errors.Cancelled):
        return Cancelled()
    if isinstance(error, errors.Retry):
        return _retried(error, info)
    if isinstance(error, errors.GiveUp | errors.InvalidArguments | InvalidMessage):
        return Failed(info, final=True)
    if options.retry is not None:
        return _ruled(error, info, context, options)
    refused = isinstance(error, options.give_up_on)
    wanted = not options.retry_on or isinstance(error, (*options.retry_on, errors.TimeLimitExceeded))
    return Failed(info, final=refused or not wanted)


def _retried(error: errors.Retry, info: ErrorInfo) -> Outcome:
    try:
        return Failed(info, delay_ms=_delay_ms(error.delay))
    except errors.InvalidOption as invalid:  # then the backoff holds
        return Failed(describe(invalid))


def _ruled(error: BaseException, info: ErrorInfo, context: Context, options: Options) -> Outcome:
    assert options.retry is not None
    try:
        delay = options.retry(error, context.attempt)
        return Failed(info, final=delay is None, delay_ms=_delay_ms(delay))
    except Exception as broken:  # noqa: BLE001 - a rule that raises decides nothing: the backoff holds
        broken.add_note(f"raised by the task's retry rule, which was asked about {info.line}")
        return Failed(describe(broken))


def _delay_ms(delay: Any) -> int | None:
    return None if delay is None else milliseconds("delay", delay, low=0, high=limits.DELAY_MAX_MS)


def describe(error: BaseException) -> ErrorInfo:
    """An exception as it is kept: bounded, and UTF-8. Never raises, whatever somebody else's exception does when it is asked."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = _shown(lambda: str(error))[: limits.MESSAGE_CHARACTERS_MAX]
    cut = _shown(lambda: _traceback(error)).encode()[-limits.TRACEBACK_BYTES_MAX :]
    return ErrorInfo(name[: limits.ERROR_NAME_CHARACTERS_MAX], text, cut.decode(errors="ignore"))


def _traceback(error: BaseException) -> str:
    """As Python prints it, without the frames of ours that every task has."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_filename == __file__ and place.tb_next is not None:
        place = place.tb_next
    return "".join(traceback.format_exception(type(error), error, place))


def _shown(make: Callable[[], str]) -> str:
    try:
        return make().encode(errors="replace").decode()
    except BaseException:  # noqa: BLE001 - somebody else's __str__
        return "(it cannot be shown)"
