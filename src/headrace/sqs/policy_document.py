"""The language of queue policies: a JSON text in, statements that can be matched out.

Whatever a policy says that is not supported is refused here, by name and place, before the policy is stored. Only
condition operators may be unknown: `conditions.holds` says so, and the statement then errs on the safe side.

Source: IAM User Guide, "Grammar of the IAM JSON policy language"; SQS Developer Guide, "Amazon SQS policy quotas".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from headrace.errors import InvalidSetting
from headrace.sqs.conditions import ADDRESS_OPERATORS, Context, base_name, holds, network, wildcard
from headrace.sqs.keys import Principal

POLICY_BYTES_MAX: Final = 8_192
STATEMENTS_MAX: Final = 20
PRINCIPALS_MAX: Final = 50
CONDITIONS_MAX: Final = 10

_VERSIONS: Final = ("2008-10-17", "2012-10-17")
_ROOT: Final = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}):root", re.ASCII)
_IDENTITY: Final = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:[a-z-]+/.{1,512}", re.ASCII)

ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Names:
    """Principals, as a statement names them; `inverted` for NotPrincipal."""

    everybody: bool
    accounts: frozenset[str]
    arns: frozenset[str]
    inverted: bool

    def match(self, principal: Principal) -> bool:
        named = self.everybody or principal.account in self.accounts or principal.arn in self.arns
        return named != self.inverted


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Actions or resources, as a statement names them; `inverted` for NotAction and NotResource."""

    patterns: tuple[re.Pattern[str], ...]
    inverted: bool

    def match(self, names: Iterable[str]) -> bool:
        return any(pattern.fullmatch(name) for pattern in self.patterns for name in names) != self.inverted


@dataclass(frozen=True, slots=True)
class Statement:
    allow: bool
    principals: _Names
    actions: _Patterns
    resources: _Patterns
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Operator, lower-case key, values; all must hold."""

    def applies(self, principal: Principal, actions: Sequence[str], arn: str, known: Context) -> bool:
        if not (self.principals.match(principal) and self.actions.match(actions) and self.resources.match((arn,))):
            return False
        # An unknown condition: an Allow does not apply, a Deny does.
        unknown = not self.allow
        results = (holds(operator, known.get(key), values) for operator, key, values in self.conditions)
        return all(unknown if result is None else result for result in results)


def decode(policy_json: str) -> dict[str, Any]:
    if len(policy_json.encode("utf-8", "surrogatepass")) > POLICY_BYTES_MAX:
        raise _invalid(policy_json, f"it is longer than {POLICY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(policy_json, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _invalid(policy_json, f"it is not a JSON object: {error}") from None


def statements_of(policy: dict[str, Any]) -> list[Any]:
    """The statements: one alone may stand without its list."""
    statements = policy.get("Statement", [])
    return statements if isinstance(statements, list) else [statements]


def _invalid(policy_json: str, reason: str) -> InvalidSetting:
    return InvalidSetting("Policy", policy_json[:80], reason)


@lru_cache(maxsize=1_024)
def compile_policy(policy_json: str) -> tuple[Statement, ...]:
    """The policy's statements, ready to be matched. Raises InvalidSetting."""
    policy = decode(policy_json)
    try:
        return _compile_document(policy)
    except ValueError as error:
        raise _invalid(policy_json, str(error)) from None


def _compile_document(policy: dict[str, Any]) -> tuple[Statement, ...]:
    """Raises ValueError with the reason."""
    _only(policy, "the policy", {"Version", "Id", "Statement"})
    if policy.get("Version", _VERSIONS[0]) not in _VERSIONS:
        raise ValueError(f"Version must be one of {', '.join(_VERSIONS)}")
    statements = statements_of(policy)
    if not 1 <= len(statements) <= STATEMENTS_MAX:
        raise ValueError(f"it has {len(statements)} statements; 1 to {STATEMENTS_MAX} are allowed")
    sids = [s["Sid"] for s in statements if isinstance(s, dict) and isinstance(s.get("Sid"), str)]
    if len(set(sids)) < len(sids):
        raise ValueError("a Sid is used twice")
    return tuple(_compile_statement(statement, index) for index, statement in enumerate(statements))


def _compile_statement(statement: Any, index: int) -> Statement:
    place = f"statement {index}"
    if not isinstance(statement, dict):
        raise ValueError(f"{place} is not an object")  # noqa: TRY004 (the caller's value, not our type)
    kinds = ("Principal", "Action", "Resource")
    _only(statement, place, {"Sid", "Effect", "Condition", *kinds, *(f"Not{kind}" for kind in kinds)})
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise ValueError(f"{place}: Effect must be Allow or Deny")
    allow = statement["Effect"] == "Allow"
    if allow and "NotPrincipal" in statement:
        raise ValueError(f"{place}: Allow with NotPrincipal opens the queue to everybody else; name whom to allow")
    if "Resource" not in statement and "NotResource" not in statement:
        statement = {**statement, "Resource": "*"}  # the policy hangs on its queue: no other can be meant
    resources, inverted = _strings(statement, "Resource", place)
    return Statement(
        allow=allow,
        principals=_compile_principals(statement, place),
        actions=_compile_actions(statement, place),
        resources=_Patterns(tuple(wildcard(r) for r in resources), inverted),
        conditions=tuple(_compile_conditions(statement.get("Condition", {}), place)),
    )


def _only(found: dict[str, Any], place: str, known: set[str]) -> None:
    unknown = sorted(found.keys() - known)
    if unknown:
        raise ValueError(f"{place} has an unknown element {unknown[0][:64]!r}")


def _choice(statement: dict[str, Any], kind: str, place: str) -> tuple[Any, bool]:
    """The value of `kind` or `Notkind`, exactly one of which must be there, and whether it is the latter."""
    if (kind in statement) == (f"Not{kind}" in statement):
        raise ValueError(f"{place} must have {kind} or Not{kind}")
    inverted = kind not in statement
    return statement[f"Not{kind}" if inverted else kind], inverted


def _strings(statement: dict[str, Any], kind: str, place: str) -> tuple[list[str], bool]:
    value, inverted = _choice(statement, kind, place)
    return _list_of_strings(value, f"{place}: {kind}"), inverted


def _list_of_strings(value: Any, place: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{place} must be a string or a list of strings")
    if any("${" in v for v in values):
        raise ValueError(f"{place}: policy variables (${{…}}) are not supported")
    return values


def _compile_actions(statement: dict[str, Any], place: str) -> _Patterns:
    values, inverted = _strings(statement, "Action", place)
    for value in values:
        if value != "*" and not value.lower().startswith("sqs:"):
            raise ValueError(f"{place}: Action {value[:64]!r} is not of SQS; write SQS:{value[:64]}")
    return _Patterns(tuple(wildcard(value, ignore_case=True) for value in values), inverted)


def _compile_principals(statement: dict[str, Any], place: str) -> _Names:
    value, inverted = _choice(statement, "Principal", place)
    if value == "*":
        return _Names(everybody=True, accounts=frozenset(), arns=frozenset(), inverted=inverted)
    kinds = {"AWS", "Service", "Federated", "CanonicalUser"}
    if not isinstance(value, dict) or not value or not value.keys() <= kinds:
        raise ValueError(f'{place}: Principal must be "*" or an object with one of {", ".join(sorted(kinds))}')
    named = {kind: _list_of_strings(v, f"{place}: Principal {kind}") for kind, v in value.items()}
    if sum(map(len, named.values())) > PRINCIPALS_MAX:
        raise ValueError(f"{place} names more than {PRINCIPALS_MAX} principals")
    # The other kinds name AWS services and identities of elsewhere: nobody who has a key here.
    return _compile_aws(named.get("AWS", []), place, inverted=inverted)


def _compile_aws(values: list[str], place: str, *, inverted: bool) -> _Names:
    accounts, arns = set(), set()
    for value in values:
        root = _ROOT.fullmatch(value)
        if ACCOUNT.fullmatch(value) or root:
            accounts.add(root[1] if root else value)
        elif _IDENTITY.fullmatch(value):
            arns.add(value)
        elif value != "*":
            raise ValueError(f"{place}: Principal AWS {value[:64]!r} is neither *, an account nor an ARN of IAM")
    return _Names(everybody="*" in values, accounts=frozenset(accounts), arns=frozenset(arns), inverted=inverted)


def _compile_conditions(value: Any, place: str) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    if not isinstance(value, dict) or not all(isinstance(tests, dict) for tests in value.values()):
        raise ValueError(f"{place}: Condition must be an object of operators, each an object of keys")
    flat = [(operator, key, values) for operator, tests in value.items() for key, values in tests.items()]
    if len(flat) > CONDITIONS_MAX:
        raise ValueError(f"{place} has more than {CONDITIONS_MAX} conditions")
    for operator, key, raw in flat:
        values = _list_of_strings(_as_text(raw), f"{place}: Condition {operator[:64]} {key[:64]}")
        if base_name(operator) in ADDRESS_OPERATORS:
            for text in values:
                network(text)  # ValueError: `'x' does not appear to be an IPv4 or IPv6 network`
        yield operator, key.lower(), tuple(values)


def _as_text(value: Any) -> Any:
    """Booleans and numbers as the strings that conditions compare."""
    if isinstance(value, list):
        return [_as_text(v) for v in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value
