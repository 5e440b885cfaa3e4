"""One queue: what moves in it, its messages, its settings; send, delete one, purge."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console import limits, messages
from headrace.console.charts import chart
from headrace.console.page import Action, Done, Facts, NotFound, Page, PageContext, PageRequest, Refused
from headrace.console.rendering import count, part
from headrace.console.snapshot import QueueLine
from headrace.errors import HeadraceError
from headrace.native.messages import Outgoing
from headrace.queue.model import arn_of
from headrace.queue.operations import Delete, GetQueue, Purge, Send, Take

_TAKEN_MS: Final = 30_000  # how long a message that is to be deleted is held: the delete follows at once


def line_of(context: PageContext, name: str) -> QueueLine:
    """Raises NotFound."""
    line = context.snapshot().queue(name)
    if line is None:
        raise NotFound(f"there is no queue {name!r}; `headrace queue create {name}` makes one")
    return line


async def facts(context: PageContext, request: PageRequest) -> Facts:
    line = line_of(context, request.names["queue"])
    return {"queue": {**msgspec.structs.asdict(line), "depth": line.depth}, "charts": charts(context, line.name)}


def charts(context: PageContext, name: str) -> list[dict[str, Any]]:
    """What is drawn of a queue over time."""

    def series(*labels: tuple[str, str]) -> list[tuple[str, str]]:
        return [(f"queue/{name}/{what}", label) for what, label in labels]

    depth = series(("visible", "visible"), ("in_flight", "in flight"), ("delayed", "delayed"))
    rates = series(("sent", "sent"), ("received", "received"), ("deleted", "deleted"))
    return [
        chart(context, "Depth", "messages", *depth),
        chart(context, "Rates", "messages a second", *rates),
        chart(context, "Age of the oldest", "seconds", *series(("oldest_s", "oldest"))),
    ]


async def more(context: PageContext, request: PageRequest) -> Facts:
    """`?search=` looks for a text in bodies and attributes, `?after=` pages."""
    name, search, after = request.names["queue"], request.query.get("search", "").strip(), request.number("after")
    hide = context.settings.hide_bodies
    fits = messages.has_text(search) if search and not hide else lambda _: True
    found = await messages.look(context, name, after=after, count=limits.PEEK_ROWS, fits=fits)
    description = await context.client.call(GetQueue(arn_of(name)))
    now_ms = context.snapshot().at_ms
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


async def message_facts(context: PageContext, request: PageRequest) -> Facts:
    peeked = await messages.find(context, line_of(context, request.names["queue"]).name, messages.seq_of(request))
    hide = context.settings.hide_bodies
    shown = messages.facts_of(peeked, now_ms=context.snapshot().at_ms, hide=hide, whole=True)
    return {"queue": request.names["queue"], "message": shown}


async def body(context: PageContext, request: PageRequest) -> Facts:
    """The whole body, as a file."""
    if context.settings.hide_bodies:
        raise NotFound(messages.HIDDEN)
    return {"download": (await messages.find(context, request.names["queue"], messages.seq_of(request))).message.body}


def address(name: str) -> str:
    return f"/queues/{part(name)}"


async def send(context: PageContext, request: PageRequest) -> Done:
    name, form = request.names["queue"], request.form
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
    [sent] = await context.client.call(Send(arn_of(name), [entry]))
    if isinstance(sent, HeadraceError):
        raise sent
    return Done(f"Sent to {name} as message {sent.seq}.", address(name))


async def purge(context: PageContext, request: PageRequest) -> Done:
    name = request.names["queue"]
    if request.form.get("name", "") != name:
        raise Refused(f"nothing was purged: type the name {name} to do it")
    purged = await context.client.call(Purge(arn_of(name)))
    return Done(f"Purged {name}: {count(purged)} messages are gone.", address(name))


async def delete(context: PageContext, request: PageRequest) -> Done:
    name, seq = request.names["queue"], messages.seq_of(request)
    [taken] = await context.client.call(Take(arn_of(name), [seq], _TAKEN_MS))
    if isinstance(taken, HeadraceError):
        raise taken
    [outcome] = await context.client.call(Delete(arn_of(name), [taken.receipt]))
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
