"""`headrace task`: what tasks wait, ran and failed; calling, cancelling and retrying them by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output as out
from headrace.cli.options import Command, broker_option, duration, open_client, output_option
from headrace.cli.queue import OrderedGroup

if TYPE_CHECKING:
    from headrace.work.broker_backend import BrokerBackend
    from headrace.work.envelope import Attempt, Envelope
    from headrace.work.inspecting import Waiting
    from headrace.work.results import Result
    from headrace.work.run_log import Run

RUN_COLUMNS = ("id", "task", "status", "attempt", "waited_seconds", "took_seconds", "ended_at", "error")
WAITING_COLUMNS = ("id", "task", "state", "queue", "attempt", "sent_at", "due_at")
DEAD_COLUMNS = ("id", "task", "queue", "sent_at", "error")
DISPOSITIONS = ("succeeded", "retried", "dead", "cancelled", "expired", "deferred")
"""As `headrace.work.settling.Disposition`, which help does not load."""
ATTEMPT_COLUMNS = ("attempt", "at", "error", "message", "worker")


@click.group(cls=OrderedGroup)
def task() -> None:
    """Look at tasks, and call, cancel and retry them.

    Every command takes --broker URL|DIR (or HEADRACE_BROKER) and -o table|json|jsonl.
    """


def _id_argument(command: Command) -> Command:
    return click.argument("task_id", metavar="ID")(command)


def _queue_option(command: Command) -> Command:
    return click.option(
        "-Q",
        "--queue",
        "queues",
        multiple=True,
        help="Look there alone; may be repeated. Without it, in every task queue.",
    )(command)


@click.command("ls")
@click.argument("name", metavar="[TASK]", default="")
@click.option("--waiting", is_flag=True, help="What waits or runs, instead of what ran.")
@click.option("--dead", is_flag=True, help="The dead letters.")
@click.option(
    "--status", type=click.Choice(DISPOSITIONS), help="Only runs that ended so; deferred: it waits for its limit."
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 20_000), default=50, show_default=True, help="No more than these."
)
@_queue_option
@broker_option
@output_option
def ls(
    name: str, waiting: bool, dead: bool, status: str | None, limit: int, queues: tuple[str, ...], target: str,
    output: str | None,
) -> None:  # fmt: skip
    """List runs, the newest first; or, with --waiting and --dead, tasks in their queues.

    TASK leaves only those whose name starts with it. Runs are kept for a day, the newest 20,000.
    """
    from headrace.work import names, run_log  # noqa: PLC0415 - help needs no tasks

    with _backend(target) as backend:
        if waiting or dead:
            found = [names.dead(queue) if dead else queue for queue in _queues(backend, queues)]
            rows = [_waiting_row(one) for one in _few(_waiting(backend, found, name), limit)]
            out.print_rows(rows, output, DEAD_COLUMNS if dead else WAITING_COLUMNS, none="No task is there.")
            return
        runs = run_log.read_runs(backend, limit=20_000)
        fitting = (run for run in runs if run.task.startswith(name) and status in (None, run.status))
        out.print_rows([_run_row(run) for run in _few(fitting, limit)], output, RUN_COLUMNS, none="No run is known.")


@click.command("show")
@_id_argument
@_queue_option
@broker_option
@output_option
def show(task_id: str, queues: tuple[str, ...], target: str, output: str | None) -> None:
    """Show a task: where it is, what it was called with, what it gave."""
    with _backend(target) as backend:
        row = _details(backend, task_id, queues)
    out.print_row(row, output)


@click.command("call")
@click.argument("name", metavar="TASK")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("-Q", "--queue", default="tasks", show_default=True, help="The task's queue.")
@click.option("--delay", type=duration, default=0.0, help="Run it so much later: 30s, 5m, 12h, 4d.")
@click.option("--keep", type=duration, help="Keep its result for so long.")
@click.option("--wait", type=duration, help="Wait so long for its result, and print it. Keeps it for an hour.")
@broker_option
@output_option
def call(
    name: str, arguments: tuple[str, ...], queue: str, delay: float, keep: float | None, wait: float | None, target: str,
    output: str | None,
) -> None:  # fmt: skip
    """Send a task: `headrace task call shop.mail.send to=ada@example.org copies=2`.

    A VALUE is JSON, or else text. They are checked by the worker, which knows the task. The id is printed when the task is
    on the broker's disk.
    """
    from headrace.work.dispatch import entry_of  # noqa: PLC0415 - as in ls
    from headrace.work.envelope import new_id  # noqa: PLC0415

    keep_s = keep if keep is not None else 3_600.0 if wait is not None else None
    envelope = _envelope(name, new_id(), arguments, keep_s)
    with _backend(target) as backend:
        [sent] = backend.send(queue, [entry_of(queue, envelope, round(delay * 1_000))])
        if isinstance(sent, Exception):
            raise sent
        if wait is None:
            out.print_row({"id": envelope.id, "task": name, "queue": queue}, output)
            return
        _print_result(backend, envelope.id, wait, output)


@click.command("wait")
@_id_argument
@click.option("--timeout", type=duration, default=60.0, help="How long, 60s unless said otherwise.")
@broker_option
@output_option
def wait(task_id: str, timeout: float, target: str, output: str | None) -> None:
    """Wait for a task's end and print its result.

    Fails if it ended without one, has not ended in time, or keeps no result.
    """
    with _backend(target) as backend:
        _print_result(backend, task_id, timeout, output)


@click.command("logs")
@_id_argument
@_queue_option
@broker_option
@output_option
def logs(task_id: str, queues: tuple[str, ...], target: str, output: str | None) -> None:
    """Print what went wrong: a task's failed attempts, each with its traceback.

    Known as long as the task waits, or is among the dead letters.
    """
    with _backend(target) as backend:
        found = _find(backend, task_id, queues)
    if found is None:
        raise click.ClickException(f"no queue has task {task_id}; `headrace task ls` lists the runs of the last day")
    rows = [_attempt_row(attempt) for attempt in found.envelope.history]
    out.print_rows(rows, output, ATTEMPT_COLUMNS, none="No attempt has failed.")
    if out.chosen(output) == "table":
        for row in rows:
            if row["traceback"]:
                click.echo(f"\nAttempt {row['attempt']}:\n{row['traceback']}")


@click.command("cancel")
@_id_argument
@_queue_option
@broker_option
@output_option
def cancel(task_id: str, queues: tuple[str, ...], target: str, output: str | None) -> None:
    """Let a task not run, or end.

    Prints cancelled: it waited, and never runs. asked: it runs, or was not found; it ends within a second or so, or is not
    begun. finished: it had ended.
    """
    from headrace.work import cancelling  # noqa: PLC0415 - as in ls

    with _backend(target) as backend:
        found = _find(backend, task_id, queues, dead=False)
        place: dict[str, Any] = {"queue": found.queue, "seq": found.seq} if found is not None else {}
        answer = cancelling.cancel(backend, task_id, now_ms=_now_ms(), **place)
    out.print_row({"id": task_id, "answer": answer}, output)


@click.command("retry")
@_id_argument
@_queue_option
@broker_option
@output_option
def retry(task_id: str, queues: tuple[str, ...], target: str, output: str | None) -> None:
    """Start a dead task anew, with all its attempts. Its history stays.

    All of a queue's are moved by `headrace queue redrive QUEUE-dead`.
    """
    from headrace.errors import MessageNotFound  # noqa: PLC0415 - as in ls
    from headrace.work import inspecting  # noqa: PLC0415

    with _backend(target) as backend:
        try:
            queue = inspecting.retry_by_id(backend.client, task_id, _queues(backend, queues))
        except MessageNotFound:
            raise click.ClickException(
                f"task {task_id} is among no dead letters; `headrace task ls --dead` lists them"
            ) from None
    out.print_row({"id": task_id, "queue": queue}, output)


@contextmanager
def _backend(target: str) -> Iterator[BrokerBackend]:
    from headrace.work.broker_backend import BrokerBackend  # noqa: PLC0415 - as in ls

    backend = BrokerBackend(open_client(target))
    try:
        yield backend
    finally:
        backend.close()


def _queues(backend: BrokerBackend, given: tuple[str, ...]) -> list[str]:
    from headrace.work import inspecting, names  # noqa: PLC0415 - as in ls

    if given:
        return [sibling for queue in given for sibling in names.in_order(queue)]
    return inspecting.task_queues(backend.client)


def _find(backend: BrokerBackend, task_id: str, given: tuple[str, ...], *, dead: bool = True) -> Waiting | None:
    from headrace.work import inspecting, names  # noqa: PLC0415 - as in ls

    queues = _queues(backend, given)
    deads = sorted({names.dead(queue) for queue in queues}) if dead else []
    return inspecting.find(backend.client, task_id, [*queues, *deads])


def _waiting(backend: BrokerBackend, queues: list[str], name: str) -> Iterator[Waiting]:
    from headrace.work import inspecting  # noqa: PLC0415 - as in ls

    distinct = dict.fromkeys(queues)
    return (one for one in inspecting.waiting(backend.client, distinct) if one.envelope.task.startswith(name))


def _few(found: Any, limit: int) -> list[Any]:
    return [one for one, _ in zip(found, range(limit), strict=False)]


def _details(backend: BrokerBackend, task_id: str, queues: tuple[str, ...]) -> out.Row:
    from headrace.work import keys, results, run_log  # noqa: PLC0415 - as in ls

    found = _find(backend, task_id, queues)
    kept = backend.read(keys.result(task_id))
    runs = [run for run in run_log.read_runs(backend, limit=20_000) if run.id == task_id]
    row: out.Row = {"id": task_id}
    if found is not None:
        row |= _waiting_row(found) | {"arguments": found.envelope.args, "failed_attempts": len(found.envelope.history)}
    if runs:
        row |= {"task": runs[0].task, "runs": len(runs), "last_run": runs[0].status, "worker": runs[0].worker}
    if kept is not None:
        row |= _result_row(results.decode(kept))
    if len(row) == 1:
        raise click.ClickException(
            f"nothing is known of task {task_id}: it is in no queue, and no run or result is kept"
        )
    return row


def _envelope(name: str, task_id: str, arguments: tuple[str, ...], keep_s: float | None) -> Envelope:
    import msgspec  # noqa: PLC0415 - as in ls

    from headrace.work.envelope import Envelope  # noqa: PLC0415

    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{argument!r} is not of the form NAME=VALUE")
        values[key] = _value(text)
    return Envelope(name, task_id, msgspec.Raw(msgspec.json.encode(values)), result_ttl_s=keep_s, sent_ms=_now_ms())


def _value(text: str) -> Any:
    import msgspec  # noqa: PLC0415 - as in ls

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _print_result(backend: BrokerBackend, task_id: str, timeout_s: float, output: str | None) -> None:
    from headrace.work import keys, results  # noqa: PLC0415 - as in ls

    until_s = time.monotonic() + timeout_s
    row = None
    while row is None:
        left_s = until_s - time.monotonic()
        row = backend.wait_state(keys.result(task_id), max(0.0, min(20.0, left_s)))
        if row is None and left_s <= 0:
            raise click.ClickException(
                f"task {task_id} has no result after {timeout_s:g} s; it goes on, if it is there"
            )
    result = results.decode(row)
    if result.status != "succeeded":
        reason = result.error.line if result.error is not None else "nobody said why"
        raise click.ClickException(f"task {task_id} is {result.status}: {reason}")
    out.print_row({"id": task_id} | _result_row(result), output)


def _result_row(result: Result) -> out.Row:
    row: out.Row = {"task": result.task, "status": result.status, "ended_at": _moment(result.ended_ms)}
    if result.status == "succeeded":
        return row | {"result": result.value}
    return row | ({"error": result.error.line} if result.error is not None else {})


def _run_row(run: Run) -> out.Row:
    return {
        "id": run.id,
        "task": run.task,
        "queue": run.queue,
        "status": run.status,
        "attempt": run.attempt,
        "waited_seconds": max(0, run.started_ms - run.enqueued_ms) / 1_000,
        "took_seconds": (run.ended_ms - run.started_ms) / 1_000,
        "ended_at": _moment(run.ended_ms),
        "worker": run.worker,
        "error": run.error,
    }


def _waiting_row(one: Waiting) -> out.Row:
    states = {"visible": "queued", "in_flight": "running"}
    dead = one.queue.endswith("-dead")
    return {
        "id": one.envelope.id,
        "task": one.envelope.task,
        "state": "dead" if dead else states.get(one.state, one.state),
        "queue": one.queue,
        "attempt": one.envelope.attempt + 1,
        "sent_at": _moment(one.envelope.sent_ms or one.sent_ms),
        "due_at": _moment(one.visible_ms) if one.visible_ms is not None and one.state == "delayed" else None,
        "error": _error_of(one.envelope.history),
    }


def _error_of(history: Sequence[Attempt]) -> str | None:
    """What the newest failed attempt ended with, in one line."""
    if not history:
        return None
    first_line = history[-1].message.strip().partition("\n")[0]
    return f"{history[-1].error}: {first_line}" if first_line else history[-1].error


def _attempt_row(attempt: Any) -> out.Row:
    return {
        "attempt": attempt.attempt,
        "at": _moment(attempt.at_ms),
        "error": attempt.error,
        "message": attempt.message,
        "worker": attempt.worker,
        "traceback": attempt.traceback,
    }


def _moment(at_ms: int) -> str:
    return out.moment(datetime.fromtimestamp(at_ms / 1_000, UTC))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


for command in (ls, show, call, wait, logs, cancel, retry):
    task.add_command(command)
