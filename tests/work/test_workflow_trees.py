"""Any flow of chains and groups in each other, with any failures, on two workers that settle in any order: its result is what
a plain recursion gives, and every join runs exactly as often as that says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.testing.tasks import in_memory
from headrace.work import App, TaskFailed, chain, group, keys
from headrace.work.composing import Step
from headrace.work.workflows import OnFailure
from tests.work.small_worker import SmallWorker

UNLUCKY = 13


@dataclass
class One:
    n: int


@dataclass
class Row:
    steps: list[Any]


@dataclass
class Crowd:
    members: list[Any]
    on_failure: OnFailure


def rows(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(inner, min_size=1, max_size=4)
    return st.builds(Row, many) | st.builds(Crowd, many, st.sampled_from(["stop", "continue"]))


trees = st.recursive(st.builds(One, st.sampled_from([1, 2, 3, 5, UNLUCKY])), rows, max_leaves=12)


class Reference:
    """What comes of a tree, and how many joins run."""

    def __init__(self) -> None:
        self.joins = 0

    def value(self, tree: Any, before: int) -> int | None:
        """None: it fails."""
        if isinstance(tree, One):
            return None if tree.n == UNLUCKY else before + tree.n
        if isinstance(tree, Row):
            value: int | None = before
            for step in tree.steps:
                value = self.value(step, value) if value is not None else None
            return value
        values = [self.value(member, before) for member in tree.members]
        if None in values and tree.on_failure == "stop":
            return None
        self.joins += 1
        return sum(value or 0 for value in values)


class Tasks:
    def __init__(self) -> None:
        self.app = app = App(retries=0)
        self.joined = 0

        @app.task(name="add")
        def add(before: int = 0, n: int = 0) -> int:
            if n == UNLUCKY:
                raise ValueError("unlucky")
            return before + n

        @app.task(name="total")
        def total(numbers: list[int | None]) -> int:
            self.joined += 1
            return sum(number or 0 for number in numbers)

        self.add, self.total = add, total

    def step(self, tree: Any) -> Step:
        if isinstance(tree, One):
            return self.add.s(n=tree.n)
        if isinstance(tree, Row):
            return chain(*[self.step(step) for step in tree.steps])
        return group([self.step(member) for member in tree.members], on_failure=tree.on_failure).then(self.total.s())


@settings(max_examples=40, deadline=None)
@given(tree=trees, data=st.data())
def test_a_flow_comes_to_what_a_recursion_says_however_it_is_interleaved(tree: Any, data: st.DataObject) -> None:
    reference = Reference()
    expected = reference.value(tree, 0)
    tasks = Tasks()
    with in_memory(tasks.app):
        handle = chain(tasks.step(tree)).send()
        for _ in rounds(tasks.app, data):
            outcome = handle.outcome()
            assert outcome is None or outcome.status == "succeeded" or expected is None, "told as failed too early"
        assert tasks.joined == reference.joins
        try:
            assert handle.result(0) == expected
        except TaskFailed:
            assert expected is None
        if expected is not None and UNLUCKY not in numbers_of(tree):
            assert tasks.app.backend.state(keys.GROUP) == []


def rounds(app: App, data: st.DataObject) -> Iterator[None]:
    """Two workers: both take and run; one commits between the reads and the commit of the other."""
    workers = [SmallWorker(app), SmallWorker(app)]
    while True:
        taken = []
        for worker in workers:
            worker.batch = data.draw(st.integers(1, 5))
            taken.append((worker, *worker.take_batch()))
        if not any(count for _, count, _ in taken):
            return
        (slow, _, late), (fast, _, soon) = data.draw(st.permutations(taken))
        if late:
            slow.meanwhile = partial(fast.settle, soon)
            slow.settle(late)
        else:
            fast.settle(soon)
        yield


def numbers_of(tree: Any) -> set[int]:
    if isinstance(tree, One):
        return {tree.n}
    return set().union(*(numbers_of(part) for part in (tree.steps if isinstance(tree, Row) else tree.members)))
