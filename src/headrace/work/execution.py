"""Running one attempt: arguments decoded, hooks called, whatever it raises turned into an outcome. Nothing is committed."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

from headrace.work import errors, limits
from headrace.work.context import Context, running
from headrace.work.options import Options, milliseconds
from headrace.work.outcome import Cancelled, ErrorInfo, Failed, Outcome, Succeeded

if TYPE_CHECKING:
    from headrace.work.app import App
    from headrace.work.task import Target


def run(app: App, target: Target, context: Context) -> Outcome:
    """One attempt of a sync task, in this thread. Never raises, but for KeyboardInterrupt and SystemExit.

    Cancelled and TimeLimitExceeded may be raised in this thread from outside, at any point of the task's code.
    """
    token = running.set(context)
    try:
        outcome = _attempt(app, target, context)
    finally:
        running.reset(token)
    app.hooks.after_run(context, outcome)
    return outcome


async def run_async(app: App, target: Target, context: Context) -> Outcome:
    """One attempt of an async task, on the running loop. Its time limit is kept here.

    Raises:
        asyncio.CancelledError: this was cancelled and `context.cancelled` is not set: the worker ends.
    """
    token = running.set(context)
    try:
        outcome = await _attempt_async(app, target, context)
    finally:
        running.reset(token)
    app.hooks.after_run(context, outcome)
    return outcome


def _attempt(app: App, target: Target, context: Context) -> Outcome:
    try:
        app.hooks.before_run(context)
        positional, named = target.call_arguments(context.job)
        value = target.function(*positional, **named)
        return _succeeded(target, context, value)
    except Exception as error:  # noqa: BLE001 - a task may raise anything
        return failed(error, context, target.defaults)


async def _attempt_async(app: App, target: Target, context: Context) -> Outcome:
    try:
        app.hooks.before_run(context)
        positional, named = target.call_arguments(context.job)
        limit = asyncio.timeout(context.job.timeout_s)
        try:
            async with limit:
                value = await target.function(*positional, **named)
        except TimeoutError as error:
            if limit.expired():
                raise errors.TimeLimitExceeded(f"it ran longer than {context.job.timeout_s:g} s") from error
            raise
        return _succeeded(target, context, value)
    except asyncio.CancelledError:
        if context.cancelled:
            return Cancelled()
        raise
    except Exception as error:  # noqa: BLE001 - a task may raise anything
        return failed(error, context, target.defaults)


def _succeeded(target: Target, context: Context, value: Any) -> Outcome:
    envelope = context.job.envelope
    needed = envelope.keep_result_s is not None or envelope.then or envelope.flow is not None
    result = target.encode_result(value) if needed else None
    if result is not None and len(result_bytes := bytes(result)) > limits.RESULT_BYTES_MAX:
        text = f"its result has {len(result_bytes)} bytes; at most {limits.RESULT_BYTES_MAX} are kept"
        return Failed(ErrorInfo("ResultTooLong", text), final=True)
    return Succeeded(result, tuple(context.outbox or ()))


def failed(error: BaseException, context: Context, options: Options) -> Outcome:
    """What an exception means: the task's own rules, in the order that OptionValues names them."""
    info = describe(error)
    if isinstance(error, errors.Cancelled):
        return Cancelled()
    if isinstance(error, errors.Retry):
        return Failed(info, delay_ms=_delay_ms(error.delay))
    if isinstance(error, errors.GiveUp | errors.InvalidArguments):
        return Failed(info, final=True)
    if options.retry is not None:
        return _ruled(error, info, context, options)
    refused = isinstance(error, options.give_up_on)
    wanted = not options.retry_on or isinstance(error, (*options.retry_on, errors.TimeLimitExceeded))
    return Failed(info, final=refused or not wanted)


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
    """An exception as it is kept: bounded."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = _traceback(error).encode(errors="replace")
    cut = text[-limits.TRACEBACK_BYTES_MAX :].decode(errors="ignore")
    return ErrorInfo(name, _text(error), cut)


def _traceback(error: BaseException) -> str:
    """As Python prints it, without the frames of ours that every task has."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_filename == __file__ and place.tb_next is not None:
        place = place.tb_next
    return "".join(traceback.format_exception(type(error), error, place))


def _text(error: BaseException) -> str:
    try:
        return str(error)[: limits.MESSAGE_CHARACTERS_MAX]
    except Exception:  # noqa: BLE001 - somebody else's __str__
        return "(its text cannot be shown)"
