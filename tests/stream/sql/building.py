"""Streams that the tests of SQL read, and short ways to compile over them."""

from __future__ import annotations

from typing import TypeVar

from headrace.stream import physical, plan
from headrace.stream.schema import Schema
from headrace.stream.sql import Analysis, analyse
from headrace.stream.sql import compile as compile_plan

Kind = TypeVar("Kind")

DELAY = plan.EventTime("ts", 2_000_000)
BID = plan.MemorySource(
    "bid", Schema.of("auction bigint, bidder bigint, price bigint, url string, ts timestamp"), (), DELAY
)
AUCTION = plan.MemorySource(
    "auction", Schema.of("id bigint, seller bigint, category int, ts timestamp, expires timestamp"), (), DELAY
)
PERSON = plan.MemorySource("person", Schema.of("id bigint, name string, state string, ts timestamp"), (), DELAY)
UNTIMED = plan.MemorySource("untimed", Schema.of("id bigint, name string, ts timestamp"), ())
WINDOWED = plan.MemorySource("windowed", Schema.of("window_start bigint, ts timestamp"), (), DELAY)
RATES = plan.TableRef("rates", Schema.of("id bigint, rate double"), url="rates.parquet")
INPUTS: tuple[tuple[str, plan.Node | plan.TableRef], ...] = (
    ("bid", BID), ("auction", AUCTION), ("person", PERSON), ("untimed", UNTIMED), ("windowed", WINDOWED), ("rates", RATES),
)  # fmt: skip


def step(text: str, *more: tuple[str, plan.Node]) -> plan.SqlStep:
    return plan.SqlStep("q", text, (*INPUTS, *more))


def analysed(text: str) -> Analysis:
    return analyse(step(text))


def compiled(text: str, mode: plan.Mode = "append", *more: tuple[str, plan.Node]) -> physical.PhysicalPlan:
    return compile_plan(plan.Pipeline("p", step(text, *more), (), mode=mode))


def kinds(plan_: physical.PhysicalPlan) -> list[str]:
    return [type(operator).__name__ for operator in plan_.operators]


def only(plan_: physical.PhysicalPlan, kind: type[Kind]) -> Kind:
    """The one operator of that kind."""
    (found,) = [operator for operator in plan_.operators if isinstance(operator, kind)]
    return found
