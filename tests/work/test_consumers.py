"""Consumers take any queue's messages, as their parameter says; the message keeps its body whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from headrace.native.bodies import attributes_blob
from headrace.queue import attributes
from headrace.queue.model import Entry, arn_of
from headrace.testing.tasks import in_memory
from headrace.work import App, InvalidOption, Message, keys


@dataclass
class Order:
    book: int


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (dict, b'{"book":7}', {"book": 7}),
        (Order, b'{"book":7}', Order(7)),
        (bytes, b"\xff", b"\xff"),
        (str, b"hello", "hello"),
        (Any, b"[1]", [1]),
        (list[int], b"[1]", [1]),
    ],
)
def test_the_parameter_says_what_it_takes(kind: Any, body: bytes, expected: object) -> None:
    app = App()
    got: list[object] = []

    def take(order: Any) -> None:
        got.append(order)

    take.__annotations__["order"] = kind
    app.consumer("orders")(take)
    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(body)])
        assert [run.disposition for run in tests.run_pending()] == ["succeeded"]
    assert got == [expected]


def test_a_message_as_a_whole_has_its_attributes() -> None:
    app = App()
    got: list[Message] = []

    @app.consumer("orders")
    async def take(message: Message) -> None:
        got.append(message)

    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(b'{"book":7}', attributes=attributes_blob({"n": 1}), group="g")])
        tests.run_pending()
    [message] = got
    assert (message.json(), message.attributes, message.group, message.receives) == ({"book": 7}, {"n": 1}, "g", 1)
    assert message.json(Order) == Order(7)


def test_a_failed_message_is_shown_again_and_dies_with_its_body_and_its_attributes() -> None:
    app = App()
    tries: list[int] = []

    @app.consumer("orders", retries=2)
    def take(message: Message) -> None:
        tries.append(message.receives)
        raise ValueError("no")

    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(b"body", attributes=attributes_blob({"mine": "x"}))])
        assert [run.disposition for run in tests.run_until_idle()] == ["retried", "retried", "dead"]
        assert tries == [1, 2, 3]
        [letter] = tests.driver.peek(arn_of("orders-dead"))
        said = attributes.decode(letter.message.attributes)
        assert letter.message.body == b"body"
        assert said["mine"] == ("String", "x")
        assert said["headrace-reason"] == ("String", "ValueError: no")
        assert app.backend.state(b"") == []


def test_a_body_that_is_not_what_the_parameter_asks_for_dies_at_once() -> None:
    app = App()
    app.consumer("orders")(_takes_order)
    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(b'{"book":"x"}')])
        assert [run.disposition for run in tests.run_pending()] == ["dead"]


def test_a_lost_worker_counts_for_consumers_too() -> None:
    app = App()
    app.consumer("orders", max_worker_losses=0)(_takes_order)
    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(b'{"book":1}')])
        tests.driver.receive_one(arn_of("orders"))
        tests.advance("61s")
        [run] = tests.run_pending()
    assert (run.disposition, run.error and run.error.type) == ("dead", "WorkerLost")


def test_losses_and_failures_are_told_apart() -> None:
    app = App()

    @app.consumer("orders", retries=5)
    def take(body: dict[str, int]) -> None:
        raise ValueError("no")

    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(b"{}")])
        assert tests.run_pending()[0].attempt == 1
        tests.advance("1h")
        tests.driver.receive_one(arn_of("orders"))
        tests.advance("61s")
        assert tests.run_pending()[0].attempt == 3
        [(_, row)] = app.backend.state(keys.ATTEMPTS)
        assert [name in row.decode() for name in ("WorkerLost", "ValueError")] == [True, True]


def test_a_batch_is_one_call_and_one_bad_body_fails_alone() -> None:
    app = App()
    got: list[list[Order]] = []

    @app.consumer("orders", batch=10)
    def take(orders: list[Order]) -> None:
        got.append(orders)

    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(b'{"book":%d}' % n) for n in range(3)] + [Entry(b"bad")])
        dispositions = [run.disposition for run in tests.run_pending()]
    assert got == [[Order(0), Order(1), Order(2)]]
    assert dispositions == ["succeeded", "succeeded", "succeeded", "dead"]


def test_a_batch_that_raises_is_retried_as_a_whole() -> None:
    app = App()
    calls: list[int] = []

    @app.consumer("orders", batch=2)
    async def take(orders: list[bytes]) -> None:
        calls.append(len(orders))
        if len(calls) == 1:
            raise ValueError("no")

    with in_memory(app) as tests:
        app.backend.send("orders", [Entry(b"a"), Entry(b"b"), Entry(b"c")])
        assert [run.disposition for run in tests.run_pending()] == ["retried", "retried", "succeeded"]
        assert [run.disposition for run in tests.run_until_idle()] == ["succeeded", "succeeded"]


@pytest.mark.parametrize(
    ("function", "batch"),
    [(lambda: None, None), (lambda a, b: None, None)],
)
def test_a_consumer_takes_one_parameter(function: Any, batch: int | None) -> None:
    with pytest.raises(InvalidOption, match="it takes one parameter"):
        App().consumer("orders", batch=batch)(function)


def test_a_batch_consumer_takes_a_list() -> None:
    with pytest.raises(InvalidOption, match="its parameter is a list"):
        App().consumer("orders", batch=2)(_takes_order)


def test_a_queue_has_one_consumer() -> None:
    app = App()
    app.consumer("orders")(_takes_order)
    with pytest.raises(InvalidOption, match="it has a consumer already"):
        app.consumer("orders")(_takes_order)


def _takes_order(order: Order) -> None: ...
