"""Hooks see every step, in order; one that raises stops what has not happened yet and nothing that has."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import msgspec
import pytest

from headrace.testing.tasks import in_memory
from headrace.work import App, Context, Middleware
from headrace.work.dispatch import Dispatch
from tests.work.small_app import build


class Seen(Middleware):
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    def before_send(self, dispatch: Dispatch) -> Dispatch:
        self.seen.append(f"{self.name} before_send {dispatch.envelope.task}")
        return dispatch

    def after_send(self, dispatch: Dispatch) -> None:
        self.seen.append(f"{self.name} after_send")

    def before_run(self, context: Context) -> None:
        self.seen.append(f"{self.name} before_run {context.attempt}")

    def after_run(self, context: Context, outcome: Any) -> None:
        self.seen.append(f"{self.name} after_run {type(outcome).__name__}")

    def on_retry(self, job: Any, error: Any, delay_ms: int) -> None:
        self.seen.append(f"{self.name} on_retry {error.line}")

    def on_dead(self, job: Any, error: Any) -> None:
        self.seen.append(f"{self.name} on_dead")


def test_hooks_run_in_order_and_back_again() -> None:
    seen: list[str] = []
    app, _ = build(middleware=[Seen("1", seen), Seen("2", seen)])
    with in_memory(app) as tests:
        app.tasks["add"].send(1)
        assert seen == ["1 before_send add", "2 before_send add", "2 after_send", "1 after_send"]
        seen.clear()
        tests.run_pending()
        assert seen == ["1 before_run 1", "2 before_run 1", "2 after_run Succeeded", "1 after_run Succeeded"]


def test_hooks_are_told_of_retries_and_of_the_end() -> None:
    seen: list[str] = []
    app, _ = build(middleware=[Seen("1", seen)])
    with in_memory(app) as tests:
        app.tasks["fail"].options(retries=1).send("x")
        seen.clear()
        tests.run_until_idle()
    assert seen == [
        "1 before_run 1", "1 after_run Failed", "1 on_retry ValueError: x", "1 before_run 2", "1 after_run Failed", "1 on_dead",
    ]  # fmt: skip


def test_before_send_may_change_what_is_sent() -> None:
    class Traced(Middleware):
        def before_send(self, dispatch: Dispatch) -> Dispatch:
            return dataclasses.replace(dispatch, envelope=msgspec.structs.replace(dispatch.envelope, trace="00-1-2-01"))

    app, _ = build(middleware=[Traced()])
    with in_memory(app) as tests:
        app.tasks["add"].send(1)
        assert tests.pending()[0].trace == "00-1-2-01"


def test_an_error_before_a_send_stops_it() -> None:
    class Refuses(Middleware):
        def before_send(self, dispatch: Dispatch) -> Dispatch:
            raise PermissionError("no")

    app, _ = build(middleware=[Refuses()])
    with in_memory(app) as tests:
        with pytest.raises(PermissionError):
            app.tasks["add"].send(1)
        assert tests.pending() == []


def test_an_error_before_a_run_is_the_attempts_failure() -> None:
    class Refuses(Middleware):
        def before_run(self, context: Context) -> None:
            raise PermissionError("no")

    app, did = build(middleware=[Refuses()])
    with in_memory(app) as tests:
        app.tasks["add"].send(1)
        app.tasks["double"].send(1)
        errors = [run.error.type for run in tests.run_pending() if run.error is not None]
    assert errors == ["PermissionError", "PermissionError"]
    assert did == []


def test_an_error_in_a_hook_that_watches_is_logged_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(Middleware): ...

    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    for hook in ("after_send", "after_run", "on_retry", "on_dead", "on_start", "on_stop"):
        setattr(Breaks, hook, broken)

    seen: list[str] = []
    app, _ = build(middleware=[Seen("1", seen), Breaks()])
    with in_memory(app) as tests, caplog.at_level(logging.ERROR, "headrace.work"):
        app.tasks["fail"].options(retries=1).send()
        tests.run_until_idle()
        app.hooks.on_start(app)
        app.hooks.on_stop(app)
    actions = [getattr(record, "action", "") for record in caplog.records]
    assert set(actions) == {"work.hook_failed"}
    assert len(actions) == 7
    assert seen[-1] == "1 on_dead"


def test_an_app_without_middleware_has_none() -> None:
    app = App()
    app.hooks.on_start(app)
    app.hooks.on_stop(app)
