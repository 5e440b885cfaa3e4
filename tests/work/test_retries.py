"""Retries: the wait grows, is bounded, is spread, and is the same whoever asks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.work.retries import Backoff, is_left, roll

BACKOFFS = st.builds(
    lambda first, more, factor, jitter: Backoff(first_ms=first, max_ms=first + more, factor=factor, jitter=jitter),
    st.integers(0, 3_600_000), st.integers(0, 3_600_000), st.floats(1, 100), st.booleans(),
)  # fmt: skip
ROLLS = st.floats(0, 1, exclude_max=True)


@given(BACKOFFS, st.integers(1, 1_000), ROLLS)
def test_a_wait_lies_between_half_the_step_and_the_step(backoff: Backoff, failures: int, rolled: float) -> None:
    wait_ms = backoff.wait_ms(failures, rolled)
    step = min(float(backoff.max_ms), backoff.first_ms * backoff.factor ** min(failures - 1, 64))
    low = step / 2 if backoff.jitter else step
    assert low - 1 <= wait_ms <= min(backoff.max_ms, step + 1)


@given(BACKOFFS, st.integers(1, 999), ROLLS)
def test_waits_do_not_shrink_for_the_same_roll(backoff: Backoff, failures: int, rolled: float) -> None:
    assert backoff.wait_ms(failures, rolled) <= backoff.wait_ms(failures + 1, rolled)


@given(st.text(), st.integers(0, 1_000))
def test_a_roll_is_the_same_every_time_and_in_range(task_id: str, attempt: int) -> None:
    assert 0 <= roll(task_id, attempt) == roll(task_id, attempt) < 1


def test_rolls_of_many_tasks_are_spread_evenly() -> None:
    tenths = [0] * 10
    for number in range(10_000):
        tenths[int(roll(f"task-{number}", 1) * 10)] += 1
    assert all(850 < count < 1_150 for count in tenths), tenths


def test_the_default_doubles_from_a_second_to_an_hour_without_jitter() -> None:
    waits = [Backoff(jitter=False).wait_ms(failures, 0.0) for failures in range(1, 15)]
    assert waits[:4] == [1_000, 2_000, 4_000, 8_000]
    assert waits[-2:] == [3_600_000, 3_600_000]


@given(st.integers(0, 1_000))
def test_with_n_retries_there_are_n_plus_one_attempts(retries: int) -> None:
    failures = 1
    while is_left(failures, retries):
        failures += 1
    assert failures == retries + 1
