"""Filter policies: which of a topic's messages a subscription lets in. SNS's language, whole. Pure.

    {"kind": ["order", {"prefix": "re"}], "price": [{"numeric": [">=", 10, "<", 20]}], "$or": [{…}, {…}]}

Every key must match, one rule of its list is enough. With the scope MessageAttributes, keys are names of message
attributes; with MessageBody, they are keys of the body, which is JSON, nested as it is: a list there matches if one of its
items does. A policy is parsed once, into closures over what it says. Source: SNS, "Subscription filter policies".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from headrace.errors import InvalidFilter
from headrace.queue import attributes as stored
from headrace.queue import limits

SCOPES: Final = ("MessageAttributes", "MessageBody")

Value: TypeAlias = Any
"""A value to be matched: str, Decimal, bool or None."""
Rule: TypeAlias = Callable[[Value], bool]
Tree: TypeAlias = Mapping[str, Any]

_MISSING: Final = object()


def _exact(text: str) -> Decimal | float:
    """0.1 is 0.1. What is beyond any Decimal is a float, which is no number to the rules: publishers write what they like."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return float(text)


_json = msgspec.json.Decoder(float_hook=_exact).decode


class Subject:
    """A message as filters see it: read once, and only if a filter asks."""

    def __init__(self, attributes: bytes, body: bytes) -> None:
        self._attributes = attributes
        self._body = body

    @cached_property
    def attributes(self) -> Tree:
        """Attributes by name, each a list of its values; binary ones cannot be matched and are left out."""
        found = {name: _attribute_values(*typed) for name, typed in stored.decode(self._attributes).items()}
        return {name: values for name, values in found.items() if values is not None}

    @cached_property
    def body(self) -> Tree | None:
        """The body's object; None if it is none: then no filter lets it in."""
        try:
            decoded = _json(self._body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return decoded if isinstance(decoded, dict) else None

    def tree(self, scope: str) -> Tree | None:
        return self.attributes if scope == "MessageAttributes" else self.body


def _attribute_values(kind: str, value: str | bytes) -> list[Value] | None:
    if isinstance(value, bytes):
        return None
    if kind == "String.Array":
        try:
            items = _json(value)
        except (msgspec.DecodeError, RecursionError):
            return [value]
        return list(items) if isinstance(items, list) else [value]
    if kind.partition(".")[0] == "Number":
        number = _decimal(value)
        return [value if number is None else number]
    return [value]


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


class Policy:
    """A filter policy, ready to match.

    Args:
        data: the policy as decoded from JSON.
        scope: one of SCOPES.

    Raises:
        InvalidFilter: it says what none can say; `place` names the key.
    """

    def __init__(self, data: Mapping[str, Any], scope: str) -> None:
        if scope not in SCOPES:
            raise InvalidFilter("scope", f"{str(scope)[:100]!r} is neither MessageAttributes nor MessageBody")
        try:
            size = len(msgspec.json.encode(data))
        except (TypeError, ValueError) as error:
            raise InvalidFilter("", f"it is no JSON: {error}") from None
        if size > limits.FILTER_BYTES_MAX:
            raise InvalidFilter("", f"it has {size} bytes; at most {limits.FILTER_BYTES_MAX} are taken")
        self._scope = scope
        self._matches, keys, combinations = _object(data, scope == "MessageBody", "", 1)
        if keys > limits.FILTER_KEYS_MAX:
            raise InvalidFilter("", f"it names {keys} keys; at most {limits.FILTER_KEYS_MAX} are taken")
        if combinations > limits.FILTER_COMBINATIONS_MAX:
            raise InvalidFilter(
                "", f"its lists make {combinations} combinations; at most {limits.FILTER_COMBINATIONS_MAX} are taken"
            )

    def lets_in(self, subject: Subject) -> bool:
        tree = subject.tree(self._scope)
        return tree is not None and self._matches(tree)


class _Parsed(NamedTuple):
    """Part of a policy: whether a tree matches, how many keys it names, how many combinations of values it has."""

    matches: Callable[[Tree], bool]
    keys: int
    combinations: int


def _object(data: Any, nested: bool, place: str, depth: int) -> _Parsed:
    """All keys of an object: each must match."""
    if not isinstance(data, Mapping) or not data:
        raise InvalidFilter(place, "it must be an object with at least one key")
    if depth > limits.FILTER_DEPTH_MAX:
        raise InvalidFilter(place, f"it is nested deeper than {limits.FILTER_DEPTH_MAX}")
    parts = [_key(str(name), rules, nested, place, depth) for name, rules in data.items()]
    combinations = 1
    for part in parts:
        combinations *= part.combinations
    checks = [part.matches for part in parts]
    return _Parsed(lambda tree: all(check(tree) for check in checks), sum(part.keys for part in parts), combinations)


def _key(name: str, rules: Any, nested: bool, place: str, depth: int) -> _Parsed:
    at = f"{place}.{name}" if place else name
    if name == "$or" and _is_or(rules):
        return _either(rules, nested, at, depth)
    if isinstance(rules, Mapping):
        if not nested:
            raise InvalidFilter(at, "attributes are not nested: write a list of values")
        inner = _object(rules, nested, at, depth + 1)
        return _Parsed(lambda tree: any(inner.matches(one) for one in _objects(tree, name)), *inner[1:])
    if not isinstance(rules, Sequence) or isinstance(rules, str) or not rules:
        raise InvalidFilter(at, "it must be a list with at least one value")
    checks = [_rule(rule, f"{at}[{index}]") for index, rule in enumerate(rules)]
    times = depth if nested else 1  # SNS: each level multiplies a key's combinations
    return _Parsed(
        lambda tree: any(check(value) for value in _values(tree, name) for check in checks), 1, len(checks) * times
    )


def _is_or(rules: Any) -> bool:
    """SNS: `$or` is an operator if it is a list of two or more objects that are no rules; else it is a key."""
    if not isinstance(rules, Sequence) or isinstance(rules, str) or len(rules) < 2:
        return False
    return all(isinstance(one, Mapping) and not (one.keys() & _RULES.keys()) for one in rules)


def _either(rules: Sequence[Any], nested: bool, at: str, depth: int) -> _Parsed:
    parts = [_object(one, nested, f"{at}[{index}]", depth) for index, one in enumerate(rules)]
    checks = [part.matches for part in parts]
    return _Parsed(
        lambda tree: any(check(tree) for check in checks),
        max(part.keys for part in parts),
        sum(part.combinations for part in parts),
    )


def _values(tree: Tree, name: str) -> Iterator[Value]:
    """The values under a key, lists opened; `_MISSING` once if there are none."""
    value = tree.get(name, _MISSING)
    if isinstance(value, list):
        yield from _flat(value)
    else:
        yield _MISSING if isinstance(value, dict) else value


def _flat(values: list[Any]) -> Iterator[Value]:
    stack = values[::-1]
    if not stack:
        yield _MISSING
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value[::-1]
        elif not isinstance(value, dict):
            yield value


def _objects(tree: Tree, name: str) -> Iterator[Tree]:
    """The objects under a key, lists opened; an empty one if there are none, so that `exists: false` can match."""
    value = tree.get(name, _MISSING)
    found = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]
    yield from found or [{}]


# --- rules ---


def _rule(rule: Any, at: str) -> Rule:
    """One item of a key's list: a value, or an object with one operator."""
    if not isinstance(rule, Mapping):
        return _exactly(rule, at)
    if len(rule) != 1:
        raise InvalidFilter(at, "an operator is an object with one key")
    ((name, operand),) = rule.items()
    make = _RULES.get(str(name))
    if make is None:
        raise InvalidFilter(at, f"there is no operator {str(name)[:100]!r}; there are {', '.join(sorted(_RULES))}")
    return make(operand, f"{at}.{name}")


def _exactly(wanted: Any, at: str) -> Rule:
    if wanted is None or isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, str):
        return lambda value: value == wanted
    number = _number(wanted, at)
    return lambda value: _is_number(value) and value == number


def _is_number(value: Value) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _number(value: Any, at: str) -> Decimal:
    """SNS: from -10^9 to 10^9."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidFilter(at, f"{str(value)[:100]!r} is neither text, number, true, false nor null")
    number = Decimal(str(value))
    if number.is_nan() or abs(number) > limits.FILTER_NUMBER_MAX:
        raise InvalidFilter(at, f"{value} is not from -{limits.FILTER_NUMBER_MAX} to {limits.FILTER_NUMBER_MAX}")
    return number


def _text(operand: Any, at: str) -> str:
    if not isinstance(operand, str) or not operand:
        raise InvalidFilter(at, "it takes a text that is not empty")
    return operand


def _text_or_folded(operand: Any, at: str) -> tuple[str, bool]:
    """A text, or {"equals-ignore-case": text}: (the text, whether case does not matter)."""
    if isinstance(operand, Mapping) and list(operand) == ["equals-ignore-case"]:
        return _text(operand["equals-ignore-case"], f"{at}.equals-ignore-case").casefold(), True
    return _text(operand, at), False


def _prefix(operand: Any, at: str) -> Rule:
    text, folded = _text_or_folded(operand, at)
    return lambda value: isinstance(value, str) and (value.casefold() if folded else value).startswith(text)


def _suffix(operand: Any, at: str) -> Rule:
    text, folded = _text_or_folded(operand, at)
    return lambda value: isinstance(value, str) and (value.casefold() if folded else value).endswith(text)


def _ignoring_case(operand: Any, at: str) -> Rule:
    text = _text(operand, at).casefold()
    return lambda value: isinstance(value, str) and value.casefold() == text


def _wildcard(operand: Any, at: str) -> Rule:
    """`*` is any text, none too; a backslash before `*` or a backslash makes it a plain character."""
    text = _text(operand, at)
    pieces = re.findall(r"\\[*\\]|[^\\]|\\", text, re.DOTALL)
    stars = pieces.count("*")
    if stars > limits.FILTER_WILDCARDS_MAX:
        raise InvalidFilter(at, f"it has {stars} wildcards; at most {limits.FILTER_WILDCARDS_MAX} are taken")
    if any(one == other == "*" for one, other in pairwise(pieces)):
        raise InvalidFilter(at, "two wildcards stand side by side; write one")
    literals = ["".join(piece[-1] for piece in part) for part in _split(pieces)]
    return lambda value: isinstance(value, str) and _matches_literals(value, literals)


def _split(pieces: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for piece in pieces:
        if piece == "*":
            parts.append([])
        else:
            parts[-1].append(piece)
    return parts


def _matches_literals(value: str, literals: list[str]) -> bool:
    """Whether `value` is the literals in order with anything between them. Linear, unlike a regular expression."""
    first, *rest = literals
    if not rest:
        return value == first
    *middle, last = rest
    if len(value) < len(first) + len(last) or not value.startswith(first) or not value.endswith(last):
        return False
    at, end = len(first), len(value) - len(last)
    for literal in middle:
        found = value.find(literal, at, end)
        if found < 0:
            return False
        at = found + len(literal)
    return True


def _exists(operand: Any, at: str) -> Rule:
    if not isinstance(operand, bool):
        raise InvalidFilter(at, "it takes true or false")
    return lambda value: (value is not _MISSING) is operand


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": lambda value, bound: bool(value == bound),
    ">": lambda value, bound: bool(value > bound),
    ">=": lambda value, bound: bool(value >= bound),
    "<": lambda value, bound: bool(value < bound),
    "<=": lambda value, bound: bool(value <= bound),
}


def _numeric(operand: Any, at: str) -> Rule:
    if not isinstance(operand, Sequence) or isinstance(operand, str) or len(operand) not in (2, 4):
        raise InvalidFilter(at, 'it takes ["=", n], [">", n], … or a range [">=", n, "<", m]')
    if len(operand) == 4 and not (operand[0] in (">", ">=") and operand[2] in ("<", "<=")):
        raise InvalidFilter(at, "a range is > or >= and a number, then < or <= and a number")
    bounds = []
    for sign, number in zip(operand[::2], operand[1::2], strict=True):
        if not isinstance(sign, str) or sign not in _COMPARISONS:
            raise InvalidFilter(at, f"{str(sign)[:20]!r} is none of {', '.join(_COMPARISONS)}")
        bounds.append((_COMPARISONS[sign], _number(number, at)))
    if len(bounds) == 2 and not bounds[0][1] < bounds[1][1]:
        raise InvalidFilter(at, "the range is empty: its lower bound must be less than its upper bound")
    return lambda value: _is_number(value) and all(holds(value, bound) for holds, bound in bounds)


def _cidr(operand: Any, at: str) -> Rule:
    try:
        network = ipaddress.ip_network(_text(operand, at), strict=False)
    except ValueError:
        raise InvalidFilter(at, f"{str(operand)[:100]!r} is no range of addresses such as 10.0.0.0/24") from None
    return lambda value: isinstance(value, str) and _within(value, network)


def _within(value: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(value) in network
    except ValueError:
        return False


def _anything_but(operand: Any, at: str) -> Rule:
    """A value is there, and it is none of these; or it does not match the operator."""
    if isinstance(operand, Mapping):
        if len(operand) != 1 or not operand.keys() <= _NEGATED:
            raise InvalidFilter(at, f"it takes values, or one of {', '.join(sorted(_NEGATED))}")
        ((name, inner),) = operand.items()
        many = inner if isinstance(inner, list) else [inner]
        refused = [_RULES[name](one, f"{at}.{name}") for one in many]
    else:
        values = operand if isinstance(operand, list) else [operand]
        refused = [_exactly(value, at) for value in values]
    if not refused:
        raise InvalidFilter(at, "it takes at least one value")
    return lambda value: value is not _MISSING and not any(check(value) for check in refused)


_NEGATED: Final = {"prefix", "suffix", "equals-ignore-case", "wildcard"}
_RULES: Final[dict[str, Callable[[Any, str], Rule]]] = {
    "anything-but": _anything_but,
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _ignoring_case,
    "wildcard": _wildcard,
    "exists": _exists,
    "numeric": _numeric,
    "cidr": _cidr,
}
"""Operator -> how its operand becomes a rule. The one table to extend."""
