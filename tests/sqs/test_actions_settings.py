from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from headrace.sqs.attribute_names import KNOWN
from tests.sqs.harness import Harness, json_request, refused

ARN = "arn:aws:sqs:us-east-1:000000000000:q"
DEAD = "arn:aws:sqs:us-east-1:000000000000:dead"
NO_MAP = "Redrive policy is not a valid JSON map."


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="q")["QueueUrl"])


def attributes(sqs: Any, url: str, *names: str) -> dict[str, str]:
    found: dict[str, str] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names)).get("Attributes", {})
    return found


# --- attributes ---


def test_all_attributes_of_a_standard_queue(harness: Harness, sqs: Any, url: str) -> None:
    assert attributes(sqs, url, "All") == {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0",
        "CreatedTimestamp": "1700000000",
        "DelaySeconds": "0",
        "LastModifiedTimestamp": "1700000000",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
        "QueueArn": ARN,
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "true",
        "VisibilityTimeout": "30",
    }


def test_all_attributes_of_a_fifo_queue(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})
    found = attributes(sqs, url["QueueUrl"], "All")
    assert {name: found[name] for name in found.keys() - attributes_of_standard()} == {
        "ContentBasedDeduplication": "true",
        "DeduplicationScope": "queue",
        "FifoQueue": "true",
        "FifoThroughputLimit": "perQueue",
    }


def attributes_of_standard() -> frozenset[str]:
    return KNOWN - {"ContentBasedDeduplication", "DeduplicationScope", "FifoQueue", "FifoThroughputLimit"}


def test_no_names_no_attributes(harness: Harness, sqs: Any, url: str) -> None:
    assert attributes(sqs, url) == {}
    assert harness.json("GetQueueAttributes", QueueUrl=url).json() == {}


def test_names_choose_what_the_queue_has(sqs: Any, url: str) -> None:
    assert attributes(sqs, url, "QueueArn", "Policy", "FifoQueue", "KmsMasterKeyId") == {"QueueArn": ARN}


@pytest.mark.parametrize("name", ["Colour", "", "all"])
def test_unknown_name_is_refused(sqs: Any, url: str, name: str) -> None:
    seen = refused(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["QueueArn", name])
    assert (seen.code, seen.exception) == ("InvalidAttributeName", "InvalidAttributeName")
    assert seen.message == f"Unknown Attribute {name}."


def test_counts(harness: Harness, sqs: Any, url: str) -> None:
    for delay in (0, 0, 0, 60):
        sqs.send_message(QueueUrl=url, MessageBody="a", DelaySeconds=delay)
    sqs.receive_message(QueueUrl=url)
    counts = attributes(
        sqs,
        url,
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
    )
    assert list(counts.values()) == ["2", "1", "1"]


def test_set_attributes(harness: Harness, sqs: Any, url: str) -> None:
    wanted = {
        "DelaySeconds": "900",
        "MaximumMessageSize": "1024",
        "MessageRetentionPeriod": "60",
        "ReceiveMessageWaitTimeSeconds": "20",
        "VisibilityTimeout": "43200",
    }
    harness.advance(5_000)
    sqs.set_queue_attributes(QueueUrl=url, Attributes=wanted)
    assert attributes(sqs, url, *wanted) == wanted
    assert attributes(sqs, url, "LastModifiedTimestamp") == {"LastModifiedTimestamp": "1700000005"}
    assert attributes(sqs, url, "CreatedTimestamp") == {"CreatedTimestamp": "1700000000"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("DelaySeconds", ["-1", "901", "", "1.0", "1e2", "one", " 1", "99999999999"]),
        ("MaximumMessageSize", ["1023", "1048577", "x"]),
        ("MessageRetentionPeriod", ["59", "1209601", "x"]),
        ("ReceiveMessageWaitTimeSeconds", ["-1", "21", "x"]),
        ("VisibilityTimeout", ["-1", "43201", "x"]),
        ("KmsDataKeyReusePeriodSeconds", ["59", "86401", "x"]),
        ("SqsManagedSseEnabled", ["yes", "", "truthy"]),
        ("Policy", ["x", "[]", '{"Statement": 5}']),
    ],
)
def test_values_out_of_range_are_refused_and_change_nothing(sqs: Any, url: str, name: str, values: list[str]) -> None:
    before = attributes(sqs, url, "All")
    for value in values:
        seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={"DelaySeconds": "7", name: value})
        assert (seen.code, seen.exception) == ("InvalidAttributeValue", "InvalidAttributeValue")
        assert seen.message == f"Invalid value for the parameter {name}."
    assert attributes(sqs, url, "All") == before


@pytest.mark.parametrize("name", ["QueueArn", "CreatedTimestamp", "ApproximateNumberOfMessages", "All", "Colour"])
def test_attributes_that_cannot_be_set_are_unknown(sqs: Any, url: str, name: str) -> None:
    seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={name: "1"})
    assert (seen.code, seen.message) == ("InvalidAttributeName", f"Unknown Attribute {name}.")


def test_attributes_are_required(sqs: Any, url: str) -> None:
    seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={})
    assert (seen.code, seen.message) == ("MissingParameter", "The request must contain the parameter Attribute.Name.")


def test_type_of_a_queue_is_fixed(sqs: Any, url: str) -> None:
    seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={"FifoQueue": "true"})
    assert (seen.code, seen.message) == ("InvalidAttributeName", "Unknown Attribute FifoQueue.")
    fifo = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    seen = refused(sqs.set_queue_attributes, QueueUrl=fifo, Attributes={"FifoQueue": "false"})
    assert (seen.code, seen.message) == (
        "InvalidAttributeValue",
        "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
    )
    sqs.set_queue_attributes(QueueUrl=fifo, Attributes={"FifoQueue": "true"})


def test_high_throughput_needs_the_scope_of_a_group(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    high = {"FifoThroughputLimit": "perMessageGroupId"}
    seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=high)
    assert seen.code == "InvalidAttributeValue"
    assert "DeduplicationScope is set to messageGroup" in seen.message
    sqs.set_queue_attributes(QueueUrl=url, Attributes={**high, "DeduplicationScope": "messageGroup"})
    seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={"DeduplicationScope": "planet"})
    assert seen.message == "Invalid value for the parameter DeduplicationScope."


# --- encryption: stored, as AWS shows it ---


def test_kms_key_turns_managed_encryption_off_and_back_to_nothing(sqs: Any, url: str) -> None:
    names = ("KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled")
    sqs.set_queue_attributes(
        QueueUrl=url, Attributes={"KmsMasterKeyId": "testKeyId", "KmsDataKeyReusePeriodSeconds": "6000"}
    )
    assert attributes(sqs, url, *names) == {
        "KmsMasterKeyId": "testKeyId",
        "KmsDataKeyReusePeriodSeconds": "6000",
        "SqsManagedSseEnabled": "false",
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"KmsMasterKeyId": ""})
    assert attributes(sqs, url, *names) == {"SqsManagedSseEnabled": "false"}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"KmsMasterKeyId": "other"})
    assert attributes(sqs, url, "KmsDataKeyReusePeriodSeconds") == {"KmsDataKeyReusePeriodSeconds": "300"}


def test_two_kinds_of_encryption_are_refused(sqs: Any, url: str) -> None:
    both = {"KmsMasterKeyId": "testKeyId", "SqsManagedSseEnabled": "true"}
    seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=both)
    assert (seen.code, seen.message) == (
        "InvalidAttributeName",
        "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
    )


# --- redrive ---


def redrive(target: Any = DEAD, receives: Any = 3, **more: Any) -> str:
    return json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": receives, **more})


def test_redrive_policy_is_kept_and_removed(sqs: Any, url: str) -> None:
    sqs.create_queue(QueueName="dead")
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": redrive(receives="3")})
    kept = attributes(sqs, url, "RedrivePolicy")["RedrivePolicy"]
    assert json.loads(kept) == {"deadLetterTargetArn": DEAD, "maxReceiveCount": 3}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})
    assert attributes(sqs, url, "RedrivePolicy") == {}


def test_dead_letter_knows_where_it_comes_from(harness: Harness, sqs: Any, url: str) -> None:
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": redrive(receives=1)})
    sqs.send_message(QueueUrl=url, MessageBody="poison")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    message = sqs.receive_message(QueueUrl=dead, AttributeNames=["All"])["Messages"][0]
    assert message["Attributes"]["DeadLetterQueueSourceArn"] == ARN
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("x", NO_MAP),
        ("[]", NO_MAP),
        ("{}", "Redrive policy does not contain mandatory attribute: maxReceiveCount."),
        (
            json.dumps({"deadLetterTargetArn": DEAD}),
            "Redrive policy does not contain mandatory attribute: maxReceiveCount.",
        ),
        (redrive("dummy", 42), "Invalid value for deadLetterTargetArn."),
        (redrive(5), "Invalid value for deadLetterTargetArn."),
        (redrive(receives=0), "Invalid value for maxReceiveCount: 0, valid values are from 1 to 1000 both inclusive."),
        (
            redrive(receives=1001),
            "Invalid value for maxReceiveCount: 1001, valid values are from 1 to 1000 both inclusive.",
        ),
        (
            redrive(receives="x"),
            "Invalid value for maxReceiveCount: x, valid values are from 1 to 1000 both inclusive.",
        ),
        (
            redrive(receives=True),
            "Invalid value for maxReceiveCount: True, valid values are from 1 to 1000 both inclusive.",
        ),
        (redrive(extra=1), "Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount]."),
        (
            redrive(DEAD.replace("000000000000", "111111111111")),
            "Dead letter target owner should be same as the source.",
        ),
        (redrive(DEAD.replace("us-east-1", "eu-west-1")), "Dead-letter target must be in same region as the source."),
        (redrive(DEAD + "-nope"), "Dead letter target does not exist."),
        (redrive(ARN + ".fifo"), "Dead-letter queue must be same type of queue as the source."),
    ],
)
def test_wrong_redrive_policies_are_refused(sqs: Any, url: str, policy: str, reason: str) -> None:
    sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})
    for call, more in ((sqs.set_queue_attributes, {"QueueUrl": url}), (sqs.create_queue, {"QueueName": "new"})):
        seen = refused(call, Attributes={"RedrivePolicy": policy}, **more)
        if reason == NO_MAP:
            assert seen.code == "InvalidAttributeValue"
            assert seen.message == f"Invalid value for the parameter RedrivePolicy. Reason: {NO_MAP}"
        else:
            assert seen.code == "InvalidParameterValue"
            assert seen.message == f"Value {policy} for parameter RedrivePolicy is invalid. Reason: {reason}"


def test_redrive_allow_policy(sqs: Any, url: str) -> None:
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    for policy in ({"redrivePermission": "byQueue", "sourceQueueArns": [DEAD]}, {"redrivePermission": "denyAll"}):
        sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": json.dumps(policy)})
        assert json.loads(attributes(sqs, dead, "RedriveAllowPolicy")["RedriveAllowPolicy"]) == policy
        seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={"RedrivePolicy": redrive()})
        assert seen.code == "InvalidParameterValue"
        assert "RedriveAllowPolicy does not allow this source" in seen.message
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": ""})
    assert attributes(sqs, dead, "RedriveAllowPolicy") == {}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": redrive()})


@pytest.mark.parametrize(
    "policy",
    [
        "x",
        "{}",
        '{"redrivePermission": 1}',
        '{"redrivePermission": "some"}',
        '{"redrivePermission": "byQueue"}',
        '{"redrivePermission": "byQueue", "sourceQueueArns": []}',
        '{"redrivePermission": "byQueue", "sourceQueueArns": ["x"]}',
        '{"redrivePermission": "byQueue", "sourceQueueArns": "x"}',
        json.dumps({"redrivePermission": "allowAll", "sourceQueueArns": [DEAD]}),
        json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [DEAD] * 11}),
        '{"redrivePermission": "denyAll", "colour": "red"}',
    ],
)
def test_wrong_redrive_allow_policies_are_refused(sqs: Any, url: str, policy: str) -> None:
    seen = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={"RedriveAllowPolicy": policy})
    assert seen.code in ("InvalidParameterValue", "InvalidAttributeValue")
    assert "Amazon SQS can't create the redrive allow policy" in seen.message


# --- tags ---


def test_tags_are_set_replaced_and_removed(sqs: Any, url: str) -> None:
    assert "Tags" not in sqs.list_queue_tags(QueueUrl=url)
    sqs.tag_queue(QueueUrl=url, Tags={"a": "1", "b": "2"})
    sqs.tag_queue(QueueUrl=url, Tags={"b": "3", "c": ""})
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "1", "b": "3", "c": ""}
    sqs.untag_queue(QueueUrl=url, TagKeys=["a", "unknown"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "3", "c": ""}


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"": "x"},
        {"k" * 129: "x"},
        {"k": "v" * 257},
        {"aws:k": "x"},
        {"AWS:k": "x"},
        {f"k{n}": "x" for n in range(51)},
    ],
)
def test_wrong_tags_are_refused(sqs: Any, url: str, tags: dict[str, str]) -> None:
    assert refused(sqs.tag_queue, QueueUrl=url, Tags=tags).status == 400
    assert "Tags" not in sqs.list_queue_tags(QueueUrl=url)


def test_tags_are_bounded_over_all_calls(sqs: Any, url: str) -> None:
    sqs.tag_queue(QueueUrl=url, Tags={f"k{n}": "x" for n in range(50)})
    sqs.tag_queue(QueueUrl=url, Tags={f"k{n}": "y" for n in range(50)})
    assert refused(sqs.tag_queue, QueueUrl=url, Tags={"one more": "x"}).message == "Too many tags added for queue q."


@pytest.mark.parametrize("keys", [[], [""], ["k" * 129]])
def test_wrong_tag_keys_are_refused(sqs: Any, url: str, keys: list[str]) -> None:
    assert refused(sqs.untag_queue, QueueUrl=url, TagKeys=keys).status == 400


# --- permissions ---


def statement(label: str, account: str) -> dict[str, Any]:
    return {
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "SQS:ReceiveMessage",
        "Resource": ARN,
    }


def policy_of(sqs: Any, url: str) -> Any:
    text = attributes(sqs, url, "Policy").get("Policy")
    return None if text is None else json.loads(text)


def test_permissions_are_statements_of_the_policy(sqs: Any, url: str) -> None:
    permission = {"QueueUrl": url, "Actions": ["ReceiveMessage"]}
    sqs.add_permission(Label="one", AWSAccountIds=["111111111111"], **permission)
    sqs.add_permission(Label="two", AWSAccountIds=["222222222222"], **permission)
    assert policy_of(sqs, url) == {
        "Version": "2008-10-17",
        "Id": f"{ARN}/SQSDefaultPolicy",
        "Statement": [statement("one", "111111111111"), statement("two", "222222222222")],
    }
    sqs.remove_permission(QueueUrl=url, Label="one")
    assert policy_of(sqs, url)["Statement"] == [statement("two", "222222222222")]
    sqs.remove_permission(QueueUrl=url, Label="two")
    assert policy_of(sqs, url) is None


def test_label_is_unique_and_must_exist(sqs: Any, url: str) -> None:
    permission = {"QueueUrl": url, "Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}
    sqs.add_permission(**permission)
    seen = refused(sqs.add_permission, **permission)
    assert (seen.code, seen.message) == (
        "InvalidParameterValue",
        "Value l for parameter Label is invalid. Reason: Already exists.",
    )
    seen = refused(sqs.remove_permission, QueueUrl=url, Label="nope")
    assert seen.code == "InvalidParameterValue"
    assert seen.message == "Value nope for parameter Label is invalid. Reason: can't find label."


def test_more_than_seven_actions_are_over_limit(sqs: Any, url: str) -> None:
    actions = ["SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes"]
    actions += ["GetQueueUrl", "PurgeQueue", "ListDeadLetterSourceQueues"]
    seen = refused(sqs.add_permission, QueueUrl=url, Label="l", AWSAccountIds=["111111111111"], Actions=actions)
    assert (seen.code, seen.status, seen.exception) == ("OverLimit", 403, "OverLimit")
    assert seen.message == "8 Actions were found, maximum allowed is 7."


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Label": ""}, "MissingParameter"),
        ({"Label": "a b"}, "InvalidParameterValue"),
        ({"Actions": []}, "MissingParameter"),
        ({"Actions": ["Fly"]}, "InvalidParameterValue"),
        ({"Actions": ["CreateQueue"]}, "InvalidParameterValue"),
        ({"AWSAccountIds": []}, "InvalidParameterValue"),
        ({"AWSAccountIds": ["me"]}, "InvalidParameterValue"),
    ],
)
def test_wrong_permissions_are_refused(sqs: Any, url: str, change: dict[str, Any], code: str) -> None:
    permission = {"QueueUrl": url, "Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}
    assert refused(sqs.add_permission, **{**permission, **change}).code == code
    assert policy_of(sqs, url) is None


def test_label_is_required_to_remove(sqs: Any, url: str) -> None:
    assert refused(sqs.remove_permission, QueueUrl=url, Label="").code == "MissingParameter"


def test_permissions_added_at_the_same_time_are_all_there(harness: Harness) -> None:
    url = harness.create()
    requests = [
        json_request(
            "AddPermission", QueueUrl=url, Label=f"l{n}", AWSAccountIds=["111111111111"], Actions=["SendMessage"]
        )
        for n in range(5)
    ]

    async def all_at_once() -> None:
        for request in requests:  # one turn of the loop: none has been committed when the next is read
            harness.service.handle(request)
        await asyncio.sleep(0)

    harness.loop.run_until_complete(all_at_once())
    assert [request.answers[0].status for request in requests] == [200] * 5
    text = harness.json("GetQueueAttributes", QueueUrl=url, AttributeNames=["Policy"]).json()["Attributes"]["Policy"]
    assert [s["Sid"] for s in json.loads(text)["Statement"]] == [f"l{n}" for n in range(5)]


def test_policy_that_is_refused_is_forgotten(harness: Harness) -> None:
    """A policy on its way into the store must not be built upon once the store has refused it."""
    url = harness.create()
    harness.broker.drain()
    permission: dict[str, Any] = {"Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}
    assert harness.json("AddPermission", QueueUrl=url, **permission).status == 503
    assert harness.service._context.policies == {}


def test_policy_set_by_hand_is_what_permissions_are_added_to(sqs: Any, url: str) -> None:
    own = statement("own", "333333333333")
    policy = json.dumps({"Version": "2012-10-17", "Id": "mine", "Statement": [own]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    sqs.add_permission(QueueUrl=url, Label="l", AWSAccountIds=["111111111111"], Actions=["ReceiveMessage"])
    assert policy_of(sqs, url) == {
        "Version": "2012-10-17",
        "Id": "mine",
        "Statement": [own, statement("l", "111111111111")],
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    assert policy_of(sqs, url) is None
