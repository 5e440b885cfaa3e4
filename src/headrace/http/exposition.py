"""Prometheus' text exposition format 0.0.4: a table of metrics, and how their samples are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeAlias, TypeVar

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

S = TypeVar("S")

Sample: TypeAlias = tuple[str, str]
"""What follows the metric's name (suffix and labels), and the value."""

Reader: TypeAlias = Callable[[S], Iterable[Sample]]
"""Takes the samples of one metric from a snapshot."""


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: str
    """gauge, counter or histogram."""
    help: str


def render(table: Iterable[tuple[Metric, Reader[S]]], snapshot: S) -> bytes:
    """The snapshot as Prometheus reads it; a metric without samples is left out."""
    lines: list[str] = []
    for metric, read in table:
        samples = [f"{metric.name}{suffix} {value}" for suffix, value in read(snapshot)]
        if samples:
            lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *samples)
    return "\n".join([*lines, ""]).encode()


def plain(read: Callable[[S], float | None]) -> Reader[S]:
    """The reader of a metric with one value and no labels; None: no sample."""

    def samples(snapshot: S) -> Iterable[Sample]:
        value = read(snapshot)
        return () if value is None else (("", number(value)),)

    return samples


def histogram(bounds: Sequence[float], counts: Sequence[int], total: float, **names: str) -> Iterable[Sample]:
    """The samples of one histogram.

    Args:
        bounds: upper ends of the buckets, ascending, without infinity.
        counts: of each bucket, not cumulative; one more than `bounds`.
        total: the sum of what was observed.
        names: labels.
    """
    cumulated = list(accumulate(counts))
    for bound, count in zip(bounds, cumulated, strict=False):
        yield "_bucket" + labels(**names, le=number(bound)), str(count)
    yield "_bucket" + labels(**names, le="+Inf"), str(cumulated[-1])
    yield "_sum" + labels(**names), number(total)
    yield "_count" + labels(**names), str(cumulated[-1])


def labels(**values: str) -> str:
    if not values:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in values.items()) + "}"


def number(value: float) -> str:
    """Shortest text that reads back the same; whole numbers without a point."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
