"""The history's way into the broker's state and back: a chunk a minute, so that it survives both.

Under the name `console`: `m/<minute>` has the means of that minute and is kept for 24 h, `t/<minute>` its six means of ten
seconds, kept for 2 h. A chunk is msgpack, packed by zlib: {series: [mean or nil, …]}. What was is put beside what is measured,
so the consoles of one broker may all do it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.console import limits
from headrace.console.history import TIERS, History
from headrace.queue.operations import Transact

NAME: Final = "console"
PREFIXES: Final = {b"m/": 60, b"t/": 10}
"""Keys of chunks, by the resolution of what is in them."""
_MINUTE_S: Final = 60
_KEPT_MINUTES: Final = {60: TIERS[2].span_s // _MINUTE_S, 10: TIERS[1].span_s // _MINUTE_S}
_SWEPT: Final = 3  # older minutes that each save removes, too: of one in which nobody saved

_Chunk = dict[str, list[float | None]]
_decoder: Final = msgspec.msgpack.Decoder(_Chunk)


def save(history: History, minute: int) -> Transact:
    """What writes down a minute that has ended, and removes what is too old. Pure."""
    state: list[tuple[bytes, bytes | None]] = []
    for prefix, step_s in PREFIXES.items():
        chunk = _chunk(history, minute, step_s)
        if chunk:
            state.append((_key(prefix, minute), zlib.compress(msgspec.msgpack.encode(chunk))))
        oldest = minute - _KEPT_MINUTES[step_s]
        state += [(_key(prefix, gone), None) for gone in range(oldest - _SWEPT, oldest)]
    return Transact(name=NAME, state=state)


def outdated(keys: Iterable[bytes], minute: int) -> list[bytes]:
    """Of all chunks there are, those that are too old: left by consoles that stood still. Pure."""
    found = []
    for key in keys:
        step_s, held = PREFIXES.get(key[:2], 0), _minute_of(key)
        if step_s and held is not None and held < minute - _KEPT_MINUTES[step_s]:
            found.append(key)
    return found


def load(history: History, key: bytes, value: bytes) -> None:
    """Put a chunk back; one that is damaged, or of a version to come, is left out: it is history."""
    step_s, minute = PREFIXES.get(key[:2], 0), _minute_of(key)
    if not step_s or minute is None:
        return
    try:
        chunk = _decoder.decode(zlib.decompress(value))
    except (zlib.error, msgspec.DecodeError):
        return
    first = minute * _MINUTE_S // step_s
    for place in range(_MINUTE_S // step_s):
        means = {name: found[place] for name, found in chunk.items() if len(found) > place}
        history.put(step_s, first + place, {name: mean for name, mean in means.items() if mean is not None})


def _chunk(history: History, minute: int, step_s: int) -> _Chunk:
    slots = range(minute * _MINUTE_S // step_s, (minute + 1) * _MINUTE_S // step_s)
    cuts = [history.cut(step_s, slot) for slot in slots]
    weights = {name: sum(abs(cut.get(name, 0.0)) for cut in cuts) for cut in cuts for name in cut}
    kept = sorted(weights, key=lambda name: (-weights[name], name))[: limits.SERIES_STORED_MAX]
    return {name: [_rounded(cut.get(name, math.nan)) for cut in cuts] for name in kept}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")


def _key(prefix: bytes, minute: int) -> bytes:
    return b"%b%012d" % (prefix, minute)


def _minute_of(key: bytes) -> int | None:
    return int(key[2:]) if key[2:].isdigit() else None
