"""The rules of the queue, with a clock moved by hand, and against a model that is a plain list."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.web.dispatch.admission import Admission
from headrace.web.dispatch.limits import PATIENCE_MIN_S, PRIORITY_TURN, RETRY_AFTER_MAX_S, STOOD_S


@dataclass(eq=False)
class Entry:
    name: int = 0
    priority: int = 1
    since_s: float = 0.0
    waiting: bool = False


def admission(*, size: int = 100, timeout_s: float = 10.0, service_s: float = 0.005) -> Admission[Entry]:
    queue: Admission[Entry] = Admission(queue_size=size, queue_timeout_s=timeout_s)
    queue.finished(service_s, 0.0)
    return queue


def fill(queue: Admission[Entry], count: int, *, now_s: float = 0.0, priority: int = 1) -> list[Entry]:
    entries = [Entry(name, priority) for name in range(count)]
    for entry in entries:
        assert queue.offer(entry, now_s) is None
    return entries


def test_short_queue_is_served_in_order() -> None:
    queue = admission()
    entries = fill(queue, 5)
    assert [queue.take(0.1) for _ in range(6)] == [*entries, None]


def overloaded(*, size: int = 100, waiting: int = 50) -> tuple[Admission[Entry], list[Entry]]:
    """A queue of which somebody has run out of patience at 0.5 s; and who waits still, since 0.45 s."""
    queue = admission(size=size)
    fill(queue, 1)
    entries = fill(queue, waiting, now_s=0.45)
    queue.finished(0.005, 0.5)
    assert len(queue.advance(0.5)[0]) == 1 and queue.overloaded
    return queue, entries


def test_overload_is_served_newest_first() -> None:
    queue, entries = overloaded()
    assert [queue.take(0.5) for _ in range(50)] == entries[::-1]


def test_client_that_left_is_skipped_under_overload() -> None:
    queue, entries = overloaded(waiting=3)
    queue.leave(entries[2])
    assert queue.take(0.5) is entries[1]


def test_queue_that_never_empties_is_no_overload() -> None:
    """More clients than slots: somebody always waits, but not for long."""
    queue = admission()
    fill(queue, 3)
    for tick in range(1, 200):
        now_s = tick / 100
        queue.advance(now_s)
        entry = queue.take(now_s)
        assert entry is not None and now_s - entry.since_s < 0.035
        queue.finished(0.01, now_s)
        fill(queue, 1, now_s=now_s)
    assert not queue.overloaded


def test_overload_is_over_when_the_queue_is_short() -> None:
    queue, _ = overloaded(waiting=80)
    for tick in range(79):
        queue.take(0.5 + tick / 1_000)
    queue.finished(0.005, 0.58)
    queue.advance(0.58)
    assert not queue.overloaded


def test_overload_is_over_when_the_queue_was_empty() -> None:
    queue, _ = overloaded(waiting=1)
    queue.take(0.5)
    entries = fill(queue, 2, now_s=0.6)
    assert queue.take(0.6) is entries[0]


def test_full_queue_refuses_who_comes() -> None:
    queue = admission(size=2)
    fill(queue, 2)
    late = Entry()
    assert queue.offer(late, 0.1) is late and not late.waiting and queue.length == 2


def test_full_queue_gives_up_its_oldest_under_overload() -> None:
    queue, old = overloaded(size=5, waiting=4)
    assert queue.offer(Entry(), 0.5) is None
    assert queue.offer(Entry(), 0.5) is old[0] and not old[0].waiting


def test_full_queue_gives_up_the_lowest_priority_for_a_higher_one() -> None:
    queue = admission(size=2)
    normal = fill(queue, 1)
    last = fill(queue, 1, priority=2)
    assert queue.offer(Entry(priority=0), 0.0) is last[0]
    assert queue.offer(Entry(priority=0), 0.0) is normal[0]
    refused = Entry(priority=1)
    assert queue.offer(refused, STOOD_S) is refused, "a lower priority never displaces a higher one"


def test_priority_go_in_order_but_none_starves() -> None:
    queue = admission()
    fill(queue, 50, priority=0)
    fill(queue, 5, priority=1)
    fill(queue, 5, priority=2, now_s=0.01)
    taken = [entry.priority for _ in range(4 * PRIORITY_TURN) if (entry := queue.take(0.02)) is not None]
    assert taken == ([0] * (PRIORITY_TURN - 1) + [1]) * 4


def test_what_a_worker_lost_goes_before_all_priority_even_into_a_full_queue() -> None:
    queue = admission(size=1)
    fill(queue, 1, priority=0)
    lost = Entry(priority=2)
    queue.put_back(lost, 0.1)
    assert queue.length == 2 and queue.take(0.1) is lost


def test_client_that_left_is_skipped() -> None:
    queue = admission()
    entries = fill(queue, 3)
    queue.leave(entries[0])
    queue.leave(entries[0])
    assert queue.length == 2 and queue.take(0.0) is entries[1]


def test_flood_of_clients_that_leave_keeps_no_memory() -> None:
    queue = admission()
    stays = fill(queue, 1)
    for _ in range(10_000):
        for entry in fill(queue, 1):
            queue.leave(entry)
    assert sum(map(len, queue._queues)) < 200 and queue.take(0.0) is stays[0]


def test_nobody_waits_longer_than_the_timeout() -> None:
    queue = admission(timeout_s=2.0, service_s=5.0)
    entries = fill(queue, 2)
    assert queue.advance(1.9) == ([], 2.0)
    assert queue.advance(2.0) == (entries, math.inf)
    assert queue.length == 0 and queue.take(2.0) is None


def test_standing_queue_loses_patience() -> None:
    queue = admission()
    old = fill(queue, 1)
    assert queue.advance(0.1) == ([], STOOD_S), "before it has stood only the timeout counts"
    queue.finished(0.005, 0.5)
    assert queue.advance(0.5) == (old, math.inf) and PATIENCE_MIN_S < 0.5


def test_queue_that_had_nobody_to_serve_it_gets_as_long_again() -> None:
    queue = admission()
    entries = fill(queue, 3)
    queue.resumed(2.0, paused_s=2.0)
    queue.finished(0.005, 2.0)
    assert queue.advance(4.2)[0] == [] and not queue.overloaded
    queue.finished(0.005, 4.2 + STOOD_S)
    assert queue.advance(4.2 + STOOD_S)[0] == entries
    queue.resumed(5.0, paused_s=1.0)
    fill(queue, 1, now_s=5.0)
    assert not queue.has_stood(6.0), "an empty queue: those that came meanwhile wait in the kernel"
    assert queue.has_stood(6.0 + STOOD_S)


def test_pauses_add_up_to_the_timeout() -> None:
    queue = admission(timeout_s=10.0)
    fill(queue, 1)
    queue.resumed(3.0, paused_s=3.0)
    queue.resumed(4.0, paused_s=0.5)
    assert not queue.has_stood(7.0) and queue.has_stood(7.0 + STOOD_S)
    for _ in range(20):
        queue.resumed(5.0, paused_s=0.5)
    assert not queue.has_stood(15.0) and queue.has_stood(15.0 + STOOD_S)


def test_patience_is_a_multiple_of_the_time_that_requests_run() -> None:
    queue = admission(service_s=4.0)
    fill(queue, 1)
    queue.finished(2.0, 1.0)
    assert queue.patience_s(1.0) > 4.0
    assert queue.advance(4.0)[0] == []


def test_patience_grows_while_nothing_finishes() -> None:
    queue = admission()
    fill(queue, 1)
    assert queue.patience_s(1.0) == 8.0, "requests that have run for 1 s run for at least 1 s"
    assert queue.patience_s(9.0) == 10.0


def test_patience_before_anything_has_finished_is_the_timeout() -> None:
    queue: Admission[Entry] = Admission(queue_size=10, queue_timeout_s=7.0)
    fill(queue, 1)
    assert queue.patience_s(5.0) == 7.0


def test_retry_after_is_depth_by_drain_rate() -> None:
    queue = admission()
    fill(queue, 100)
    for tenth in range(1, 11):
        queue.take(tenth / 10)
    assert queue.retry_after_s(0.0) == 9, "90 wait, 10 a second go"
    assert queue.retry_after_s(0.99) == 13


def test_retry_after_is_bounded() -> None:
    queue = admission(size=100_000, timeout_s=10.0)
    assert queue.retry_after_s(0.0) == 10, "nothing drains: the timeout"
    fill(queue, 100_000)
    for second in range(1, 3):
        queue.take(float(second))
    assert queue.retry_after_s(0.0) == 10, (
        "by then nobody waits any more who waits now, however slow it drained of late"
    )
    patient = admission(size=10, timeout_s=1_000.0)
    assert patient.retry_after_s(0.5) == RETRY_AFTER_MAX_S
    quick = admission()
    fill(quick, 2)
    quick.take(1.0)
    assert quick.retry_after_s(0.0) == 1


def test_oldest_wait() -> None:
    queue = admission()
    assert queue.oldest_wait_s(5.0) == 0.0
    fill(queue, 1, now_s=1.0)
    fill(queue, 1, now_s=0.5, priority=2)
    assert queue.oldest_wait_s(5.0) == 4.5


class AdmissionMachine(RuleBasedStateMachine):
    """Against a list of who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Admission[Entry] = Admission(queue_size=8, queue_timeout_s=3.0)
        self.model: list[Entry] = []
        self.now_s = 0.0
        self.empty_s = 0.0
        self.back = 0

    def has_stood(self) -> bool:
        return bool(self.model) and self.now_s >= self.empty_s + STOOD_S

    def join(self, entry: Entry) -> None:
        if not self.model:
            self.empty_s = self.now_s
        self.model.append(entry)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 1.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(priority=st.integers(0, 2))
    def offer(self, priority: int) -> None:
        entry = Entry(priority=priority)
        full = len(self.model) >= 8
        overloaded = self.queue.overloaded and bool(self.model)
        victim = self.queue.offer(entry, self.now_s)
        assert (victim is not None) == full
        if victim is not entry:
            if victim is not None:
                assert victim.priority > priority or (victim.priority == priority and overloaded)
                self.model.remove(victim)
            self.join(entry)

    @rule(priority=st.integers(0, 2))
    def put_back(self, priority: int) -> None:
        entry = Entry(priority=priority)
        entry.name = -1
        self.queue.put_back(entry, self.now_s)
        self.join(entry)

    @rule()
    def take(self) -> None:
        entry = self.queue.take(self.now_s)
        assert (entry is None) == (not self.model)
        if entry is not None:
            assert entry in self.model
            came_back = [waiting for waiting in self.model if waiting.name == -1]
            assert not came_back or entry in came_back
            peers = came_back or [waiting for waiting in self.model if waiting.priority == entry.priority]
            assert entry is (peers[-1] if self.queue.overloaded else peers[0])
            self.model.remove(entry)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(range(len(self.model))))
        self.queue.leave(self.model.pop(entry))

    @rule(service_s=st.sampled_from([0.001, 0.1, 2.0]))
    def finished(self, service_s: float) -> None:
        self.queue.finished(service_s, self.now_s)

    @rule()
    def advance(self) -> None:
        bound_s = self.queue.patience_s(self.now_s)
        before = self.queue.overloaded
        shed, deadline_s = self.queue.advance(self.now_s)
        late = {id(entry) for entry in self.model if entry.since_s + bound_s <= self.now_s}
        assert {id(entry) for entry in shed} == late
        self.model = [entry for entry in self.model if id(entry) not in late]
        assert not shed or self.queue.overloaded, "somebody has run out of patience"
        assert shed or before or not self.queue.overloaded, "nobody has"
        assert deadline_s > self.now_s and (deadline_s == math.inf) == (not self.model)

    @invariant()
    def is_consistent(self) -> None:
        self.queue._check_invariants()
        assert self.queue.length == len(self.model)
        assert self.queue.has_stood(self.now_s) == self.has_stood()


TestAdmission = AdmissionMachine.TestCase
