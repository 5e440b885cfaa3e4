"""Chains and groups over a real store: each runs once, joins fire once, failures go where they should."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.queue.model import Entry
from headrace.work import App, TaskFailed, chain, group, keys
from headrace.work.errors import InvalidArguments, InvalidOption
from tests.work.small_worker import SmallWorker


class Bench:
    """An app over a folder, and its tasks."""

    def __init__(self, folder: Path) -> None:
        self.app = App(folder, retries=0)
        self.joined: list[list[int | None]] = []
        self.broken = {13}
        app = self.app

        @app.task(name="number")
        def number(n: int) -> int:
            if n in self.broken:
                raise ValueError(f"{n} is unlucky")
            return n

        @app.task(name="add")
        def add(a: int, b: int = 1) -> int:
            return a + b

        @app.task(name="total")
        def total(numbers: list[int | None]) -> int:
            self.joined.append(numbers)
            return sum(n or 0 for n in numbers)

        @app.task(name="alone")
        def alone() -> str:
            return "nothing taken"

        self.number, self.add, self.total, self.alone = number, add, total, alone
        self.worker = SmallWorker(app)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "data")
    yield made
    made.app.close()


def test_a_chain_hands_each_result_to_the_next(bench: Bench) -> None:
    handle = chain(bench.number.s(1), bench.add.s(b=10), bench.add.s(b=100)).send()
    bench.worker.run_ready()
    assert handle.result(0) == 111
    assert bench.worker.ran == ["number", "add", "add"]


def test_an_immutable_step_takes_nothing(bench: Bench) -> None:
    handle = chain(bench.number.s(1), bench.alone.si()).send()
    bench.worker.run_ready()
    assert handle.result(0) == "nothing taken"


def test_a_step_that_fails_ends_its_chain_and_tells_so(bench: Bench) -> None:
    handle = chain(bench.number.s(13), bench.add.s(b=1), bench.add.s(b=1)).send()
    bench.worker.run_ready()
    with pytest.raises(TaskFailed, match="13 is unlucky"):
        handle.result(0)
    assert bench.worker.ran == ["number"]


def test_a_chain_that_was_redriven_goes_on(bench: Bench) -> None:
    handle = chain(bench.number.s(13), bench.add.s(b=1)).send()
    bench.worker.run_ready()
    bench.broken.clear()
    redrive(bench)
    bench.worker.run_ready()
    assert handle.result(0) == 14


def test_a_group_is_joined_once_with_results_in_order(bench: Bench) -> None:
    handle = group([bench.number.s(n) for n in (5, 3, 4)]).then(bench.total.s()).send()
    bench.worker.run_ready()
    assert handle.result(0) == 12
    assert bench.joined == [[5, 3, 4]]


def test_a_group_that_nothing_joins_gives_its_results(bench: Bench) -> None:
    handle = group([bench.number.s(2), chain(bench.number.s(3), bench.add.s(b=4))]).send()
    bench.worker.run_ready()
    assert handle.result(0) == [2, 7]


def test_groups_nest_and_stand_in_chains(bench: Bench) -> None:
    inner = group([bench.add.s(b=10), bench.add.s(b=20)]).then(bench.total.s())
    flow = chain(
        bench.number.s(1),
        group([inner, chain(bench.add.s(b=2), bench.add.s(b=3))]),
        bench.total.s(),
        bench.add.s(b=1_000),
    )
    handle = flow.send()
    bench.worker.run_ready()
    assert handle.result(0) == (11 + 21) + (1 + 2 + 3) + 1_000
    assert sorted(map(len, bench.joined)) == [2, 2]


def test_each_send_of_a_flow_is_a_flow_of_its_own(bench: Bench) -> None:
    flow = group([bench.number.s(1), bench.number.s(2)]).then(bench.total.s())
    handles = [flow.send(), flow.send()]
    bench.worker.run_ready()
    assert [handle.result(0) for handle in handles] == [3, 3]


def test_a_failed_member_stops_its_group_until_it_is_redriven(bench: Bench) -> None:
    handle = chain(group([bench.number.s(13), bench.number.s(1)]), bench.total.s(), bench.add.s(b=1)).send()
    bench.worker.run_ready()
    with pytest.raises(TaskFailed, match="13 is unlucky"):
        handle.result(0)
    assert bench.joined == []
    bench.broken.clear()
    redrive(bench)
    bench.worker.run_ready()
    assert handle.result(0) == 15


def test_with_continue_a_failed_member_is_none_and_counts_once(bench: Bench) -> None:
    members = [bench.number.s(13), chain(bench.number.s(13), bench.add.s(b=1)), bench.number.s(1)]
    handle = group(members, on_failure="continue").then(bench.total.s()).send()
    bench.worker.run_ready()
    assert handle.result(0) == 1
    assert bench.joined == [[None, None, 1]]
    bench.broken.clear()
    redrive(bench)
    bench.worker.run_ready()
    assert bench.joined == [[None, None, 1]]


def test_a_failure_inside_a_nested_group_reaches_the_flows_result(bench: Bench) -> None:
    inner = group([bench.number.s(13), bench.number.s(1)]).then(bench.total.s())
    outer = group([inner, bench.number.s(2)]).then(bench.total.s())
    handle = chain(outer, bench.add.s(b=1)).send()
    bench.worker.run_ready()
    with pytest.raises(TaskFailed, match="unlucky"):
        handle.result(0)


@pytest.mark.parametrize("batch", [1, 10])
def test_a_nested_group_of_which_several_fail_counts_once(bench: Bench, batch: int) -> None:
    """Each of them fails the inner join, which is one member of the outer group: whether in one commit or in several."""
    bench.worker.batch = batch
    inner = group([bench.number.s(13), bench.number.s(13), bench.number.s(1)]).then(bench.total.s())
    others = [chain(bench.number.s(n), bench.add.s(b=1), bench.add.s(b=1)) for n in (2, 3)]
    handle = group([inner, *others], on_failure="continue").then(bench.total.s()).send()
    bench.worker.run_ready()
    assert bench.joined == [[None, 4, 5]]
    assert handle.result(0) == 9
    bench.broken.clear()
    redrive(bench)
    bench.worker.run_ready()
    assert bench.joined == [[None, 4, 5], [13, 13, 1]]


def test_a_step_before_a_group_that_fails_ends_the_groups_too(bench: Bench) -> None:
    handle = chain(bench.number.s(13), group([bench.add.s(b=1), bench.add.s(b=2)]), bench.total.s()).send()
    lone = chain(bench.number.s(13), group([bench.add.s(b=1), bench.add.s(b=2)])).send()
    bench.worker.run_ready()
    for one in (handle, lone):
        with pytest.raises(TaskFailed, match="unlucky"):
            one.result(0)


def test_a_joined_group_leaves_no_rows(bench: Bench) -> None:
    group([bench.number.s(n) for n in range(5)]).then(bench.total.s()).send()
    assert bench.app.backend.state(keys.GROUP)
    bench.worker.run_ready()
    assert bench.app.backend.state(keys.GROUP) == []


def test_many_members_that_end_at_once_on_four_workers_join_once(bench: Bench) -> None:
    handle = group([bench.number.s(n + 100) for n in range(300)]).then(bench.total.s()).send()
    workers = [SmallWorker(bench.app, batch=7) for _ in range(4)]
    threads = [threading.Thread(target=worker.run_ready) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.worker.run_ready()
    assert handle.result(0) == sum(range(100, 400))
    assert len(bench.joined) == 1 and len(bench.joined[0]) == 300


def test_flows_are_sent_with_a_transaction_or_not_at_all(bench: Bench) -> None:
    flow = group([bench.number.s(1), bench.number.s(2)]).then(bench.total.s())
    with pytest.raises(RuntimeError), bench.app.transaction():  # noqa: PT012 - the block is what is tested
        flow.send()
        raise RuntimeError
    assert bench.worker.run_ready() == 0
    assert bench.app.backend.state(keys.GROUP) == []
    with bench.app.transaction():
        handle = flow.send()
    bench.worker.run_ready()
    assert handle.result(0) == 3


def test_flows_that_cannot_be_are_refused_when_written(bench: Bench) -> None:
    with pytest.raises(InvalidOption, match="at least one"):
        chain()
    with pytest.raises(InvalidOption, match="1 to 10,000"):
        group([])
    with pytest.raises(InvalidOption, match="two groups"):
        chain(group([bench.number.s(1)]), group([bench.number.s(2)]))
    with pytest.raises(InvalidOption, match="without a join"):
        group([group([bench.number.s(1)])])
    with pytest.raises(InvalidOption, match="on_failure"):
        group([bench.number.s(1)], on_failure="ignore")  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="number"):
        chain(bench.number.s(), bench.add.s()).send()
    with pytest.raises(InvalidOption, match="unique"):
        chain(bench.number.s(1), bench.alone.options(unique="one").si()).send()
    with pytest.raises(InvalidOption, match="at most 200"):
        chain(bench.number.s(1), *[bench.add.s()] * 200).send()


def test_the_longest_chain_there_may_be_comes_to_its_end(bench: Bench) -> None:
    handle = chain(bench.number.s(1), *[bench.add.s()] * 199).send()
    bench.worker.run_ready()
    assert handle.result(0) == 200


def redrive(bench: Bench) -> None:
    """Send the dead letters again, as `headrace queue redrive` does."""
    backend = bench.app.backend
    [(_, deliveries)] = backend.receive(["tasks-dead"], 100, visibility_ms=60_000, wait_s=0)
    backend.send("tasks", [Entry(delivery.message.body) for delivery in deliveries])
