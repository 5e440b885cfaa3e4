"""Options: checked when a task is decorated, with the option's name, its value, its bound and what was meant."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from headrace.work import App, Backoff, InvalidOption
from headrace.work.options import DEFAULTS, ConsumerValues, OptionValues, changed


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"delay": "5 minutes"}, "delay_ms", 300_000),
        ({"delay": 1.5}, "delay_ms", 1_500),
        ({"delay": dt.timedelta(days=14)}, "delay_ms", 1_209_600_000),
        ({"timeout": "90s"}, "timeout_s", 90.0),
        ({"timeout": None}, "timeout_s", None),
        ({"result_ttl": "1h"}, "result_ttl_s", 3_600.0),
        ({"expires": 60}, "expires_ms", 60_000),
        ({"retry_on": ValueError}, "retry_on", (ValueError,)),
        ({"give_up_on": (ValueError, KeyError)}, "give_up_on", (ValueError, KeyError)),
        ({"backoff": "2s"}, "backoff", Backoff(first_ms=2_000)),
        ({"unique": False}, "unique", None),
        ({"unique": True}, "unique", True),
        ({"rate": "100/m"}, "rate", "100/m"),
        ({"concurrency": 5}, "concurrency", 5),
    ],
)
def test_an_option_is_kept_with_its_unit(values: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(changed(DEFAULTS, values), field) == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"dealy": 1}, "did you mean delay?"),
        ({"xyz": 1}, "unknown option; the options are queue, "),
        ({"delay": -1}, "option delay = -1 is invalid: it must be from 0 seconds to 14 days"),
        ({"delay": "15 days"}, "it must be from 0 seconds to"),
        ({"delay": "soon"}, "is not a valid duration"),
        ({"delay": True}, "it must be a duration"),
        ({"delay": float("nan")}, "option delay = nan"),
        ({"timeout": "13h"}, "it must be from 1 millisecond to 12 hours"),
        ({"timeout": 0}, "it must be from 1 millisecond to"),
        ({"priority": 2}, "it must be one of -1, 0, 1"),
        ({"priority": True}, "it must be one of"),
        ({"retries": -1}, "a whole number from 0 to 1000"),
        ({"retries": 1.5}, "a whole number"),
        ({"unique_until": "later"}, "one of 'finished', 'started', 'ttl'"),
        ({"retry_on": "ValueError"}, "an exception class"),
        ({"retry": 3}, "it must be a function"),
        ({"unique": ""}, "a string, or a function"),
        ({"unique": 7}, "a string, or a function"),
        ({"outbox": 1}, "it must be True or False"),
        ({"queue": "no spaces"}, "1 to 75 characters"),
        ({"queue": ""}, "the name of a queue"),
        ({"queue": "tasks-high"}, "say queue and priority="),
        ({"queue": "x" * 76}, "1 to 75 characters"),
        ({"queue": "orders.fifo"}, "say which tasks keep order"),
        ({"queue": "orders.fifo", "group": "g", "delay": 1}, "neither delay nor priority"),
        ({"queue": "orders.fifo", "group": "g", "priority": 1}, "neither delay nor priority"),
        ({"rate": "fast"}, "'100/m'"),
        ({"rate": 5}, "it must be a string"),
        ({"key": "x"}, "it belongs to rate= or concurrency="),
        ({"backoff": "2h"}, "it must be from 0 seconds to 1 hour"),
    ],
)
def test_a_wrong_option_is_an_error_when_the_task_is_decorated(values: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        App().task(**values)
    assert text in str(caught.value)


@pytest.mark.parametrize("values", [{"first_ms": -1}, {"max_ms": 10}, {"factor": 0.5}])
def test_a_backoff_is_checked_when_it_is_made(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=f"backoff.{next(iter(values))}"):
        Backoff(**values)


def test_every_option_that_is_named_can_be_given() -> None:
    from headrace.work.options import _RULES

    assert set(_RULES) == set(OptionValues.__annotations__)
    assert set(ConsumerValues.__annotations__) < set(_RULES)


def test_options_of_the_app_are_defaults_of_its_tasks() -> None:
    app = App(retries=3, result_ttl="1h")

    @app.task(retries=5)
    def task() -> None: ...

    assert (task.defaults.retries, task.defaults.result_ttl_s) == (5, 3_600.0)


def test_options_of_a_send_change_the_copy_alone() -> None:
    app = App()

    @app.task
    def task() -> None: ...

    assert task.options(delay=5).dispatch((), {}).delay_ms == 5_000
    assert task.dispatch((), {}).delay_ms == 0


@pytest.mark.parametrize("values", [{"backoff": 5}, {"retry_on": ValueError}, {"outbox": True}, {"rate": "1/s"}])
def test_options_that_the_worker_goes_by_cannot_be_given_with_a_send(values: dict[str, Any]) -> None:
    app = App()

    @app.task
    def task() -> None: ...

    with pytest.raises(InvalidOption, match=r"set it with @app\.task"):
        task.options(**values)


def test_a_consumer_takes_only_options_that_mean_something_for_it() -> None:
    app = App()
    with pytest.raises(InvalidOption, match="a consumer's options are retries"):
        app.consumer("orders", delay=5)(lambda body: None)  # type: ignore[call-arg] # the point
    with pytest.raises(InvalidOption, match="from 1 to 10000"):
        app.consumer("orders", batch=0)(lambda body: None)
    with pytest.raises(InvalidOption, match="no one acknowledgement"):
        app.consumer("orders", batch=2, outbox=True)(lambda body: None)


def test_eta_delays_a_task_until_that_moment() -> None:
    app = App(clock=lambda: 1_000_000)
    task = app.task(name="pay")(lambda: None)
    at = dt.datetime.fromtimestamp(1_060, tz=dt.UTC)
    assert task.options(eta=at).dispatch((), {}).delay_ms == 60_000
    assert task.options(eta=at - dt.timedelta(hours=1)).dispatch((), {}).delay_ms == 0, "a past time means at once"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"eta": dt.datetime(2026, 1, 1)}, "a datetime with a time zone"),  # noqa: DTZ001 - that is the case
        ({"eta": "tomorrow"}, "a datetime with a time zone"),
        ({"eta": dt.datetime.now(dt.UTC), "delay": 5}, "either eta= or delay="),
        ({"eta": dt.datetime.now(dt.UTC), "queue": "a.fifo", "group": "g"}, "neither delay nor priority"),
    ],
)
def test_eta_that_cannot_be_kept_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        changed(DEFAULTS, values)


def test_eta_is_refused_beyond_14_days_and_in_calls_that_are_sent_later() -> None:
    app = App(clock=lambda: 0)
    task = app.task(name="pay")(lambda: None)
    far = task.options(eta=dt.datetime.fromtimestamp(15 * 86_400, tz=dt.UTC))
    with pytest.raises(InvalidOption, match="at most 14 days"):
        far.dispatch((), {})
    with pytest.raises(InvalidOption, match="use delay="):
        far.s()
