"""A line of the report."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Level: TypeAlias = Literal["ok", "warning", "problem"]


class Line(msgspec.Struct, frozen=True):
    """Attributes:
    level: a `problem` keeps something from working, or loses data; a `warning` may.
    subject: what was looked at.
    fact: what was found.
    advice: what to do; empty where nothing is.
    """

    level: Level
    subject: str
    fact: str
    advice: str = ""


def ok(subject: str, fact: str) -> Line:
    return Line("ok", subject, fact)


def warning(subject: str, fact: str, advice: str) -> Line:
    return Line("warning", subject, fact, advice)


def problem(subject: str, fact: str, advice: str) -> Line:
    return Line("problem", subject, fact, advice)


def size_text(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1_024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1_024
    return f"{size_bytes:.1f} TiB"
