"""When a queue is looked into: what is due, and what is waited for."""

from headrace.queue.store.postgres.watch import LOOK_EACH_MS, WAITED_FOR_MS, Watch


def test_queue_is_looked_into_when_its_next_message_is_due() -> None:
    watch = Watch()
    watch.note(0, empty=[], due={1: 500, 2: 900})
    watch.note(0, empty=[], due={1: 700})
    assert watch.next_ms() == 500
    assert watch.to_look_into(499) == []
    assert watch.to_look_into(500) == [1]
    assert watch.next_ms() == 900


def test_queue_that_is_waited_for_is_looked_into_each_second_and_then_forgotten() -> None:
    watch = Watch()
    watch.note(0, empty=[1], due={})
    now, looks = 0, 0
    while (due := watch.next_ms()) is not None:
        now = due
        (queue,) = watch.to_look_into(now)
        watch.seen(queue, None, now)
        looks += 1
    assert looks == WAITED_FOR_MS // LOOK_EACH_MS
    assert now == WAITED_FOR_MS


def test_what_is_due_sooner_than_the_next_look_is_seen_then() -> None:
    watch = Watch()
    watch.note(0, empty=[1], due={})
    assert watch.to_look_into(LOOK_EACH_MS) == [1]
    watch.seen(1, LOOK_EACH_MS + 300, LOOK_EACH_MS)
    assert watch.next_ms() == LOOK_EACH_MS + 300


def test_queue_that_nobody_waits_for_is_looked_into_when_something_is_due_only() -> None:
    watch = Watch()
    watch.note(0, empty=[], due={1: 100})
    assert watch.to_look_into(100) == [1]
    watch.seen(1, 90_000, 100)
    assert watch.next_ms() == 90_000
