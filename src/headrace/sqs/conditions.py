"""Conditions of a queue policy: operators, and the keys that a request has a value for.

An operator is a function of the request's value (None where the request has none) and the policy's values; it answers
whether the condition holds. An operator that is not here is *unknown*, and the statement must then err on the safe
side: an Allow does not apply, a Deny does.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "AWS global condition context keys".
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

Context: TypeAlias = Mapping[str, str]
"""What is known of a request: lower-case condition key to value."""

Test: TypeAlias = Callable[[str, str], bool]
"""Whether the request's value (first) fits one of the policy's (second)."""


@lru_cache(maxsize=4_096)
def wildcard(pattern: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """The pattern's `*` (any characters) and `?` (one) as a regular expression; the rest is literal."""
    # `fnmatch` matches in linear time, by atomic groups. Its `[…]` sets are no wildcard here.
    text = fnmatch.translate(pattern.replace("[", "[[]"))
    return re.compile(text, re.IGNORECASE if ignore_case else 0)


def like(value: str, pattern: str) -> bool:
    """Whether the whole value fits the pattern, case included."""
    return wildcard(pattern).fullmatch(value) is not None


def arn_like(value: str, pattern: str) -> bool:
    """Whether each of the six parts of an ARN fits: a `*` does not reach over a colon of the first five."""
    parts, patterns = value.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(patterns) and all(map(like, parts, patterns))


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network that a policy names: an address or CIDR. Raises ValueError."""
    return ipaddress.ip_network(text, strict=False)


def _in_network(value: str, text: str) -> bool:
    return ipaddress.ip_address(value) in network(text)


def _equals(value: str, expected: str) -> bool:
    return value == expected


def _equals_ignoring_case(value: str, expected: str) -> bool:
    return value.casefold() == expected.casefold()


_TESTS: Final[dict[str, Test]] = {
    "stringequals": _equals,
    "stringequalsignorecase": _equals_ignoring_case,
    "stringlike": like,
    "arnequals": arn_like,  # IAM: ArnEquals and ArnLike behave the same
    "arnlike": arn_like,
    "bool": _equals_ignoring_case,
    "ipaddress": _in_network,
}
_NEGATED: Final = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
    "notipaddress": "ipaddress",
}
ADDRESS_OPERATORS: Final = frozenset({"ipaddress", "notipaddress"})


def base_name(operator: str) -> str:
    """The operator in lower case, without `IfExists`."""
    return operator.lower().removesuffix("ifexists")


def holds(operator: str, value: str | None, expected: Sequence[str]) -> bool | None:
    """Whether a condition holds; None if the operator is unknown.

    Args:
        operator: as the policy writes it; case does not matter.
        value: what the request has for the condition's key, None if nothing.
        expected: the policy's values: one must fit, of a negated operator none may.
    """
    name = base_name(operator)
    if name == "null":
        return all(_equals_ignoring_case(wanted, "true") == (value is None) for wanted in expected)
    test = _TESTS.get(_NEGATED.get(name, name))
    if test is None:
        return None
    if value is None:
        # IAM: a key that the request has not fails a plain operator and fulfils a negated one.
        return name in _NEGATED or operator.lower().endswith("ifexists")
    return any(test(value, wanted) for wanted in expected) != (name in _NEGATED)


def context(
    *, account: str, name: str, arn: str, source_ip: str, secure: bool, source_arn: str | None = None
) -> dict[str, str]:
    """The condition keys of a request; a peer that is no IP address (a Unix socket) has no `aws:SourceIp`."""
    known = {
        "aws:securetransport": "true" if secure else "false",
        "aws:principalaccount": account,
        "aws:principalarn": arn,
        "aws:principaltype": "User",
        "aws:username": name,
    }
    address = _address(source_ip)
    if address is not None:
        known["aws:sourceip"] = address
    if source_arn is not None:
        known["aws:sourcearn"] = source_arn
        known["aws:sourceaccount"] = (source_arn.split(":", 5) + [""] * 5)[4]
    return known


@lru_cache(maxsize=1_024)
def _address(text: str) -> str | None:
    """The plain form of an address: `::ffff:192.0.2.1` is 192.0.2.1, and no policy may be evaded by writing it so."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
