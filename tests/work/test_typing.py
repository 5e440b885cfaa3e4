"""Type checkers know what a task takes and gives: mypy reads this file with the others, and complains of an ignore too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import pytest

from headrace.testing.tasks import in_memory
from headrace.work import App, Handle, InvalidArguments

app = App()


@app.task
def add(a: int, b: int = 2) -> int:
    return a + b


@app.task(result_ttl="1h", retries=3)
async def double(a: int) -> float:
    return 2.0 * a


def test_handles_have_the_type_of_the_result() -> None:
    with in_memory(app):
        assert_type(add.send(1), Handle[int])
        assert_type(double.send(1), Handle[float])
        assert_type(add.options(delay=5).send(1, b=3), Handle[int])


async def _async_ones() -> None:
    assert_type(await double.asend(1), Handle[float])
    assert_type(await add.asend(1), Handle[int])
    assert_type(await double(1), float)
    assert_type(await (await double.asend(1)).aresult(), float)


def test_wrong_arguments_do_not_pass_the_checker_nor_the_sender() -> None:
    with in_memory(app):
        with pytest.raises(InvalidArguments):
            add.send("1")  # type: ignore[arg-type]
        with pytest.raises(InvalidArguments):
            add.send(1, 2, 3)  # type: ignore[call-arg]
        with pytest.raises(InvalidArguments):
            double.send()  # type: ignore[call-overload]


if TYPE_CHECKING:
    assert_type(add(1), int)
    app.task(dealy=5)  # type: ignore[call-overload]
    app.task(retries="many")  # type: ignore[call-overload]
