"""`headrace queue`: what queues there are, how they are set; making, changing and removing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output as out
from headrace.cli.options import (
    Command,
    broker_option,
    confirm_name,
    duration,
    open_client,
    output_option,
    pair,
    queue_argument,
    yes_option,
)
from headrace.cli.queue_messages import delete, peek, receive, send
from headrace.cli.queue_moves import move_status, redrive

if TYPE_CHECKING:
    from headrace.native.summary import QueueSummary

COLUMNS = ("queue", "visible", "in_flight", "delayed", "oldest_seconds", "dead_letter")


class OrderedGroup(click.Group):
    """Lists its commands in the order in which they were added, the everyday ones first, each with its whole sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=1_000)) for name, one in self.commands.items()])


@click.group(cls=OrderedGroup)
def queue() -> None:
    """Look into queues and change them.

    Every command takes --broker URL|DIR (or HEADRACE_BROKER) and -o table|json|jsonl.
    """


def settings_options(command: Command) -> Command:
    """The options of `create` and `set`; parameters are named as the client's settings."""
    options = (
        click.option(
            "--visibility-timeout", type=duration, help="How long a received message stays hidden: 0s to 12h."
        ),
        click.option("--delay", type=duration, help="How long a sent message stays hidden at first: 0s to 15m."),
        click.option("--retention", type=duration, help="After how long an unconsumed message is dropped: 1m to 14d."),
        click.option("--wait", type=duration, help="How long an SQS receive waits if it does not say: 0s to 20s."),
        click.option("--max-message-bytes", type=int, help="The longest message: 1024 to 1048576."),
        click.option("--dead-letter", metavar="QUEUE", help="The queue for messages received too often."),
        click.option(
            "--max-receives", type=int, help="How often a message is received before it goes there: 1 to 1000."
        ),
        click.option("--content-dedup/--no-content-dedup", default=None, help="FIFO: deduplicate by body."),
        click.option(
            "--dedup-scope", type=click.Choice(["queue", "messageGroup"]), help="FIFO: where dedup ids count."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("ls")
@click.argument("prefix", default="")
@broker_option
@output_option
def ls(prefix: str, target: str, output: str | None) -> None:
    """List queues and what is in them.

    PREFIX leaves only those whose name starts with it.
    """
    with open_client(target) as client:
        found = client.queues(prefix)
        now_ms = client.statistics().now_ms
    rows = [_row(summary, now_ms) for summary in found]
    out.print_rows(rows, output, COLUMNS, none="There are no queues yet; make one with `headrace queue create NAME`.")


@click.command("create")
@queue_argument
@click.option("--fifo", is_flag=True, help="A FIFO queue. Its name ends in .fifo, which is enough to say it.")
@settings_options
@click.option("--tag", "tags", type=pair, multiple=True, metavar="KEY=VALUE", help="A tag; may be repeated.")
@broker_option
@output_option
def create(
    name: str, fifo: bool, tags: tuple[tuple[str, str], ...], target: str, output: str | None, **settings: Any
) -> None:
    """Make a queue.

    Idempotent: if it is there with these settings, that is fine.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if fifo or name.endswith(".fifo"):
        given["fifo"] = True
    with open_client(target) as client:
        made = client.queue(name, create=True, tags=dict(tags), **given)
    out.print_row({"queue": made.name, "arn": made.arn}, output)


@click.command("show")
@queue_argument
@broker_option
@output_option
def show(name: str, target: str, output: str | None) -> None:
    """Show a queue: settings, counts, tags."""
    with open_client(target) as client:
        client.queue(name)
        out.print_row(_details(client.queues(name), name), output)


@click.command("set")
@queue_argument
@settings_options
@click.option("--no-dead-letter", is_flag=True, help="Messages received too often stay in the queue.")
@broker_option
@output_option
def set_(name: str, no_dead_letter: bool, target: str, output: str | None, **settings: Any) -> None:
    """Change settings.

    Those given; the others stay. It takes effect at once.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if no_dead_letter:
        given |= {"dead_letter": None, "max_receives": None}
    if not given:
        raise click.UsageError("Give at least one setting; `headrace queue set --help` lists them.")
    with open_client(target) as client:
        client.queue(name).change(**given)
        out.print_row(_details(client.queues(name), name), output)


@click.command("purge")
@queue_argument
@yes_option
@broker_option
@output_option
def purge(name: str, yes: bool, target: str, output: str | None) -> None:
    """Delete all messages of a queue.

    Those in flight too. The queue stays.
    """
    with open_client(target) as client:
        handle = client.queue(name)
        counts = handle.counts()
        total = counts.visible + counts.in_flight + counts.delayed
        confirm_name(name, f"This deletes {out.messages_text(total)} of {name}.", yes=yes)
        out.print_row({"queue": name, "purged": handle.purge()}, output)


@click.command("rm")
@queue_argument
@yes_option
@broker_option
@output_option
def rm(name: str, yes: bool, target: str, output: str | None) -> None:
    """Delete a queue with all its messages."""
    with open_client(target) as client:
        handle = client.queue(name)
        counts = handle.counts()
        total = counts.visible + counts.in_flight + counts.delayed
        confirm_name(name, f"This deletes the queue {name} with {out.messages_text(total)}.", yes=yes)
        handle.remove()
        out.print_row({"queue": name, "removed": True}, output)


def _row(summary: QueueSummary, now_ms: int) -> out.Row:
    counts = summary.counts
    oldest_s = (now_ms - counts.oldest_ms) / 1000 if counts.oldest_ms is not None else None
    return {
        "queue": summary.name,
        "visible": counts.visible,
        "in_flight": counts.in_flight,
        "delayed": counts.delayed,
        "oldest_seconds": oldest_s,
        "dead_letter": summary.settings.dead_letter,
        "fifo": summary.settings.fifo,
    }


def _details(found: list[QueueSummary], name: str) -> out.Row:
    """The queue of that very name among those that start with it. It was there a moment ago."""
    from headrace.errors import QueueNotFound  # noqa: PLC0415 - help needs no client
    from headrace.queue.model import arn_of  # noqa: PLC0415

    summary = next((summary for summary in found if summary.arn == arn_of(name)), None)
    if summary is None:
        raise QueueNotFound(name)
    settings, counts = summary.settings, summary.counts
    return {
        "queue": summary.name,
        "arn": summary.arn,
        "visible": counts.visible,
        "in_flight": counts.in_flight,
        "delayed": counts.delayed,
        "fifo": settings.fifo,
        "visibility_timeout_seconds": settings.visibility_timeout,
        "delay_seconds": settings.delay,
        "retention_seconds": settings.retention,
        "wait_seconds": settings.wait,
        "max_message_bytes": settings.max_message_bytes,
        "dead_letter": settings.dead_letter,
        "max_receives": settings.max_receives,
        "content_dedup": settings.content_dedup,
        "dedup_scope": settings.dedup_scope,
        "sent": counts.sent,
        "received": counts.received,
        "deleted": counts.deleted,
        "dead_lettered": counts.dead_lettered,
        "expired": counts.expired,
        "damaged": counts.damaged,
        "tags": summary.tags,
    }


for command in (ls, create, show, set_, peek, send, receive, delete, redrive, move_status, purge, rm):
    queue.add_command(command)
