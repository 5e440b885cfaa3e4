"""`headrace topic`: topics, who is subscribed to them, and their logs."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

import click

from headrace.cli import output as out
from headrace.cli.options import (
    BROKER_DEFAULT,
    Command,
    broker_option,
    confirm_name,
    duration,
    open_client,
    output_option,
    pair,
    yes_option,
)
from headrace.cli.queue import OrderedGroup
from headrace.cli.queue_messages import send_lines

if TYPE_CHECKING:
    from headrace.native.topic_calls import Start, SubscriptionSummary, TopicSummary

COLUMNS = ("topic", "published", "logged", "log_bytes", "oldest_seconds", "subscriptions", "lag")
SUBSCRIPTION_COLUMNS = ("queue", "state", "lag", "waiting", "filter")


@click.group(cls=OrderedGroup)
def topic() -> None:
    """Give every message to many queues, and replay what was.

    Every command takes --broker URL|DIR (or HEADRACE_BROKER) and -o table|json|jsonl.
    """


def _complete_topics(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from headrace.errors import HeadraceError  # noqa: PLC0415 - completion needs no client until it is asked

    try:
        with open_client(ctx.params.get("target") or BROKER_DEFAULT) as client:
            return [topic.name for topic in client.topics(incomplete)]
    except (HeadraceError, click.ClickException):
        return []


def _topic_argument(command: Command) -> Command:
    return click.argument("name", metavar="TOPIC", shell_complete=_complete_topics)(command)


def _moment(value: str) -> Start:
    """`now`, `beginning`, a sequence number, or a date and time as ISO 8601 has them. An argument type."""
    if value in ("now", "beginning"):
        return value
    if value.isdecimal():
        return int(value)
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}: write now, beginning, 2026-07-01T12:00, or a sequence number") from None


def _policy(value: str) -> dict[str, Any]:
    """A filter policy in JSON. An argument type."""
    try:
        policy = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"this is no JSON: {error}") from None
    if not isinstance(policy, dict):
        raise click.BadParameter("a filter policy is a JSON object")
    return policy


def _settings_options(command: Command) -> Command:
    options = (
        click.option("--retention", type=duration, help="How long the log keeps a message; 0: no bound by age."),
        click.option("--retention-bytes", type=click.IntRange(0), help="How many bytes the log keeps; 0: no bound."),
        click.option("--inbox", metavar="QUEUE", help="A queue whose messages are published instead of stored."),
        click.option("--content-dedup/--no-content-dedup", default=None, help="FIFO: deduplicate by body."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("ls")
@click.argument("prefix", default="")
@broker_option
@output_option
def ls(prefix: str, target: str, output: str | None) -> None:
    """List topics, their logs and how far their queues are.

    PREFIX leaves only those whose name starts with it.
    """
    with open_client(target) as client:
        found = client.topics(prefix)
        now_ms = client.statistics().now_ms
    rows = [_row(summary, now_ms) for summary in found]
    out.print_rows(rows, output, COLUMNS, none="There are no topics yet; make one with `headrace topic create NAME`.")


@click.command("create")
@_topic_argument
@click.option("--fifo", is_flag=True, help="A FIFO topic. Its name ends in .fifo, which is enough to say it.")
@_settings_options
@broker_option
@output_option
def create(name: str, fifo: bool, target: str, output: str | None, **settings: Any) -> None:
    """Make a topic.

    Idempotent: if it is there with these settings, that is fine. Without a retention it keeps no log.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if fifo or name.endswith(".fifo"):
        given["fifo"] = True
    with open_client(target) as client:
        made = client.topic(name, create=True, **given)
    out.print_row({"topic": made.name, "arn": made.arn}, output)


@click.command("show")
@_topic_argument
@broker_option
@output_option
def show(name: str, target: str, output: str | None) -> None:
    """Show a topic: settings, counts, and its subscriptions."""
    with open_client(target) as client:
        summary = client.topic(name).describe()
        now_ms = client.statistics().now_ms
    subscriptions = [_subscription_row(one) for one in summary.subscriptions]
    if out.chosen(output) != "table":
        out.print_row(_details(summary, now_ms) | {"subscriptions": subscriptions}, output)
        return
    out.print_row(_details(summary, now_ms), output)
    out.print_rows(subscriptions, output, SUBSCRIPTION_COLUMNS, none="No queue is subscribed.")


@click.command("set")
@_topic_argument
@_settings_options
@click.option("--no-inbox", is_flag=True, help="No queue's messages are published any more.")
@broker_option
@output_option
def set_(name: str, no_inbox: bool, target: str, output: str | None, **settings: Any) -> None:
    """Change settings.

    Those given; the others stay. It takes effect at once.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if no_inbox:
        given["inbox"] = None
    if not given:
        raise click.UsageError("Give at least one setting; `headrace topic set --help` lists them.")
    with open_client(target) as client:
        summary = client.topic(name).change(**given)
        now_ms = client.statistics().now_ms
    out.print_row(_details(summary, now_ms), output)


@click.command("subscribe")
@_topic_argument
@click.argument("queue", metavar="QUEUE")
@click.option("--filter", "policy", type=_policy, metavar="JSON", help="A filter policy as SNS's; {} lets all in.")
@click.option("--body", "of_body", is_flag=True, help="The filter looks at the body (JSON), not at attributes.")
@click.option(
    "--from", "start", type=_moment, default="now", metavar="START",
    help="now, beginning, a date and time, or a sequence number behind which to begin.",
)  # fmt: skip
@click.option("--create", "make", is_flag=True, help="Make the queue if it is not there.")
@broker_option
@output_option
def subscribe(
    name: str,
    queue: str,
    policy: dict[str, Any] | None,
    of_body: bool,
    start: Start,
    make: bool,
    target: str,
    output: str | None,
) -> None:
    """Give a queue what is published from now on, or from START.

    With START, the queue is given the log from there and then goes on live, without a gap or a duplicate. For a queue
    that is subscribed, its filter is changed; without --filter it stays.
    """
    with open_client(target) as client:
        handle = client.topic(name)
        if make:
            client.queue(queue, create=True, fifo=queue.endswith(".fifo"))
        handle.subscribe(queue, filter=policy, scope="MessageBody" if of_body else "MessageAttributes", start=start)
    out.print_row({"topic": name, "queue": queue, "subscribed": True}, output)


@click.command("unsubscribe")
@_topic_argument
@click.argument("queue", metavar="QUEUE")
@broker_option
@output_option
def unsubscribe(name: str, queue: str, target: str, output: str | None) -> None:
    """End a subscription. What the queue holds stays."""
    with open_client(target) as client:
        client.topic(name).unsubscribe(queue)
    out.print_row({"topic": name, "queue": queue, "subscribed": False}, output)


@click.command("publish")
@_topic_argument
@click.argument("body", required=False)
@click.option(
    "--lines", type=click.File("rb"), metavar="FILE", help="Publish each line of FILE (- for stdin) as a message."
)
@click.option("-a", "--attribute", "attributes", type=pair, multiple=True, help="A message attribute; may be repeated.")
@click.option("--group", help="The message group; FIFO topics require one.")
@click.option("--dedup-id", help="FIFO: not published if this id was seen within five minutes.")
@broker_option
@output_option
def publish(
    name: str,
    body: str | None,
    lines: IO[bytes] | None,
    attributes: tuple[tuple[str, str], ...],
    group: str | None,
    dedup_id: str | None,
    target: str,
    output: str | None,
) -> None:
    """Publish a message, or the lines of a file.

    BODY - reads it from stdin. What was published is on the disk when the command ends well.
    """
    if (body is None) == (lines is None):
        raise click.UsageError("Give either BODY (- for stdin) or --lines FILE.")
    if lines is not None and dedup_id is not None:
        raise click.UsageError("--dedup-id is for one message, not for --lines.")
    options: dict[str, Any] = {"attributes": dict(attributes), "group": group}
    with open_client(target) as client:
        handle = client.topic(name)
        if lines is not None:
            row: out.Row = {"topic": name, "published": send_lines(name, handle.publish_many, lines, options)}
        else:
            content = sys.stdin.buffer.read() if body == "-" else str(body)
            sent = handle.publish(content, dedup_id=dedup_id, **options)
            row = {"id": sent.id, "sequence": sent.sequence, "duplicate": sent.duplicate}
    out.print_row(row, output)


@click.command("replay")
@_topic_argument
@click.argument("queue", metavar="QUEUE")
@click.option(
    "--from", "start", type=_moment, default="beginning", show_default=True, metavar="START",
    help="beginning, a date and time, or a sequence number behind which to begin.",
)  # fmt: skip
@click.option("--purge", is_flag=True, help="Delete what is in the queue first.")
@broker_option
@output_option
def replay(name: str, queue: str, start: Start, purge: bool, target: str, output: str | None) -> None:
    """Give a queue the log once more.

    Its filter stays. `headrace topic show` tells how far it is.
    """
    with open_client(target) as client:
        client.topic(name).replay(queue, start, purge=purge)
    out.print_row({"topic": name, "queue": queue, "replayed": True}, output)


@click.command("rm")
@_topic_argument
@yes_option
@broker_option
@output_option
def rm(name: str, yes: bool, target: str, output: str | None) -> None:
    """Delete a topic with its log and subscriptions. What queues hold stays."""
    with open_client(target) as client:
        handle = client.topic(name)
        logged = handle.describe().counts.logged
        confirm_name(name, f"This deletes the topic {name} with {out.messages_text(logged)} in its log.", yes=yes)
        handle.remove()
    out.print_row({"topic": name, "removed": True}, output)


def _row(summary: TopicSummary, now_ms: int) -> out.Row:
    counts = summary.counts
    return {
        "topic": summary.name,
        "published": counts.published,
        "logged": counts.logged,
        "log_bytes": counts.log_bytes,
        "oldest_seconds": (now_ms - counts.oldest_ms) / 1000 if counts.oldest_ms is not None else None,
        "subscriptions": len(summary.subscriptions),
        "lag": sum(one.lag for one in summary.subscriptions),
        "fifo": summary.fifo,
    }


def _details(summary: TopicSummary, now_ms: int) -> out.Row:
    counts = summary.counts
    return {
        "topic": summary.name,
        "arn": summary.arn,
        "fifo": summary.fifo,
        "content_dedup": summary.content_dedup,
        "retention_seconds": summary.retention,
        "retention_bytes": summary.retention_bytes,
        "inbox": summary.inbox,
        "published": counts.published,
        "duplicates": counts.duplicates,
        "damaged": counts.damaged,
        "logged": counts.logged,
        "log_bytes": counts.log_bytes,
        "oldest_seconds": (now_ms - counts.oldest_ms) / 1000 if counts.oldest_ms is not None else None,
    }


def _subscription_row(one: SubscriptionSummary) -> out.Row:
    return {
        "queue": one.queue,
        "state": "catching up" if one.catching_up else "live",
        "lag": one.lag,
        "waiting": one.waiting,
        "filter": json.dumps(one.filter) if one.filter else None,
        "scope": one.scope if one.filter else None,
    }


for command in (ls, create, show, set_, subscribe, unsubscribe, publish, replay, rm):
    topic.add_command(command)
