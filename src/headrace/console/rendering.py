"""Facts to HTML, by Jinja2, everything escaped; and how numbers, times and bodies are written for people."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeGuard
from urllib.parse import quote

import jinja2
import msgspec
from markupsafe import Markup, escape

from headrace import svg_graph
from headrace.console import limits

_TOKEN: Final = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<str>"(?:[^"\\]|\\.)*")|(?P<num>-?\d[\d.eE+-]*)|(?P<lit>\b(?:true|false|null)\b)'
)
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The templates, with the filters below."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("headrace.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "count": count,
        "rate": rate_text,
        "age": age,
        "moment": moment,
        "clock": clock,
        "size": size,
        "part": part,
        "spark": spark,
        "pretty": pretty,
        "line": one_line,
        "latency": milliseconds,
        "plan": plan_picture,
    }
    return found


def _is_known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to be shown. What holders say may be none: infinite, or not even a number."""
    return value is not None and math.isfinite(value)


def count(value: float | None) -> str:
    """1,234; from a million on 1.23 M."""
    if not _is_known(value):
        return "–"
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:.2f} M"
    return f"{value:,.0f}"


def rate_text(value: float | None) -> str:
    """0, 0.4, 12.3, 1,234 (a second; the heading says so)."""
    if not _is_known(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def age(seconds: float | None) -> str:
    """How long: 0.4 s, 12 s, 4m 10s, 3h 5m, 2d 4h."""
    if not _is_known(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, less_s, less in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // less_s
            return f"{whole // unit_s}{unit}" + (f" {rest}{less}" if rest else "")
    return f"{whole} s"


def moment(ms: float | None) -> Markup | str:
    """A time element: UTC, which the page's script turns into the reader's time zone."""
    when = _utc(ms)
    if when is None:
        return "–"
    return Markup('<time datetime="{}">{} UTC</time>').format(
        when.isoformat(timespec="milliseconds"), when.strftime("%Y-%m-%d %H:%M:%S")
    )


def clock(ms: float | None) -> Markup | str:
    """As `moment`, without the day where it is today's: the page's script decides that."""
    when = _utc(ms)
    if when is None:
        return "–"
    return Markup('<time class="clock" datetime="{}">{} UTC</time>').format(
        when.isoformat(timespec="milliseconds"), when.strftime("%H:%M:%S")
    )


def _utc(ms: float | None) -> datetime | None:
    """None: there is no time, or none that a calendar has."""
    try:
        return datetime.fromtimestamp(ms / 1_000, UTC) if ms else None
    except (OverflowError, ValueError, OSError):
        return None


def size(value: float | None) -> str:
    """Bytes: 12 B, 3.4 KiB."""
    if not _is_known(value):
        return "–"
    place = min(int(math.log(value, 1024)), len(_UNITS) - 1) if value >= 1 else 0
    scaled = value / 1024**place
    return f"{scaled:.0f} {_UNITS[place]}" if place == 0 or scaled >= 100 else f"{scaled:.1f} {_UNITS[place]}"


def part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def spark(values: Sequence[float | None], width: int = 120, height: int = 24) -> Markup:
    """A sparkline as SVG: gaps stay gaps, zero is the floor."""
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = width / max(1, len(values) - 1)
    lines, areas = [], []
    for run in _runs(values):
        points = [(place * step, height - 1.5 - value / top * (height - 4)) for place, value in run]
        if len(points) == 1:
            points.append((points[0][0] + 0.1, points[0][1]))
        lines.append("M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points))
        areas.append(f"{lines[-1]}L{points[-1][0]:.1f},{height}L{points[0][0]:.1f},{height}Z")
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" preserveAspectRatio="none" aria-hidden="true">'
        '<path class="spark-area" d="{a}"/><path class="spark-line" d="{l}"/></svg>'
    ).format(w=width, h=height, a="".join(areas), l="".join(lines))


def plan_picture(boxes: Sequence[dict[str, Any]], title: str) -> Markup:
    """Operators and sinks of a pipeline as SVG."""
    known = [msgspec.convert(box, svg_graph.Box) for box in boxes]
    return Markup(svg_graph.draw(known, title, style=""))  # noqa: S704  # it escapes all text itself


def milliseconds(value_s: float | None) -> str:
    """A latency: 0.4 ms, 12 ms, 1.2 s, 4m 10s."""
    if not _is_known(value_s):
        return "–"
    if value_s >= 1:
        return age(value_s)
    ms = value_s * 1_000
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((place, value))
    return [run for run in runs if run]


def pretty(text: str) -> Markup:
    """A body for reading: JSON laid out and coloured, anything else as it is. Always text, never markup."""
    shown = text[: limits.BODY_SHOWN_CHARACTERS]
    if len(shown) == len(text):
        laid_out = _laid_out(text)
        if laid_out is not None:
            return _coloured(laid_out)
    return escape(shown)


def one_line(text: str, characters: int = limits.BODY_LINE_CHARACTERS) -> str:
    """The beginning of a text, on one line."""
    head = " ".join(text[: characters * 4].split())
    return head if len(head) <= characters and len(text) <= characters * 4 else head[: characters - 1] + "…"


def _laid_out(text: str) -> str | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        # Numbers stay as they were written: a long id must not become a float.
        value = json.loads(text, parse_float=_Verbatim, parse_int=_Verbatim, parse_constant=_Verbatim)
        return _dump(value)
    except (ValueError, RecursionError):
        return None


class _Verbatim(str):
    __slots__ = ()


def _dump(value: Any, indent: str = "") -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = [f"{deeper}{json.dumps(key, ensure_ascii=False)}: {_dump(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        lines = [deeper + _dump(item, deeper) for item in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return str(value) if isinstance(value, _Verbatim) else json.dumps(value, ensure_ascii=False)


def _coloured(text: str) -> Markup:
    pieces, end = [], 0
    for found in _TOKEN.finditer(text):
        pieces.append(escape(text[end : found.start()]))
        pieces.append(Markup('<span class="json-{}">{}</span>').format(found.lastgroup, found[0]))
        end = found.end()
    return Markup("").join([*pieces, escape(text[end:])])
