"""`headrace queue peek|send|receive|delete`: messages."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from headrace.cli import output as out
from headrace.cli.options import broker_option, duration, open_client, output_option, pair, queue_argument

if TYPE_CHECKING:
    from headrace.native.messages import Outgoing

BATCH = 1_000
"""Messages a call when many are sent: enough for speed, few enough for a smooth progress bar."""


@click.command()
@queue_argument
@click.option(
    "-n", "--max", "limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="At most so many."
)
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQUENCE", help="Only those sent after this one.")
@broker_option
@output_option
def peek(name: str, limit: int, after: int, target: str, output: str | None) -> None:
    """Look at messages without receiving them.

    Oldest first, whatever their state. It changes nothing and does not count as a receive.
    """
    with open_client(target) as client:
        messages = client.queue(name).peek(limit, after=after)
    rows = [out.message_row(message) | {"state": message.state, "receives": message.receives} for message in messages]
    out.print_messages(rows, output, none=f"{name} is empty.")


@click.command()
@queue_argument
@click.argument("body", required=False)
@click.option(
    "--lines", type=click.File("rb"), metavar="FILE", help="Send each line of FILE (- for stdin) as a message."
)
@click.option("-a", "--attribute", "attributes", type=pair, multiple=True, help="A message attribute; may be repeated.")
@click.option("--delay", type=duration, help="Hidden for so long at first: 0s to 15m.")
@click.option("--group", help="The message group; FIFO queues require one.")
@click.option("--dedup-id", help="FIFO: not stored if this id was seen within five minutes.")
@broker_option
@output_option
def send(
    name: str,
    body: str | None,
    lines: IO[bytes] | None,
    attributes: tuple[tuple[str, str], ...],
    delay: float | None,
    group: str | None,
    dedup_id: str | None,
    target: str,
    output: str | None,
) -> None:
    """Send a message, or the lines of a file.

    BODY - reads it from stdin. What was sent is on the disk when the command ends well.
    """
    if (body is None) == (lines is None):
        raise click.UsageError("Give either BODY (- for stdin) or --lines FILE.")
    if lines is not None and dedup_id is not None:
        raise click.UsageError("--dedup-id is for one message, not for --lines.")
    options: dict[str, Any] = {"attributes": dict(attributes), "delay": delay, "group": group}
    with open_client(target) as client:
        queue = client.queue(name)
        if lines is not None:
            row: out.Row = {"queue": name, "sent": send_lines(queue.name, queue.send_many, lines, options)}
        else:
            content = sys.stdin.buffer.read() if body == "-" else str(body)
            sent = queue.send(content, dedup_id=dedup_id, **options)
            row = {"id": sent.id, "sequence": sent.sequence, "duplicate": sent.duplicate}
    out.print_row(row, output)


@click.command()
@queue_argument
@click.option(
    "-n", "--max", "limit", type=click.IntRange(1, 10_000), default=1, show_default=True, help="At most so many."
)
@click.option("--wait", type=duration, default=0, show_default=True, help="How long to wait for the first: 0s to 20s.")
@click.option("--visibility-timeout", type=duration, help="Hidden for so long; by default as the queue is set.")
@click.option("--delete", "delete_", is_flag=True, help="Delete what was printed.")
@broker_option
@output_option
def receive(
    name: str,
    limit: int,
    wait: float,
    visibility_timeout: float | None,
    delete_: bool,
    target: str,
    output: str | None,
) -> None:
    """Receive messages.

    They are hidden from others until deleted, or until their visibility timeout ends. The receipt printed with each is what `headrace queue delete` takes.
    """
    with open_client(target) as client:
        queue = client.queue(name)
        messages = queue.receive(limit, wait=wait, visibility_timeout=visibility_timeout)
        rows = [
            out.message_row(message)
            | {"receives": message.receives, "receipt": base64.urlsafe_b64encode(message.receipt).decode()}
            for message in messages
        ]
        out.print_messages(rows, output, none="No message was ready.")
        if delete_ and messages:
            queue.delete(messages)


@click.command()
@queue_argument
@click.argument("receipts", nargs=-1, required=True, metavar="RECEIPT...")
@broker_option
@output_option
def delete(name: str, receipts: tuple[str, ...], target: str, output: str | None) -> None:
    """Delete messages by their receipts.

    RECEIPT - reads them from stdin: one a line, or the JSON that `headrace queue receive -o jsonl` printed.
    """
    texts = list(_receipts_of(sys.stdin)) if receipts == ("-",) else list(receipts)
    decoded = [_Receipt(_decoded(text)) for text in texts]
    with open_client(target) as client:
        queue = client.queue(name)
        queue.delete(decoded)
    out.print_row({"queue": name, "deleted": len(decoded)}, output)


class _Receipt:
    """A receipt that was typed, as the client takes received messages."""

    def __init__(self, receipt: bytes) -> None:
        self.receipt = receipt
        self.queue_arn = ""


def _receipts_of(lines: Iterable[str]) -> Iterator[str]:
    for line in filter(None, map(str.strip, lines)):
        if not line.startswith("{"):
            yield line
            continue
        try:
            yield str(json.loads(line)["receipt"])
        except (ValueError, KeyError):
            raise click.UsageError(f"This line is no JSON with a receipt: {line[:80]}") from None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise click.UsageError(f"{text[:80]!r} is no receipt.") from None


def send_lines(
    name: str, send_many: Callable[[Iterator[Outgoing]], Any], lines: IO[bytes], options: dict[str, Any]
) -> int:
    """Send line by line, without the line's end, empty lines left out; returns how many."""
    from headrace.cli.progress import byte_progress  # noqa: PLC0415 - only here
    from headrace.errors import HeadraceError  # noqa: PLC0415 - help needs no client
    from headrace.native.messages import Outgoing  # noqa: PLC0415

    sent = 0
    with byte_progress(f"sending to {name}", lines) as advance:
        for batch in _batches(lines):
            bodies = [body for line in batch if (body := line.rstrip(b"\r\n"))]
            try:
                send_many(Outgoing(body, **options) for body in bodies)
            except HeadraceError as error:
                error.add_note(f"{out.messages_text(sent)} before these were sent")
                raise
            sent += len(bodies)
            advance(sum(map(len, batch)), sent)
    return sent


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
