"""One queue: what moves in it, its messages, its settings; send, delete one, purge."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console import limits, messages
from headrace.console.charts import chart
from headrace.console.page import Action, Asked, Desk, Done, Facts, NotThere, Page, Refused
from headrace.console.rendering import count, part
from headrace.console.snapshot import QueueLine
from headrace.errors import HeadraceError
from headrace.native.messages import Outgoing
from headrace.queue.model import arn_of
from headrace.queue.operations import Delete, GetQueue, Purge, Send, Take

_TAKEN_MS: Final = 30_000  # how long a message that is to be deleted is held: the delete follows at once


def line_of(desk: Desk, name: str) -> QueueLine:
    """Raises NotThere."""
    line = desk.snapshot().queue(name)
    if line is None:
        raise NotThere(f"there is no queue {name!r}; `headrace queue create {name}` makes one")
    return line


async def facts(desk: Desk, asked: Asked) -> Facts:
    line = line_of(desk, asked.names["queue"])
    return {"queue": {**msgspec.structs.asdict(line), "depth": line.depth}, "charts": charts(desk, line.name)}


def charts(desk: Desk, name: str) -> list[dict[str, Any]]:
    """What is drawn of a queue over time."""

    def series(*labels: tuple[str, str]) -> list[tuple[str, str]]:
        return [(f"queue/{name}/{what}", label) for what, label in labels]

    depth = series(("visible", "visible"), ("in_flight", "in flight"), ("delayed", "delayed"))
    rates = series(("sent", "sent"), ("received", "received"), ("deleted", "deleted"))
    return [
        chart(desk, "Depth", "messages", *depth),
        chart(desk, "Rates", "messages a second", *rates),
        chart(desk, "Age of the oldest", "seconds", *series(("oldest_s", "oldest"))),
    ]


async def more(desk: Desk, asked: Asked) -> Facts:
    """`?search=` looks for a text in bodies and attributes, `?after=` pages."""
    name, search, after = asked.names["queue"], asked.query.get("search", "").strip(), asked.number("after")
    hide = desk.settings.hide_bodies
    fits = messages.has_text(search) if search and not hide else lambda _: True
    found = await messages.look(desk, name, after=after, count=limits.PEEK_ROWS, fits=fits)
    description = await desk.client.call(GetQueue(arn_of(name)))
    now_ms = desk.snapshot().at_ms
    return {
        "search": search,
        "after": after,
        "next": found.after,
        "scanned": found.scanned,
        "messages": [messages.facts_of(peeked, now_ms=now_ms, hide=hide) for peeked in found.messages],
        "settings": msgspec.to_builtins(description.info.settings),
        "tags": description.info.tags,
        "created_ms": description.info.created_ms,
    }


async def message_facts(desk: Desk, asked: Asked) -> Facts:
    peeked = await messages.find(desk, line_of(desk, asked.names["queue"]).name, messages.seq_of(asked))
    hide = desk.settings.hide_bodies
    shown = messages.facts_of(peeked, now_ms=desk.snapshot().at_ms, hide=hide, whole=True)
    return {"queue": asked.names["queue"], "message": shown}


async def body(desk: Desk, asked: Asked) -> Facts:
    """The whole body, as a file."""
    if desk.settings.hide_bodies:
        raise NotThere(messages.HIDDEN)
    return {"download": (await messages.find(desk, asked.names["queue"], messages.seq_of(asked))).message.body}


def address(name: str) -> str:
    return f"/queues/{part(name)}"


async def send(desk: Desk, asked: Asked) -> Done:
    name, form = asked.names["queue"], asked.form
    if not form.get("body"):
        raise Refused("nothing was sent: a message has at least one byte")
    delay = form.get("delay", "").strip()
    if delay and not (delay.isascii() and delay.isdigit()):
        raise Refused(f"nothing was sent: {delay!r} is no number of seconds")
    entry = Outgoing(
        form["body"].replace("\r\n", "\n"),
        delay=float(delay) if delay else None,
        group=form.get("group", "").strip() or None,
        dedup_id=form.get("dedup_id", "").strip() or None,
    ).entry()
    [sent] = await desk.client.call(Send(arn_of(name), [entry]))
    if isinstance(sent, HeadraceError):
        raise sent
    return Done(f"Sent to {name} as message {sent.seq}.", address(name))


async def purge(desk: Desk, asked: Asked) -> Done:
    name = asked.names["queue"]
    if asked.form.get("name", "") != name:
        raise Refused(f"nothing was purged: type the name {name} to do it")
    purged = await desk.client.call(Purge(arn_of(name)))
    return Done(f"Purged {name}: {count(purged)} messages are gone.", address(name))


async def delete(desk: Desk, asked: Asked) -> Done:
    name, seq = asked.names["queue"], messages.seq_of(asked)
    [taken] = await desk.client.call(Take(arn_of(name), [seq], _TAKEN_MS))
    if isinstance(taken, HeadraceError):
        raise taken
    [outcome] = await desk.client.call(Delete(arn_of(name), [taken.receipt]))
    if isinstance(outcome, HeadraceError):
        raise outcome
    return Done(f"Deleted message {seq} of {name}.", address(name))


PAGES: Final = (
    Page("/queues/{queue}", "queue.html", facts, more, section="queues"),
    Page("/queues/{queue}/messages/{seq}", "message.html", message_facts, live=False, section="queues"),
    Page("/queues/{queue}/messages/{seq}/body", "message.html", body, live=False),
)
ACTIONS: Final = (
    Action("/queues/{queue}/send", send),
    Action("/queues/{queue}/purge", purge),
    Action("/queues/{queue}/messages/{seq}/delete", delete),
)
