"""Power cuts: what may be on the disk when the power fails at some point of a recorded run.

A file's changes before its last sync are certain; later ones are loose: each may be there or not, in any order, or half.
Names (creation, deletion, renaming) are certain after the folder's sync in `strict` mode; otherwise they are ordered by the
file system's own journal, as on ext4, and count as certain.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.recording import Event

LOOSE: Final = ("drop", "keep", "prefix", "subset", "reverse", "tear 512", "tear 4096", "all but one")
"""What may become of a file's loose changes."""

NEVER_SYNCED: Final = ("acknowledged", "lock", "reserve")
"""Files that are loose at any time, on purpose: they do not make a state a test of anything."""


@dataclass
class _File:
    changes: list[Event] = field(default_factory=list)
    certain: int = 0


@dataclass
class CrashState:
    """The files after a cut at `events[:cut]`. `loose`: how many changes were not certain; 0 proves little."""

    files: dict[str, bytes]
    loose: int
    how: str

    def write_to(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)


def crash_state(events: Sequence[Event], cut: int, chance: random.Random, *, strict: bool) -> CrashState:
    """One of the states that a power cut after `events[:cut]` may leave."""
    how = chance.choice(LOOSE)
    names, loose_names = _names(events[:cut], chance, strict=strict)
    loose = loose_names
    files = {}
    for name, file in names.items():
        certain, rest = file.changes[: file.certain], file.changes[file.certain :]
        loose += len(rest) if name not in NEVER_SYNCED else 0
        files[name] = _content([*certain, *_choose(rest, how, chance)])
    return CrashState(files, loose, how)


def _names(events: Sequence[Event], chance: random.Random, *, strict: bool) -> tuple[dict[str, _File], int]:
    """Which files exist, and how many changes of names were not certain."""
    now: dict[str, _File] = {}
    certain: dict[str, _File] = {}
    pending: list[Event] = []
    for event in events:
        match event.kind:
            case "create":
                now[event.name] = _File()
                pending.append(event)
            case "delete":
                now.pop(event.name, None)
                pending.append(event)
            case "rename":
                now[event.data] = now.pop(event.name)
                pending.append(event)
            case "write" | "truncate" | "allocate":
                now.setdefault(event.name, _File()).changes.append(event)
            case "sync":
                file = now.setdefault(event.name, _File())
                file.certain = len(file.changes)
            case "folder_sync":
                certain, pending = dict(now), []
            case "mark":
                pass
    if not strict or not pending or chance.random() < 0.5:
        return now, len(pending) if strict else 0
    return certain, len(pending)


def _choose(loose: list[Event], how: str, chance: random.Random) -> list[Event]:
    if not loose:
        return []
    match how:
        case "drop":
            return []
        case "prefix":
            return loose[: chance.randint(0, len(loose))]
        case "subset":
            return [event for event in loose if chance.random() < 0.5]
        case "reverse":
            return loose[::-1]
        case "all but one":
            lost = chance.randrange(len(loose))
            return loose[:lost] + loose[lost + 1 :]
        case "tear 512" | "tear 4096":
            return _tear(loose[: chance.randint(1, len(loose))], int(how.split()[1]), chance)
        case _:
            return loose


def _tear(changes: list[Event], sector: int, chance: random.Random) -> list[Event]:
    """The last write arrives in part: some of its sectors, or its front."""
    last = changes[-1]
    if last.kind != "write":
        return changes[:-1]
    sectors = [slice(start, start + sector) for start in range(0, len(last.data), sector)]
    if len(sectors) == 1:
        return [*changes[:-1], Event("write", last.name, last.offset, last.data[: chance.randint(0, len(last.data))])]
    arrived = [part for part in sectors if chance.random() < 0.5]
    return changes[:-1] + [Event("write", last.name, last.offset + part.start, last.data[part]) for part in arrived]


def _content(changes: Sequence[Event]) -> bytes:
    content = bytearray()
    for event in changes:
        if event.kind == "allocate":
            content.extend(bytes(max(0, event.offset - len(content))))
        elif event.kind == "truncate":
            del content[event.offset :]
            content.extend(bytes(event.offset - len(content)))
        else:
            content.extend(bytes(max(0, event.offset - len(content))))
            content[event.offset : event.offset + len(event.data)] = event.data
    return bytes(content)
