"""Dead letters: which queues have some, what went wrong, one with its history; back, elsewhere, or away with them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console import letters, limits, messages, redriving
from headrace.console.page import Action, Asked, Desk, Done, Facts, Page, Refused, paged
from headrace.console.pages.queue import line_of
from headrace.console.pages.queues import line_facts
from headrace.console.rendering import count, part
from headrace.queue.model import MoveTask, Peeked, arn_of, short_name
from headrace.queue.operations import CancelMove, ListMoves, StartMove

_RUNNING: Final = ("RUNNING", "CANCELLING")
_MOVES_SHOWN: Final = 3
_RATE_MAX: Final = 500


async def list_facts(desk: Desk, asked: Asked) -> Facts:
    """`?find=` keeps names with that text; `?page=` goes on."""
    find = asked.query.get("find", "").lower()
    lines = [line for line in desk.snapshot().queues if line.for_letters and find in line.name.lower()]
    lines.sort(key=lambda line: (-line.depth, line.name))
    shown, pages = paged(asked, lines)
    return {**pages, "find": find, "queues": [line_facts(desk, line) for line in shown]}


async def facts(desk: Desk, asked: Asked) -> Facts:
    line = line_of(desk, asked.names["queue"])
    moves: list[MoveTask] = await desk.client.call(ListMoves(line.arn, _MOVES_SHOWN))
    return {"queue": line_facts(desk, line), "moves": [_move_facts(task) for task in moves]}


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


async def more(desk: Desk, asked: Asked) -> Facts:
    """The groups of the oldest letters, and those of one group (`?group=`), a page at a time (`?after=`)."""
    name, key, after = asked.names["queue"], asked.query.get("group", ""), asked.number("after")
    found = await messages.look(desk, name, after=0, count=limits.LETTERS_GROUPED_MAX)
    known = [(peeked, letters.read(peeked)) for peeked in found.messages]
    chosen = [(peeked, letter) for peeked, letter in known if key in ("", letter.key) and peeked.message.seq > after]
    shown = chosen[: limits.PEEK_ROWS]
    hide, now_ms = desk.settings.hide_bodies, desk.snapshot().at_ms
    groups = [msgspec.to_builtins(group) | ({"reason": ""} if hide else {}) for group in letters.group(known)]
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
    peeked: Peeked, letter: letters.Letter, *, now_ms: int, hide: bool, whole: bool = False
) -> dict[str, Any]:
    told = msgspec.to_builtins(letter) | ({"reason": ""} if hide else {})
    return {**messages.facts_of(peeked, now_ms=now_ms, hide=hide, whole=whole), **told, "key": letter.key}


async def letter_facts(desk: Desk, asked: Asked) -> Facts:
    """One letter, with what happened to it."""
    line = line_of(desk, asked.names["queue"])
    peeked = await messages.find(desk, line.name, messages.seq_of(asked))
    hide, letter = desk.settings.hide_bodies, letters.read(peeked)
    return {
        "queue": line.name,
        "letter": _letter_facts(peeked, letter, now_ms=desk.snapshot().at_ms, hide=hide, whole=True),
        "run": letters.run_of(peeked, letter),
        "history": [] if hide else letters.history_of(peeked),
    }


# --- what can be done ---


def address(name: str) -> str:
    return f"/dead-letters/{part(name)}"


async def redrive_some(desk: Desk, asked: Asked) -> Done:
    """Those that were chosen (`seq`, any number), or a group's oldest (`group`)."""
    name, to = asked.names["queue"], _target(desk, asked)
    seqs = await _chosen(desk, asked)
    moved = await redriving.redrive(desk.client, name, seqs, to=to, long=await _are_long(desk, name, seqs))
    where = f"to {to}" if to else "to where they came from"
    return Done(f"Moved {_letters(moved.done)} {where}.{_rest(moved)}", address(name))


async def delete_some(desk: Desk, asked: Asked) -> Done:
    name = asked.names["queue"]
    if asked.form.get("sure") != "yes":
        raise Refused("nothing was deleted: tick “for good” to do it")
    deleted = await redriving.delete(desk.client, name, await _chosen(desk, asked))
    return Done(f"Deleted {_letters(deleted.done)} of {name}.{_rest(deleted)}", address(name))


async def redrive_all(desk: Desk, asked: Asked) -> Done:
    """By the broker, which goes on by itself; the page shows how far it is."""
    name, to, rate = asked.names["queue"], _target(desk, asked), asked.form.get("rate", "").strip()
    if rate and not (rate.isascii() and rate.isdigit() and 1 <= int(rate) <= _RATE_MAX):
        raise Refused(
            f"nothing was moved: the rate is 1 to {_RATE_MAX} messages a second, or nothing for as fast as it goes"
        )
    await desk.client.call(StartMove(arn_of(name), arn_of(to) if to else None, int(rate) if rate else None))
    return Done(f"The broker moves the letters of {name}; this page shows how far it is.", address(name))


async def cancel_move(desk: Desk, asked: Asked) -> Done:
    name = asked.names["queue"]
    running = [task for task in await desk.client.call(ListMoves(arn_of(name), 1)) if task.status == "RUNNING"]
    if not running:
        raise Refused(f"no move of {name} is running")
    task: MoveTask = await desk.client.call(CancelMove(running[0].handle))
    return Done(f"Stopped. {_letters(task.moved)} were moved before, and stay there.", address(name))


def _target(desk: Desk, asked: Asked) -> str:
    to = asked.form.get("to", "").strip()
    if to:
        line_of(desk, to)
    return to


async def _chosen(desk: Desk, asked: Asked) -> list[int]:
    """Raises Refused: none was chosen."""
    seqs = [int(text) for text in asked.many.get("seq", []) if text.isascii() and text.isdigit() and len(text) < 20]
    key = asked.form.get("group", "")
    if key:
        found = await messages.look(desk, asked.names["queue"], after=0, count=limits.LETTERS_GROUPED_MAX)
        seqs = [peeked.message.seq for peeked in found.messages if letters.read(peeked).key == key]
    if not seqs:
        raise Refused("nothing was done: choose letters first")
    return sorted(set(seqs))[: limits.REDRIVE_SOME_MAX]


async def _are_long(desk: Desk, name: str, seqs: list[int]) -> bool:
    """Whether a hundred of them may be too much for one commit."""
    found = await messages.look(desk, name, after=seqs[0] - 1, count=len(seqs))
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
