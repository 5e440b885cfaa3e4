"""Dead letters: which queues have some, what went wrong, one with its history; back, elsewhere, or away with them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console import dead_letters, limits, messages, redriving
from headrace.console.page import Action, Done, Facts, Page, PageContext, PageRequest, Refused, paged
from headrace.console.pages.queue import line_of
from headrace.console.pages.queues import line_facts
from headrace.console.rendering import count, part
from headrace.queue.model import MoveTask, Peeked, arn_of, short_name
from headrace.queue.operations import CancelMove, ListMoves, StartMove

_RUNNING: Final = ("RUNNING", "CANCELLING")
_MOVES_SHOWN: Final = 3
_RATE_MAX: Final = 500


async def list_facts(context: PageContext, request: PageRequest) -> Facts:
    """`?find=` keeps names with that text; `?page=` goes on."""
    find = request.query.get("find", "").lower()
    lines = [line for line in context.snapshot().queues if line.for_letters and find in line.name.lower()]
    lines.sort(key=lambda line: (-line.depth, line.name))
    shown, pages = paged(request, lines)
    return {**pages, "find": find, "queues": [line_facts(context, line) for line in shown]}


async def facts(context: PageContext, request: PageRequest) -> Facts:
    line = line_of(context, request.names["queue"])
    moves: list[MoveTask] = await context.client.call(ListMoves(line.arn, _MOVES_SHOWN))
    return {"queue": line_facts(context, line), "moves": [_move_facts(task) for task in moves]}


def _move_facts(task: MoveTask) -> dict[str, Any]:
    return {
        "status": task.status,
        "running": task.status in _RUNNING,
        "moved": task.moved,
        "to_move": max(task.to_move, task.moved),
        "target": short_name(task.target) if task.target is not None else None,
        "rate_max": task.rate_max,
        "failure": task.failure,
        "started_ms": task.started_ms,
    }


async def more(context: PageContext, request: PageRequest) -> Facts:
    """The groups of the oldest letters, and those of one group (`?group=`), a page at a time (`?after=`)."""
    name, key, after = request.names["queue"], request.query.get("group", ""), request.number("after")
    found = await messages.look(context, name, after=0, count=limits.LETTERS_GROUPED_MAX)
    known = [(peeked, dead_letters.read(peeked)) for peeked in found.messages]
    chosen = [(peeked, letter) for peeked, letter in known if key in ("", letter.key) and peeked.message.seq > after]
    shown = chosen[: limits.PEEK_ROWS]
    hide, now_ms = context.settings.hide_bodies, context.snapshot().at_ms
    groups = [msgspec.to_builtins(group) | ({"reason": ""} if hide else {}) for group in dead_letters.group(known)]
    return {
        "groups": groups,
        "group": next((group for group in groups if group["key"] == key), None),
        "grouped": len(known),
        "all_grouped": found.after is None,
        "letters": [_letter_facts(peeked, letter, now_ms=now_ms, hide=hide) for peeked, letter in shown],
        "next": shown[-1][0].message.seq if len(chosen) > len(shown) else None,
        "some_max": limits.REDRIVE_SOME_MAX,
    }


def _letter_facts(
    peeked: Peeked, letter: dead_letters.Letter, *, now_ms: int, hide: bool, whole: bool = False
) -> dict[str, Any]:
    told = msgspec.to_builtins(letter) | ({"reason": ""} if hide else {})
    return {**messages.facts_of(peeked, now_ms=now_ms, hide=hide, whole=whole), **told, "key": letter.key}


async def letter_facts(context: PageContext, request: PageRequest) -> Facts:
    """One letter, with what happened to it."""
    line = line_of(context, request.names["queue"])
    peeked = await messages.find(context, line.name, messages.seq_of(request))
    hide, letter = context.settings.hide_bodies, dead_letters.read(peeked)
    return {
        "queue": line.name,
        "letter": _letter_facts(peeked, letter, now_ms=context.snapshot().at_ms, hide=hide, whole=True),
        "run": dead_letters.run_of(peeked, letter),
        "history": [] if hide else dead_letters.history_of(peeked),
    }


# --- what can be done ---


def address(name: str) -> str:
    return f"/dead-letters/{part(name)}"


async def redrive_some(context: PageContext, request: PageRequest) -> Done:
    """Those that were chosen (`seq`, any number), or a group's oldest (`group`)."""
    name, to = request.names["queue"], _target(context, request)
    seqs = await _chosen(context, request)
    moved = await redriving.redrive(context.client, name, seqs, to=to, long=await _are_long(context, name, seqs))
    where = f"to {to}" if to else "to where they came from"
    return Done(f"Moved {_letters(moved.done)} {where}.{_rest(moved)}", address(name))


async def delete_some(context: PageContext, request: PageRequest) -> Done:
    name = request.names["queue"]
    if request.form.get("sure") != "yes":
        raise Refused("nothing was deleted: tick “for good” to do it")
    deleted = await redriving.delete(context.client, name, await _chosen(context, request))
    return Done(f"Deleted {_letters(deleted.done)} of {name}.{_rest(deleted)}", address(name))


async def redrive_all(context: PageContext, request: PageRequest) -> Done:
    """By the broker, which goes on by itself; the page shows how far it is."""
    name, to, rate = request.names["queue"], _target(context, request), request.form.get("rate", "").strip()
    if rate and not (rate.isascii() and rate.isdigit() and 1 <= int(rate) <= _RATE_MAX):
        raise Refused(
            f"nothing was moved: the rate is 1 to {_RATE_MAX} messages a second, or nothing for as fast as it goes"
        )
    await context.client.call(StartMove(arn_of(name), arn_of(to) if to else None, int(rate) if rate else None))
    return Done(f"The broker moves the letters of {name}; this page shows how far it is.", address(name))


async def cancel_move(context: PageContext, request: PageRequest) -> Done:
    name = request.names["queue"]
    running = [task for task in await context.client.call(ListMoves(arn_of(name), 1)) if task.status == "RUNNING"]
    if not running:
        raise Refused(f"no move of {name} is running")
    task: MoveTask = await context.client.call(CancelMove(running[0].handle))
    return Done(f"Stopped. {_letters(task.moved)} were moved before, and stay there.", address(name))


def _target(context: PageContext, request: PageRequest) -> str:
    to = request.form.get("to", "").strip()
    if to:
        line_of(context, to)
    return to


async def _chosen(context: PageContext, request: PageRequest) -> list[int]:
    """Raises Refused: none was chosen."""
    seqs = [int(text) for text in request.many.get("seq", []) if text.isascii() and text.isdigit() and len(text) < 20]
    key = request.form.get("group", "")
    if key:
        found = await messages.look(context, request.names["queue"], after=0, count=limits.LETTERS_GROUPED_MAX)
        seqs = [peeked.message.seq for peeked in found.messages if dead_letters.read(peeked).key == key]
    if not seqs:
        raise Refused("nothing was done: choose letters first")
    return sorted(set(seqs))[: limits.REDRIVE_SOME_MAX]


async def _are_long(context: PageContext, name: str, seqs: list[int]) -> bool:
    """Whether a hundred of them may be too much for one commit."""
    found = await messages.look(context, name, after=seqs[0] - 1, count=len(seqs))
    return found.after is not None or sum(len(peeked.message.body) for peeked in found.messages) > 4 * 1_048_576


def _letters(number: int) -> str:
    return f"{count(number)} {'letter' if number == 1 else 'letters'}"


def _rest(moved: redriving.Moved) -> str:
    return f" {count(moved.left)} could not be: gone, or held by somebody." if moved.left else ""


PAGES: Final = (
    Page("/dead-letters", "dead-letters.html", list_facts, section="dead-letters"),
    Page("/dead-letters/{queue}", "dead-letter-queue.html", facts, more, section="dead-letters"),
    Page("/dead-letters/{queue}/{seq}", "dead-letter.html", letter_facts, live=False, section="dead-letters"),
)
ACTIONS: Final = (
    Action("/dead-letters/{queue}/redrive", redrive_some),
    Action("/dead-letters/{queue}/delete", delete_some),
    Action("/dead-letters/{queue}/redrive-all", redrive_all),
    Action("/dead-letters/{queue}/cancel", cancel_move),
)
