"""Rates from totals. Pure. A total that fell counts from zero again: its broker was restarted, or its queue made anew."""

from __future__ import annotations


def rate(before: float | None, now: float, seconds: float) -> float:
    """How much a second came to a total between two looks; never negative.

    Args:
        before: the total at the look before; None: there was none, so nothing is known of what came since.
        seconds: between the looks; 0 or less: no time has passed, so no rate.
    """
    if before is None or seconds <= 0:
        return 0.0
    return (now - before if now >= before else now) / seconds


def time_to_empty_s(waiting: int, in_rate: float, out_rate: float) -> float | None:
    """When a backlog will be gone if all goes on so; None: never, or nobody knows."""
    if not waiting:
        return 0.0
    gain = out_rate - in_rate
    return waiting / gain if gain > 0 else None
