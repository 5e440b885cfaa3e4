"""Arguments: what fits the signature travels typed, what does not is refused at the sender, by name."""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from headrace.work.arguments import Arguments
from headrace.work.errors import InvalidArguments, InvalidOption


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Address:
    street: str
    number: int = 1


class Order(msgspec.Struct):
    id: int
    at: dt.datetime


class User(BaseModel):
    name: str
    age: int


def plain(a: int, b: str = "x") -> str:
    return b * a


def through(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the function gives when its call has travelled."""
    arguments = Arguments(function, "mod.task")
    positional, named = arguments.call(arguments.encode(args, kwargs))
    return function(*positional, **named)


def test_arguments_are_json_by_name_and_defaults_are_the_workers() -> None:
    assert bytes(Arguments(plain, "t").encode((2,), {})) == b'{"a":2}'
    assert through(plain, 2) == "xx"
    assert through(plain, 2, b="y") == "yy"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (dt.datetime, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)),
        (dt.date, dt.date(2026, 1, 2)),
        (dt.timedelta, dt.timedelta(seconds=90)),
        (Decimal, Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=7)),
        (Colour, Colour.RED),
        (Address, Address("High", 2)),
        (Order, Order(1, dt.datetime(2026, 1, 2, tzinfo=dt.UTC))),
        (User, User(name="Ada", age=36)),
        (list[User], [User(name="Ada", age=36)]),
        (bytes, b"\x00\xff"),
        (dict[int, str], {1: "a"}),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "a")),
        (int | None, None),
        (Literal["a", "b"], "b"),
        (Annotated[int, msgspec.Meta(ge=1)], 1),
        (list[Address], [Address("High")]),
    ],
)
def test_a_value_arrives_as_its_annotation_says(kind: Any, value: Any) -> None:
    def task(x: Any) -> Any:
        return x

    task.__annotations__["x"] = kind
    assert through(task, value) == value
    assert type(through(task, value)) is type(value)


def test_every_kind_of_parameter_is_called_as_it_was_written() -> None:
    def task(a: int, /, b: int, *rest: int, c: int = 3, **more: int) -> tuple[object, ...]:
        return a, b, rest, c, more

    assert through(task, 1, 2) == (1, 2, (), 3, {})
    assert through(task, 1, b=2, c=4, d=5) == (1, 2, (), 4, {"d": 5})


def test_more_positional_arguments_arrive_behind_the_named_ones() -> None:
    def task(a: int, *rest: int) -> tuple[object, ...]:
        return a, rest

    assert through(task, 1, 2, 3) == (1, (2, 3))


@pytest.mark.parametrize(
    ("args", "kwargs", "parameter", "value", "reason"),
    [
        (("1",), {}, "a", "'1'", "Expected `int`, got `str`"),
        ((1, 2), {}, "b", "2", "Expected `str`, got `int`"),
        ((1.5,), {}, "a", "1.5", "Expected `int`, got `float`"),
        ((object(),), {}, "a", None, "cannot be written as JSON"),
        ((), {}, "", "", "missing a required argument: 'a'; it is mod.task(a: 'int', b: 'str' = 'x')"),
        ((1, "x", 3), {}, "", "", "too many positional arguments"),
        ((1,), {"c": 3}, "", "", "got an unexpected keyword argument 'c'"),
    ],
)
def test_a_wrong_call_names_task_parameter_value_and_what_was_expected(
    args: tuple[Any, ...], kwargs: dict[str, Any], parameter: str, value: str | None, reason: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        Arguments(plain, "mod.task").encode(args, kwargs)
    error = caught.value
    assert (error.task, error.parameter) == ("mod.task", parameter)
    assert value is None or error.value == value
    assert reason in error.reason
    assert str(error).startswith("invalid arguments for task 'mod.task': ")


def test_a_wrong_value_deep_inside_names_its_parameter() -> None:
    def task(x: list[Address]) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        Arguments(task, "t").encode(([{"street": 1}],), {})
    assert caught.value.parameter == "x"


def test_a_pydantic_model_is_checked_by_pydantic() -> None:
    def task(user: User) -> None: ...

    with pytest.raises(InvalidArguments, match="age"):
        Arguments(task, "t").encode(({"name": "Ada", "age": "old"},), {})


def test_a_long_value_is_shown_cut() -> None:
    with pytest.raises(InvalidArguments) as caught:
        Arguments(plain, "t").encode(("x" * 1000,), {})
    assert len(caught.value.value) == 80


def test_what_cannot_be_sent_is_refused_when_the_task_is_made() -> None:
    class Session: ...

    def task(session: Session) -> None: ...

    task.__annotations__["session"] = Session
    with pytest.raises(InvalidOption, match="cannot be sent as JSON"):
        Arguments(task, "t")


def test_an_annotation_that_is_known_to_type_checkers_alone_is_not_checked() -> None:
    def task(x: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821 - that is the point

    assert bytes(Arguments(task, "t").encode(("anything",), {})) == b'{"x":"anything"}'


def test_a_worker_with_another_signature_refuses_arguments_that_it_does_not_know() -> None:
    def before(a: int, b: int) -> None: ...
    def after(a: int) -> None: ...

    written = Arguments(before, "t").encode((1, 2), {})
    with pytest.raises(InvalidArguments, match="unknown field `b`"):
        Arguments(after, "t").call(written)


def test_the_first_open_parameter_is_what_a_chain_fills() -> None:
    arguments = Arguments(plain, "t")
    assert arguments.first_open((), {}) == "a"
    assert arguments.first_open((1,), {}) == "b"
    assert arguments.first_open((1, "x"), {}) == ""
    with pytest.raises(InvalidArguments):
        arguments.first_open((1, 2, 3), {})


def test_results_are_read_as_the_return_annotation_says() -> None:
    def task() -> list[Address]:
        return [Address("High")]

    arguments = Arguments(task, "t")
    assert arguments.decode_result(arguments.encode_result(task())) == task()


def test_a_function_of_the_arguments_gets_them_typed_with_their_names() -> None:
    def task(at: dt.date, n: int = 2) -> None: ...

    arguments = Arguments(task, "t")
    raw = arguments.encode((dt.date(2026, 1, 2),), {})
    assert arguments.apply(lambda at, n=9: f"{at.year}-{n}", raw) == "2026-9"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_plain_json_travels_unchanged(value: object) -> None:
    def task(x: Any) -> Any:
        return x

    assert through(task, value) == value


@given(st.binary() | st.text().map(str.encode))
def test_only_invalid_arguments_escapes_from_any_bytes(data: bytes) -> None:
    arguments = Arguments(plain, "t")
    try:
        arguments.call(msgspec.Raw(data))
    except InvalidArguments:
        return


def test_signature_is_the_functions() -> None:
    assert Arguments(plain, "t").names == list(inspect.signature(plain).parameters)
