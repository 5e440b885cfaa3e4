from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidParameter, InvalidSetting, MissingParameter
from headrace.sqs import policy
from headrace.sqs.keys import ANONYMOUS, Principal

OWNER, OTHER = "111122223333", "444455556666"
ARN = f"arn:aws:sqs:eu-west-1:{OWNER}:orders"
ALICE = Principal(OWNER, "alice", "AKIAALICE")
BOB = Principal(OTHER, "bob", "AKIABOB")


def statement(**changes: Any) -> dict[str, Any]:
    base = {"Effect": "Allow", "Principal": "*", "Action": "SQS:SendMessage", "Resource": ARN}
    merged = {**base, **changes}
    for kind in ("Principal", "Action", "Resource"):
        if f"Not{kind}" in changes:
            del merged[kind]
    return merged


def text(*statements: dict[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def may(
    policy_json: str | None,
    principal: Principal = BOB,
    action: str = "SendMessage",
    *,
    source_ip: str = "192.0.2.7",
    secure: bool = False,
    source_arn: str | None = None,
) -> bool:
    return policy.allows(policy_json, principal, action, ARN, OWNER, source_ip, secure=secure, source_arn=source_arn)


# --------------------------------------------------------------------------------------------------------- decision


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_policy_only_the_owner_account_may(nothing: str | None) -> None:
    assert may(nothing, ALICE)
    assert not may(nothing, BOB)


def test_allow_opens_the_queue_to_another_account() -> None:
    assert may(text(statement()))
    assert not may(text(statement()), action="ReceiveMessage")


def test_deny_wins_over_allow_and_over_the_owner() -> None:
    both = text(statement(Action="SQS:*"), statement(Effect="Deny"))
    assert not may(both, BOB)
    assert not may(both, ALICE)
    assert may(both, ALICE, "ReceiveMessage")
    assert may(both, BOB, "ReceiveMessage")


def test_an_allow_does_not_take_from_the_owner() -> None:
    assert may(text(statement(Principal={"AWS": OTHER})), ALICE, "DeleteQueue")


@pytest.mark.parametrize("action", sorted(policy.OWNER_ONLY))
def test_owners_actions_are_not_given_away(action: str) -> None:
    assert not may(text(statement(Action="SQS:*")), BOB, action)
    assert may(text(statement(Action="SQS:*")), ALICE, action)


def test_with_authentication_off_policies_are_not_applied() -> None:
    assert may(text(statement(Effect="Deny", Action="*")), ANONYMOUS)


def test_an_unreadable_policy_leaves_only_its_replacement() -> None:
    for broken in ("{", '{"Statement": []}', "[]"):
        assert may(broken, ALICE, "SetQueueAttributes")
        assert not may(broken, ALICE, "SendMessage")
        assert not may(broken, BOB, "SetQueueAttributes")


def test_keys_file_bounds_hold_whatever_the_policy_says() -> None:
    bounded = Principal(OWNER, "sender", "AKIASENDER", actions=("sendmessage", "SQS:Get*"), queues=("orders*",))
    for granted in (None, text(statement(Action="SQS:*"))):
        assert may(granted, bounded, "SendMessage")
        assert may(granted, bounded, "SendMessageBatch")
        assert may(granted, bounded, "GetQueueUrl")
        assert not may(granted, bounded, "ReceiveMessage")
    elsewhere = ARN.replace("orders", "invoices")
    assert not policy.allows(None, bounded, "SendMessage", elsewhere, OWNER, "unix")
    by_arn = Principal(OWNER, "sender", "AKIASENDER", queues=(ARN,))
    assert may(None, by_arn, "DeleteQueue")
    assert not policy.allows(None, by_arn, "DeleteQueue", ARN + "2", OWNER, "unix")


def test_an_operation_without_a_queue_is_bounded_by_its_action_only() -> None:
    lister = Principal(OWNER, "lister", "AKIALISTER", actions=("List*",), queues=("orders",))
    assert policy.allows(None, lister, "ListQueues", "", OWNER, "unix")
    assert not policy.allows(None, lister, "CreateQueue", "", OWNER, "unix")


# -------------------------------------------------------------------------------------------------------- elements


@pytest.mark.parametrize(
    ("named", "bob"),
    [
        ("*", True),
        ({"AWS": "*"}, True),
        ({"AWS": OTHER}, True),
        ({"AWS": f"arn:aws:iam::{OTHER}:root"}, True),
        ({"AWS": f"arn:aws:iam::{OTHER}:user/bob"}, True),
        ({"AWS": [OWNER, OTHER]}, True),
        ({"AWS": ["999999999999", f"arn:aws:iam::{OTHER}:user/bob"]}, True),
        ({"AWS": OWNER}, False),
        ({"AWS": f"arn:aws:iam::{OTHER}:user/bobby"}, False),
        ({"AWS": f"arn:aws:iam::{OTHER}:role/bob"}, False),
        ({"Service": "sns.amazonaws.com"}, False),
        ({"Service": "sns.amazonaws.com", "AWS": OTHER}, True),
        ({"Federated": "accounts.google.com"}, False),
    ],
)
def test_principal_forms(named: Any, bob: bool) -> None:
    assert may(text(statement(Principal=named))) is bob


def test_deny_with_not_principal_spares_only_those_named() -> None:
    spared = text(statement(Action="SQS:*"), statement(Effect="Deny", NotPrincipal={"AWS": OTHER}))
    assert may(spared, BOB)
    assert not may(spared, ALICE)


@pytest.mark.parametrize(
    ("pattern", "action", "matches"),
    [
        ("SQS:SendMessage", "SendMessage", True),
        ("sqs:sendmessage", "SendMessage", True),
        ("SQS:*", "ReceiveMessage", True),
        ("*", "ReceiveMessage", True),
        ("SQS:Send*", "SendMessage", True),
        ("SQS:?endMessage", "SendMessage", True),
        ("SQS:SendMessage", "SendMessageBatch", True),
        ("SQS:DeleteMessage", "DeleteMessageBatch", True),
        ("SQS:ChangeMessageVisibility", "ChangeMessageVisibilityBatch", True),
        ("SQS:SendMessageBatch", "SendMessage", False),
        ("SQS:Send", "SendMessage", False),
        ("SQS:[S]endMessage", "SendMessage", False),
        ("SQS:Receive*", "SendMessage", False),
    ],
)
def test_action_patterns(pattern: str, action: str, matches: bool) -> None:
    assert may(text(statement(Action=["SQS:GetQueueUrl", pattern])), action=action) is matches
    assert may(text(statement(Action="SQS:*"), statement(Effect="Deny", Action=pattern)), action=action) is not matches


def test_denying_the_single_form_denies_the_batch() -> None:
    assert not may(text(statement(Effect="Deny")), ALICE, "SendMessageBatch")


def test_not_action_means_all_others() -> None:
    others = text(statement(NotAction=["SQS:SendMessage"]))
    assert may(others, action="ReceiveMessage")
    assert not may(others, action="SendMessage")
    assert not may(others, action="SendMessageBatch")


@pytest.mark.parametrize(
    ("resource", "matches"),
    [
        (ARN, True),
        ("*", True),
        (f"arn:aws:sqs:*:{OWNER}:ord*", True),
        (f"arn:aws:sqs:eu-west-?:{OWNER}:orders", True),
        ([ARN + "2", ARN], True),
        (ARN + "2", False),
        (ARN.upper(), False),
        (ARN[:-1], False),
    ],
)
def test_resource_patterns(resource: Any, matches: bool) -> None:
    assert may(text(statement(Resource=resource))) is matches


def test_no_resource_means_the_queue_that_the_policy_hangs_on() -> None:
    alone = statement()
    del alone["Resource"]
    assert may(text(alone))
    assert may(text(statement(NotResource=ARN + "2")))
    assert not may(text(statement(NotResource=ARN)))


def test_a_single_statement_may_stand_without_its_list() -> None:
    assert may(json.dumps({"Statement": statement()}))


def test_many_stars_match_in_no_time() -> None:
    """A pattern that would take a backtracking matcher longer than the universe lasts."""
    pattern = "*" + "o*" * 60 + "x"
    started = time.process_time()
    assert not policy.allows(text(statement(Resource=pattern)), BOB, "SendMessage", "o" * 200, OWNER, "unix")
    assert time.process_time() - started < 1


# ------------------------------------------------------------------------------------------------------- conditions

TOPIC = f"arn:aws:sns:eu-west-1:{OTHER}:prices"


@pytest.mark.parametrize(
    ("condition", "request_has", "matches"),
    [
        ({"ArnEquals": {"aws:SourceArn": TOPIC}}, {"source_arn": TOPIC}, True),
        ({"ArnEquals": {"AWS:sourcearn": TOPIC}}, {"source_arn": TOPIC}, True),
        ({"ArnEquals": {"aws:SourceArn": TOPIC}}, {"source_arn": TOPIC + "2"}, False),
        ({"ArnEquals": {"aws:SourceArn": TOPIC}}, {}, False),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:sns:*:*:pri*"}}, {"source_arn": TOPIC}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:sns:*"}}, {"source_arn": TOPIC}, False),
        ({"ArnNotLike": {"aws:SourceArn": "arn:aws:sns:*:*:pri*"}}, {"source_arn": TOPIC}, False),
        ({"StringEquals": {"aws:SourceAccount": OTHER}}, {"source_arn": TOPIC}, True),
        ({"StringEquals": {"aws:SourceAccount": OTHER}}, {"source_arn": "odd"}, False),
        ({"StringEquals": {"aws:PrincipalAccount": [OWNER, OTHER]}}, {}, True),
        ({"StringEquals": {"aws:username": "Bob"}}, {}, False),
        ({"StringEqualsIgnoreCase": {"aws:username": "Bob"}}, {}, True),
        ({"StringNotEquals": {"aws:username": "bob"}}, {}, False),
        ({"StringNotEquals": {"aws:username": "eve"}}, {}, True),
        ({"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}, {}, True),
        ({"StringLike": {"aws:username": "b*"}}, {}, True),
        ({"StringNotLike": {"aws:username": "b*"}}, {}, False),
        ({"StringEqualsIfExists": {"aws:SourceVpc": "vpc-1"}}, {}, True),
        ({"StringEqualsIfExists": {"aws:username": "eve"}}, {}, False),
        ({"Null": {"aws:SourceVpc": "true"}}, {}, True),
        ({"Null": {"aws:SourceVpc": "false"}}, {}, False),
        ({"Null": {"aws:username": False}}, {}, True),
        ({"Bool": {"aws:SecureTransport": "true"}}, {"secure": True}, True),
        ({"Bool": {"aws:SecureTransport": "true"}}, {"secure": False}, False),
        ({"Bool": {"aws:SecureTransport": False}}, {"secure": False}, True),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, {}, True),
        ({"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "192.0.2.7"]}}, {}, True),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, {"source_ip": "::ffff:192.0.2.7"}, True),
        ({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}, {"source_ip": "2001:db8::1"}, True),
        ({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}, {}, False),
        ({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}, {"source_ip": "unix"}, False),
        ({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, {}, False),
        ({"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, {}, True),
        ({"StringEquals": {"aws:username": "bob"}, "Bool": {"aws:SecureTransport": "true"}}, {}, False),
        ({"StringEquals": {"aws:username": "bob", "aws:PrincipalAccount": OTHER}}, {}, True),
    ],
)
def test_conditions(condition: dict[str, Any], request_has: dict[str, Any], matches: bool) -> None:
    assert may(text(statement(Condition=condition)), **request_has) is matches
    denied = text(statement(), statement(Effect="Deny", Condition=condition))
    assert may(denied, **request_has) is not matches


@pytest.mark.parametrize("operator", ["DateLessThan", "NumericEquals", "ForAllValues:StringEquals", "BinaryEquals"])
def test_an_unknown_operator_errs_on_the_safe_side(operator: str) -> None:
    condition = {operator: {"aws:username": "bob"}}
    assert not may(text(statement(Condition=condition)))
    assert not may(text(statement(), statement(Effect="Deny", Condition=condition)))


# -------------------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("nonsense", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}", "0 statements"),
        (json.dumps({"Version": "2020-01-01", "Statement": [statement()]}), "Version must be"),
        (json.dumps({"Statment": [statement()]}), "unknown element 'Statment'"),
        (text(*[statement()] * 21), "21 statements"),
        (text(statement(Sid="a"), statement(Sid="a")), "Sid is used twice"),
        (json.dumps({"Statement": ["x"]}), "statement 0 is not an object"),
        (text(statement(), statement(Effect="allow")), "statement 1: Effect must be"),
        (text(statement(Acton="x")), "unknown element 'Acton'"),
        (text({"Effect": "Allow", "Principal": "*"}), "must have Action or NotAction"),
        (text({"Effect": "Allow", "Action": "SQS:*"}), "must have Principal or NotPrincipal"),
        (text(statement() | {"NotAction": "SQS:*"}), "must have Action or NotAction"),
        (text(statement(NotPrincipal="*")), "opens the queue to everybody"),
        (text(statement(Action="s3:GetObject")), "is not of SQS"),
        (text(statement(Action=[])), "must be a string or a list of strings"),
        (text(statement(Action=7)), "must be a string or a list of strings"),
        (text(statement(Principal="bob")), 'must be "*" or an object'),
        (text(statement(Principal={"aws": OTHER})), 'must be "*" or an object'),
        (text(statement(Principal={"AWS": "1234"})), "neither *, an account nor an ARN"),
        (text(statement(Principal={"AWS": f"arn:aws:iam::{OTHER}:user/*"} | {"X": "y"})), 'must be "*" or an object'),
        (text(statement(Principal={"AWS": [f"{n:012d}" for n in range(51)]})), "more than 50 principals"),
        (text(statement(Resource="arn:aws:sqs:*:*:${aws:username}")), "policy variables"),
        (text(statement(Condition=[])), "Condition must be an object"),
        (text(statement(Condition={"Bool": "x"})), "Condition must be an object"),
        (text(statement(Condition={"IpAddress": {"aws:SourceIp": "300.0.0.1"}})), "IPv4 or IPv6 network"),
        (text(statement(Condition={"StringEquals": {f"k{n}": "v" for n in range(11)}})), "more than 10 conditions"),
        (text(statement(Sid="x" * 8_192)), "longer than 8192 bytes"),
    ],
)
def test_a_broken_policy_is_refused_with_its_reason(broken: str, reason: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        policy.validate(broken)
    assert caught.value.setting == "Policy"
    assert reason in caught.value.reason
    assert len(caught.value.value) <= 80


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Statement", "Effect", "Principal", "AWS", "Action", "Resource", "Condition", "Bool"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(value=st.text(max_size=30) | ANY_JSON.map(json.dumps), changes=st.dictionaries(st.text(max_size=8), ANY_JSON))
def test_any_text_is_a_policy_or_an_invalid_setting(value: str, changes: dict[str, Any]) -> None:
    for candidate in (value, text(statement() | changes), text(statement(Condition=changes))):
        try:
            policy.validate(candidate)
        except InvalidSetting:
            assert not may(candidate or "{")


# ------------------------------------------------------------------------------------------------------- permissions


def test_add_permission_writes_the_statement_that_aws_writes() -> None:
    added = policy.add_statement(None, arn=ARN, label="send", accounts=[OTHER], actions=["SendMessage"])
    assert json.loads(added) == {
        "Version": "2008-10-17",
        "Id": f"{ARN}/SQSDefaultPolicy",
        "Statement": [
            {
                "Sid": "send",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"},
                "Action": "SQS:SendMessage",
                "Resource": ARN,
            }
        ],
    }
    assert may(added, BOB, "SendMessageBatch")
    assert not may(added, BOB, "ReceiveMessage")


def test_add_permission_appends_and_remove_takes_away() -> None:
    first = text(statement(Sid="kept"))
    both = policy.add_statement(
        first, arn=ARN, label="more", accounts=[OWNER, OTHER, OTHER], actions=["ReceiveMessage", "DeleteMessage"]
    )
    added = json.loads(both)["Statement"][1]
    assert added["Principal"] == {"AWS": [f"arn:aws:iam::{OWNER}:root", f"arn:aws:iam::{OTHER}:root"]}
    assert added["Action"] == ["SQS:ReceiveMessage", "SQS:DeleteMessage"]
    left = policy.remove_statement(both, "more")
    assert left is not None
    assert json.loads(left) == json.loads(first)
    assert policy.remove_statement(left, "kept") is None


def test_star_grants_everything_grantable() -> None:
    added = policy.add_statement("", arn=ARN, label="all", accounts=[OTHER], actions=["*"])
    assert json.loads(added)["Statement"][0]["Action"] == "SQS:*"
    assert all(may(added, BOB, action) for action in policy.GRANTABLE)


def test_seven_actions_and_not_eight() -> None:
    actions = sorted(policy.GRANTABLE)
    policy.add_statement(None, arn=ARN, label="x", accounts=[OTHER], actions=actions[:7])
    with pytest.raises(policy.TooMany, match=r"^8 Actions were found, maximum allowed is 7\.$"):
        policy.add_statement(None, arn=ARN, label="x", accounts=[OTHER], actions=actions[:8])


def test_twenty_statements_and_not_twenty_one() -> None:
    twenty = text(*[{"Effect": "Allow", "Principal": "*", "Action": "SQS:*"}] * 20)
    with pytest.raises(policy.TooMany):
        policy.add_statement(twenty, arn=ARN, label="x", accounts=[OTHER], actions=["*"])


@pytest.mark.parametrize(
    ("changes", "parameter", "reason"),
    [
        ({"label": "taken"}, "Label", "Already exists."),
        ({"label": ""}, "Label", "1 to 80"),
        ({"label": "a b"}, "Label", "1 to 80"),
        ({"label": "x" * 81}, "Label", "1 to 80"),
        ({"accounts": ["1234"]}, "PrincipalId", "Unable to verify."),
        ({"actions": ["SendMessages"]}, "ActionName", "Please refer to the appropriate WSDL"),
        ({"actions": ["DeleteQueue"]}, "ActionName", "Only the queue owner"),
    ],
)
def test_a_bad_permission_is_refused(changes: dict[str, Any], parameter: str, reason: str) -> None:
    arguments: dict[str, Any] = {"arn": ARN, "label": "new", "accounts": [OTHER], "actions": ["*"]}
    with pytest.raises(InvalidParameter) as caught:
        policy.add_statement(text(statement(Sid="taken")), **(arguments | changes))
    assert caught.value.parameter == parameter
    assert reason in caught.value.reason


@pytest.mark.parametrize("empty", ["accounts", "actions"])
def test_a_permission_needs_somebody_and_something(empty: str) -> None:
    arguments: dict[str, Any] = {"arn": ARN, "label": "new", "accounts": [OTHER], "actions": ["*"]}
    with pytest.raises(MissingParameter):
        policy.add_statement(None, **(arguments | {empty: []}))


@pytest.mark.parametrize("without", [None, "", text(statement(Sid="other"))])
def test_removing_an_absent_label_is_refused(without: str | None) -> None:
    with pytest.raises(InvalidParameter, match="can't find label"):
        policy.remove_statement(without, "label")
