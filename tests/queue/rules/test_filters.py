"""Filter policies: each rule of SNS's language, what it matches and what not; and mistakes, named with their place."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidFilter
from headrace.queue import attributes
from headrace.queue.filters import Policy, Subject


def by_attributes(policy: dict[str, Any], **values: tuple[str, str | bytes]) -> bool:
    return Policy(policy, "MessageAttributes").lets_in(Subject(attributes.encode(values), b"body"))


def by_body(policy: dict[str, Any], body: Any) -> bool:
    return Policy(policy, "MessageBody").lets_in(Subject(b"", json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("rule", "matching", "others"),
    [
        ("a", ["a"], ["A", "ab", "", 1, None, True]),
        (1.5, [1.5], ["1.5", 1, 2, None]),
        (100, [100, 100.0, 1e2], ["100", 101, True]),
        (0.1, [0.1], [0.1000001]),
        (1, [1], [True]),
        (True, [True], [False, 1, "true", None]),
        (None, [None], [False, 0, ""]),
        ({"prefix": "re"}, ["re", "red"], ["r", "Red", 1, None]),
        ({"prefix": {"equals-ignore-case": "RE"}}, ["red", "REd"], ["r", 1]),
        ({"suffix": "ed"}, ["ed", "red"], ["edx", "RED", 1]),
        ({"suffix": {"equals-ignore-case": "ED"}}, ["red", "RED"], ["re"]),
        ({"equals-ignore-case": "Red"}, ["red", "RED"], ["reds", 1]),
        ({"wildcard": "a*c"}, ["ac", "abc", "abcc"], ["abcd", "xac", "c", 1]),
        ({"wildcard": "*b*"}, ["b", "abc"], ["ac"]),
        ({"wildcard": "a*b*c"}, ["abc", "axbxc"], ["ac", "acb", "ab"]),
        ({"wildcard": "a*a"}, ["aa", "aba"], ["a"]),
        ({"wildcard": r"1\*2\\"}, ["1*2\\"], ["112\\", "1*2"]),
        ({"anything-but": "a"}, ["b", 1, None], ["a"]),
        ({"anything-but": ["a", 1]}, ["b", 2], ["a", 1]),
        ({"anything-but": {"prefix": "a"}}, ["b", 1], ["ab"]),
        ({"anything-but": {"suffix": ["x", "y"]}}, ["b"], ["ax", "ay"]),
        ({"anything-but": {"wildcard": "*x*"}}, ["b"], ["axb"]),
        ({"anything-but": {"equals-ignore-case": "A"}}, ["b"], ["a", "A"]),
        ({"numeric": ["=", 5]}, [5, 5.0], [4, "5", None, True]),
        ({"numeric": [">", 0, "<=", 5]}, [0.5, 5], [0, 5.1, "3"]),
        ({"numeric": [">=", -1, "<", 1]}, [-1, 0], [1, -1.1]),
        ({"numeric": ["<", 3]}, [-10, 2.9], [3]),
        ({"cidr": "10.0.0.0/24"}, ["10.0.0.1", "10.0.0.255"], ["10.0.1.0", "::1", "no address", 1]),
        ({"cidr": "2001:db8::/32"}, ["2001:db8::1"], ["2001:db9::1", "10.0.0.1"]),
        ({"exists": True}, ["a", "", 0, None, False], []),
        ({"exists": False}, [], ["a", 0, None]),
    ],
)
def test_rule_matches_what_it_says(rule: Any, matching: list[Any], others: list[Any]) -> None:
    assert [value for value in matching if not by_body({"k": [rule]}, {"k": value})] == []
    assert [value for value in others if by_body({"k": [rule]}, {"k": value})] == []
    assert [value for value in matching if not by_body({"k": [rule]}, {"k": ["?", [value]]})] == []
    assert by_body({"k": [rule]}, {}) == (rule == {"exists": False})


def test_every_key_must_match_and_one_rule_is_enough() -> None:
    policy = {"a": ["x", "y"], "b": [{"exists": True}]}
    assert by_body(policy, {"a": "y", "b": 0})
    assert not by_body(policy, {"a": "z", "b": 0})
    assert not by_body(policy, {"a": "x"})


def test_either_object_is_enough() -> None:
    policy = {"k": [1], "$or": [{"a": [1]}, {"b": [2], "c": [3]}]}
    assert by_body(policy, {"k": 1, "a": 1})
    assert by_body(policy, {"k": 1, "b": 2, "c": 3})
    assert not by_body(policy, {"k": 1, "b": 2})
    assert not by_body(policy, {"k": 2, "a": 1})


def test_or_with_rules_in_it_is_a_key_of_that_name() -> None:
    policy = {"$or": [{"prefix": "a"}, {"prefix": "b"}]}
    assert by_body(policy, {"$or": "bc"}) and not by_body(policy, {"a": 1})


def test_bodies_nest_and_lists_are_opened() -> None:
    policy = {"order": {"lines": {"sku": [{"prefix": "A"}]}}}
    assert by_body(policy, {"order": {"lines": {"sku": "A1"}}})
    assert by_body(policy, {"order": {"lines": [{"sku": "B"}, {"sku": "A"}]}})
    assert not by_body(policy, {"order": {"lines": [{"sku": "B"}]}})
    assert not by_body(policy, {"order": 1})
    assert by_body({"a": {"b": [{"exists": False}]}}, {"x": 1})


@pytest.mark.parametrize("body", [b"no json", b"[1]", b"1", b"\xff", b"[" * 100_000])
def test_body_that_is_no_object_is_not_let_in(body: bytes) -> None:
    policy = Policy({"a": [{"exists": False}]}, "MessageBody")
    assert not policy.lets_in(Subject(b"", body))


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e-99999999999999999999", "9" * 50, "1e999999999"])
def test_number_beyond_everything_is_there_and_is_no_value(number: str) -> None:
    """Publishers write what they like: none of it may stop the broker."""
    body, listed = f'{{"a": {number}}}'.encode(), attributes.encode({"a": ("String.Array", f"[{number}]")})
    for scope in ("MessageAttributes", "MessageBody"):
        assert not Policy({"a": [1, {"prefix": "9"}, {"cidr": "10.0.0.0/8"}]}, scope).lets_in(Subject(listed, body))
        assert Policy({"a": [{"exists": True}]}, scope).lets_in(Subject(listed, body))
        Policy({"a": [{"numeric": [">", 0, "<", 1]}]}, scope).lets_in(Subject(listed, body))


def test_attributes_are_matched_by_type() -> None:
    assert by_attributes({"n": [1]}, n=("Number", "1.0"))
    assert not by_attributes({"n": ["1"]}, n=("Number", "1"))
    assert by_attributes({"n": [{"numeric": [">", 1]}]}, n=("Number.int", "2"))
    assert by_attributes({"n": ["NaN"]}, n=("Number", "NaN"))
    assert by_attributes({"s": ["1"]}, s=("String", "1"))
    assert by_attributes({"a": ["x"]}, a=("String.Array", '["y", "x"]'))
    assert by_attributes({"a": [2, None]}, a=("String.Array", "[true, 2.0]"))
    assert by_attributes({"a": ["no list"]}, a=("String.Array", "no list"))
    assert by_attributes({"b": [{"exists": False}]}, b=("Binary", b"x"))
    assert not by_attributes({"a": [{"exists": True}]}, b=("String", "x"))


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ({}, ""),
        ({"a": []}, "a"),
        ({"a": "x"}, "a"),
        ({"a": {"b": ["x"]}}, "a"),
        ({"a": [["x"]]}, "a[0]"),
        ({"a": ["x", {"near": 1}]}, "a[1]"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "a[0]"),
        ({"a": [{"prefix": ""}]}, "a[0].prefix"),
        ({"a": [{"prefix": 1}]}, "a[0].prefix"),
        ({"a": [{"exists": 1}]}, "a[0].exists"),
        ({"a": [{"numeric": [">"]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["~", 1]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["<", 1, ">", 0]}]}, "a[0].numeric"),
        ({"a": [{"numeric": [">", 5, "<", 5]}]}, "a[0].numeric"),
        ({"a": [{"numeric": ["=", "5"]}]}, "a[0].numeric"),
        ({"a": [2e9]}, "a[0]"),
        ({"a": [10**400]}, "a[0]"),
        ({"a": [float("nan")]}, "a[0]"),
        ({"a": [{"numeric": [[], 1]}]}, "a[0].numeric"),
        ({"a": ["\ud800"]}, ""),
        ({"a": [{"cidr": "10.0.0.0/40"}]}, "a[0].cidr"),
        ({"a": [{"anything-but": []}]}, "a[0].anything-but"),
        ({"a": [{"anything-but": {"numeric": ["=", 1]}}]}, "a[0].anything-but"),
        ({"a": [{"wildcard": "a**b"}]}, "a[0].wildcard"),
        ({"a": [{"wildcard": "*a*b*c*"}]}, "a[0].wildcard"),
        ({"$or": [{"a": [1]}, {"b": []}]}, "$or[1].b"),
        ({name: ["x"] for name in "abcdef"}, ""),
        ({name: list("0123456") for name in "abc"}, ""),
    ],
)
def test_mistake_is_named_with_its_place(policy: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        Policy(policy, "MessageAttributes")
    assert caught.value.place == place


def test_scope_size_and_depth_are_bounded() -> None:
    with pytest.raises(InvalidFilter, match="neither"):
        Policy({"a": ["x"]}, "nonsense")
    with pytest.raises(InvalidFilter, match="bytes"):
        Policy({"a": ["x" * 300_000]}, "MessageBody")
    deep: Any = ["x"]
    for _ in range(20):
        deep = {"a": deep}
    with pytest.raises(InvalidFilter, match="nested"):
        Policy(deep, "MessageBody")


def test_levels_multiply_combinations_of_the_body() -> None:
    values = list("0123456789")
    Policy({"a": {"b": values}, "c": ["x"] * 7}, "MessageBody")  # 2·10 × 7 = 140
    with pytest.raises(InvalidFilter, match="160 combinations"):
        Policy({"a": {"b": values}, "c": ["x"] * 8}, "MessageBody")


RULES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$or", "prefix", "anything-but", "numeric", "exists", "cidr", "wildcard"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "$or"]), RULES, max_size=3), RULES)
@settings(max_examples=200)
def test_any_policy_is_parsed_or_refused_and_matches_or_not(policy: dict[str, Any], body: Any) -> None:
    subject = Subject(b"", json.dumps({"a": body, "b": body}).encode() if _is_json(body) else b"")
    for scope in ("MessageAttributes", "MessageBody"):
        with suppress(InvalidFilter):
            assert Policy(policy, scope).lets_in(subject) in (True, False)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
