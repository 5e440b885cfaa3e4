from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from tests.sqs.harness import Harness, json_request, refused

BODY_MD5 = hashlib.md5(b"hello").hexdigest()
ATTRIBUTE = {"DataType": "String", "StringValue": "attribValue 1"}


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="q")["QueueUrl"])


@pytest.fixture
def fifo(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"])


def test_send_answers_id_and_digest_of_the_body(sqs: Any, url: str) -> None:
    answer = sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert answer["MD5OfMessageBody"] == BODY_MD5
    assert len(answer["MessageId"]) == 36
    assert "MD5OfMessageAttributes" not in answer
    assert "SequenceNumber" not in answer


def test_send_digests_attributes_as_aws_does(sqs: Any, url: str) -> None:
    # The vector of AWS's documentation of the digest.
    answer = sqs.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes={"attribName1": ATTRIBUTE})
    assert answer["MD5OfMessageAttributes"] == "19e27d4e946b072f3f58da80d94fd778"


def test_trace_header_has_its_own_digest_and_comes_back(sqs: Any, url: str) -> None:
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
    answer = sqs.send_message(QueueUrl=url, MessageBody="hello", MessageSystemAttributes=trace)
    assert answer["MD5OfMessageSystemAttributes"] == "5ae4d5d7636402d80f4eb6d213245a88"  # as AWS answers
    message = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["AWSTraceHeader"])["Messages"][0]
    assert message["Attributes"] == {"AWSTraceHeader": header}


def test_trace_id_header_of_the_request_is_kept(harness: Harness) -> None:
    url = harness.create()
    request = json_request("SendMessage", QueueUrl=url, MessageBody="hello")
    request.headers[b"x-amzn-trace-id"] = b"Root=1-2-3"
    assert "MD5OfMessageSystemAttributes" not in harness.serve(request).json()
    answer = harness.json("ReceiveMessage", QueueUrl=url, AttributeNames=["All"]).json()
    assert answer["Messages"][0]["Attributes"]["AWSTraceHeader"] == "Root=1-2-3"


def test_other_system_attributes_are_refused(harness: Harness) -> None:
    url = harness.create()
    attributes = {"SenderId": {"DataType": "String", "StringValue": "me"}}
    answer = harness.json("SendMessage", QueueUrl=url, MessageBody="a", MessageSystemAttributes=attributes)
    assert (answer.status, answer.code) == (400, "InvalidParameterValue")


@pytest.mark.parametrize(
    "body", ["\ttab\nline\r\n", "é", "\u20ac", "\ud7ff\ue000\ufffd", "\U00010000\U0010ffff", "\x7f"]
)
def test_allowed_characters_come_back_unchanged(sqs: Any, url: str, body: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody=body)
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == body


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_forbidden_characters_are_refused(sqs: Any, url: str, character: str) -> None:
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody=f"a{character}b")
    assert (seen.code, seen.status, seen.exception) == ("InvalidMessageContents", 400, "InvalidMessageContents")
    assert seen.message.startswith("Invalid characters found.")
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def test_forbidden_character_in_an_attribute_is_refused(sqs: Any, url: str) -> None:
    attributes = {"a": {"DataType": "String", "StringValue": "\x01"}}
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody="a", MessageAttributes=attributes)
    assert (seen.code, seen.status) == ("InvalidParameterValue", 400)
    assert seen.message.startswith("Invalid characters found. Valid unicode characters are #x9 |")


@pytest.mark.parametrize("name", ["attr.1øßä", "名前", "Größe-2", "a_b.c-d"])
def test_attribute_names_may_have_letters_beyond_ascii(sqs: Any, url: str, name: str) -> None:
    attributes = {name: {"DataType": "String", "StringValue": "x"}}
    sent = sqs.send_message(QueueUrl=url, MessageBody="a", MessageAttributes=attributes)
    message = sqs.receive_message(QueueUrl=url, MessageAttributeNames=[name])["Messages"][0]
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"] == reference_md5(attributes)


def reference_md5(attributes: dict[str, dict[str, str]]) -> str:
    """The digest by the steps of AWS's documentation."""
    data = b""
    for name, value in sorted(attributes.items()):
        for text in (name, value["DataType"]):
            data += len(text.encode()).to_bytes(4, "big") + text.encode()
        data += b"\x01" + len(value["StringValue"].encode()).to_bytes(4, "big") + value["StringValue"].encode()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_empty_body_is_missing(sqs: Any, url: str) -> None:
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody="")
    assert (seen.code, seen.message) == ("MissingParameter", "The request must contain the parameter MessageBody.")


def test_message_longer_than_the_queue_takes_is_refused(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q", Attributes={"MaximumMessageSize": "1024"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x" * 1024)
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody="x" * 1025)
    assert seen.code == "InvalidParameterValue"
    assert seen.message == "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes."


def test_names_types_and_values_of_attributes_count(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q", Attributes={"MaximumMessageSize": "1024"})["QueueUrl"]
    attributes = {"name": {"DataType": "String", "StringValue": "value"}}  # 4 + 6 + 5 bytes
    sqs.send_message(QueueUrl=url, MessageBody="x" * (1024 - 15), MessageAttributes=attributes)
    refused(sqs.send_message, QueueUrl=url, MessageBody="x" * (1024 - 14), MessageAttributes=attributes)


def test_a_mebibyte_is_taken(sqs: Any, url: str) -> None:
    body = "x" * 1_048_576
    sqs.send_message(QueueUrl=url, MessageBody=body)
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == body
    refused(sqs.send_message, QueueUrl=url, MessageBody=body + "x")


def test_delay_hides_the_message(harness: Harness, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="a", DelaySeconds=900)
    harness.advance(899_999)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    harness.advance(1)
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "a"


@pytest.mark.parametrize("delay", [-1, 901, 10**30])
def test_delay_out_of_range_is_refused(sqs: Any, url: str, delay: int) -> None:
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody="a", DelaySeconds=delay)
    assert seen.code == "InvalidParameterValue"
    rule = "Reason: DelaySeconds must be >= 0 and <= 900."
    assert seen.message == f"Value {delay} for parameter DelaySeconds is invalid. {rule}"


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"a": {"DataType": "String", "StringValue": ""}}, "must contain a non-empty value of type 'String'"),
        ({"a": {"DataType": "Binary", "BinaryValue": b""}}, "must contain a non-empty value of type 'Binary'"),
        ({"a": {"DataType": "Binary", "StringValue": "x"}}, "with type 'Binary' must use field 'Binary'"),
        ({"a": {"DataType": "", "StringValue": "x"}}, "must contain a non-empty message attribute type"),
        ({"a": {"DataType": "Text", "StringValue": "x"}}, "You must use only the following supported type prefixes"),
        ({"a": {"DataType": "Stringy", "StringValue": "x"}}, "You must use only the following supported type prefixes"),
        (
            {"a": {"DataType": "String." + "x" * 250, "StringValue": "x"}},
            "type must be shorter than 256 bytes",
        ),
        ({"a": {"DataType": "Number", "StringValue": "one"}}, "Can't cast the value"),
        ({"a": {"DataType": "Number", "StringValue": "1e127"}}, "Can't cast the value"),
        ({"a": {"DataType": "Number", "StringValue": "1" * 39}}, "Can't cast the value"),
        ({"": {"DataType": "String", "StringValue": "x"}}, "must contain non-empty message (user) attribute names"),
        ({"n" * 257: {"DataType": "String", "StringValue": "x"}}, "must be shorter than 256"),
        ({"a b": {"DataType": "String", "StringValue": "x"}}, "Invalid non-alphanumeric character '#x20' was found"),
        ({"a€": {"DataType": "String", "StringValue": "x"}}, "Invalid non-alphanumeric character '#x20AC' was found"),
        ({".a": {"DataType": "String", "StringValue": "x"}}, "must not begin with character '.'"),
        ({"a.": {"DataType": "String", "StringValue": "x"}}, "must not end with character '.'"),
        ({"a..b": {"DataType": "String", "StringValue": "x"}}, "must not have successive '.' characters"),
        ({"aWs.x": {"DataType": "String", "StringValue": "x"}}, "reserved"),
        ({"Amazon.x": {"DataType": "String", "StringValue": "x"}}, "reserved"),
        (
            {f"a{n}": {"DataType": "String", "StringValue": "x"} for n in range(11)},
            "[11] exceeds the allowed maximum [10]",
        ),
    ],
)
def test_wrong_attributes_are_refused(sqs: Any, url: str, attributes: dict[str, Any], words: str) -> None:
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody="a", MessageAttributes=attributes)
    assert (seen.code, seen.status) == ("InvalidParameterValue", 400)
    assert words in seen.message


def test_list_values_are_not_supported(sqs: Any, url: str) -> None:
    attributes = {"a": {"DataType": "String", "StringListValues": ["x"]}}
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody="a", MessageAttributes=attributes)
    assert (seen.code, seen.exception) == ("AWS.SimpleQueueService.UnsupportedOperation", "UnsupportedOperation")


@pytest.mark.parametrize("number", ["0", "-1", "+1.50", "1e126", "1e-128", ".5", "9" * 38, "1" + "0" * 100, "007"])
def test_numbers_are_kept_as_text(sqs: Any, url: str, number: str) -> None:
    sqs.send_message(
        QueueUrl=url, MessageBody="a", MessageAttributes={"n": {"DataType": "Number.int", "StringValue": number}}
    )
    message = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["n"])["Messages"][0]
    assert message["MessageAttributes"] == {"n": {"DataType": "Number.int", "StringValue": number}}


# --- FIFO ---


def test_fifo_send_answers_a_sequence_number(sqs: Any, fifo: str) -> None:
    numbers = [
        sqs.send_message(QueueUrl=fifo, MessageBody="a", MessageGroupId="g", MessageDeduplicationId=str(n))[
            "SequenceNumber"
        ]
        for n in range(3)
    ]
    assert numbers == sorted(set(numbers))
    assert all(re.fullmatch("188[0-9]{17}", number) for number in numbers)


def test_fifo_duplicate_is_answered_like_the_first(sqs: Any, fifo: str) -> None:
    message = {"QueueUrl": fifo, "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    first = sqs.send_message(MessageBody="a", **message)
    second = sqs.send_message(MessageBody="a", **message)
    assert (first["MessageId"], first["SequenceNumber"]) == (second["MessageId"], second["SequenceNumber"])


def test_fifo_needs_a_group(sqs: Any, fifo: str) -> None:
    seen = refused(sqs.send_message, QueueUrl=fifo, MessageBody="a", MessageDeduplicationId="d")
    assert (seen.code, seen.message) == ("MissingParameter", "The request must contain the parameter MessageGroupId.")


def test_fifo_needs_something_to_deduplicate_by(sqs: Any, fifo: str) -> None:
    seen = refused(sqs.send_message, QueueUrl=fifo, MessageBody="a", MessageGroupId="g")
    assert seen.code == "InvalidParameterValue"
    assert seen.message == (
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
    )


def test_fifo_takes_no_delay_of_a_message_but_zero(sqs: Any, fifo: str) -> None:
    message = {"QueueUrl": fifo, "MessageBody": "a", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    seen = refused(sqs.send_message, DelaySeconds=2, **message)
    assert seen.message == (
        "Value 2 for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this "
        "queue type."
    )
    sqs.send_message(DelaySeconds=0, **message)


def test_fifo_delay_of_zero_is_the_queues(harness: Harness, sqs: Any) -> None:
    attributes = {"FifoQueue": "true", "DelaySeconds": "2", "ContentBasedDeduplication": "true"}
    url = sqs.create_queue(QueueName="slow.fifo", Attributes=attributes)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="a", MessageGroupId="g", DelaySeconds=0)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    harness.advance(2_000)
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "a"


def test_empty_group_of_a_fifo_queue_is_missing(sqs: Any, fifo: str) -> None:
    seen = refused(sqs.send_message, QueueUrl=fifo, MessageBody="a", MessageGroupId="", MessageDeduplicationId="d")
    assert (seen.code, seen.message) == ("MissingParameter", "The request must contain the parameter MessageGroupId.")


@pytest.mark.parametrize("value", ["x" * 129, "group 123", "é"])
@pytest.mark.parametrize("name", ["MessageGroupId", "MessageDeduplicationId"])
def test_ids_are_1_to_128_alphanumerics_and_punctuation(sqs: Any, fifo: str, name: str, value: str) -> None:
    ids = {"MessageGroupId": "g", "MessageDeduplicationId": "d", name: value}
    seen = refused(sqs.send_message, QueueUrl=fifo, MessageBody="a", **ids)
    assert seen.message == (
        f"Value {value} for parameter {name} is invalid. Reason: {name} can only include alphanumeric and punctuation "
        "characters. 1 to 128 in length."
    )


def test_deduplication_id_made_of_the_content_is_shown(sqs: Any) -> None:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    url = sqs.create_queue(QueueName="content.fifo", Attributes=attributes)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="abc", MessageGroupId="g")
    message = sqs.receive_message(QueueUrl=url, AttributeNames=["MessageDeduplicationId"])["Messages"][0]
    assert message["Attributes"] == {
        "MessageDeduplicationId": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }


def test_standard_queue_takes_a_group_and_no_deduplication_id(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="a", MessageGroupId="tenant")
    message = sqs.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"][0]
    assert message["Attributes"]["MessageGroupId"] == "tenant"
    assert "SequenceNumber" not in message["Attributes"]
    seen = refused(sqs.send_message, QueueUrl=url, MessageBody="a", MessageDeduplicationId="d")
    assert seen.code == "InvalidParameterValue"
    assert "not valid for this queue type" in seen.message


# --- batches ---


def entries(*ids: str, **more: Any) -> list[dict[str, Any]]:
    return [{"Id": entry_id, "MessageBody": f"body {entry_id}", **more} for entry_id in ids]


def test_batch_answers_each_entry(sqs: Any, url: str) -> None:
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries("a", "b"))
    assert [entry["Id"] for entry in answer["Successful"]] == ["a", "b"]
    assert answer["Successful"][0]["MD5OfMessageBody"] == hashlib.md5(b"body a").hexdigest()
    assert not answer.get("Failed")


def test_entry_that_is_wrong_fails_alone(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q", Attributes={"MaximumMessageSize": "1024"})["QueueUrl"]
    wrong = [
        {"Id": "long", "MessageBody": "x" * 1025},
        {"Id": "late", "MessageBody": "x", "DelaySeconds": 901},
        {"Id": "nul", "MessageBody": "\x00"},
        {"Id": "empty", "MessageBody": ""},
    ]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=[*entries("good"), *wrong])
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    failed = {entry["Id"]: entry for entry in answer["Failed"]}
    assert {key: entry["Code"] for key, entry in failed.items()} == {
        "long": "InvalidParameterValue",
        "late": "InvalidParameterValue",
        "nul": "InvalidMessageContents",
        "empty": "EmptyValue",
    }
    assert all(entry["SenderFault"] is True for entry in failed.values())
    assert failed["long"]["Message"] == (
        "One or more parameters cannot be validated. Reason: Message must be shorter than 1024 bytes."
    )
    assert len(sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]) == 1


def test_batch_in_which_every_entry_is_wrong_sends_nothing(sqs: Any, url: str) -> None:
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries("a", "b", DelaySeconds=901))
    assert not answer.get("Successful")
    assert len(answer["Failed"]) == 2


@pytest.mark.parametrize(
    ("given", "shape", "message"),
    [
        ([], "EmptyBatchRequest", "There should be at least one SendMessageBatchRequestEntry in the request."),
        (
            entries(*map(str, range(11))),
            "TooManyEntriesInBatchRequest",
            "Maximum number of entries per request are 10. You have sent 11.",
        ),
        (entries("a", "b", "a"), "BatchEntryIdsNotDistinct", "Id a repeated."),
        (
            entries("a b"),
            "InvalidBatchEntryId",
            (
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                "It can be at most 80 letters long."
            ),
        ),
        (
            [{"Id": str(n), "MessageBody": "x" * 524_289} for n in range(2)],
            "BatchRequestTooLong",
            "Batch requests cannot be longer than 1048576 bytes. You have sent 1048578 bytes.",
        ),
    ],
)
def test_batch_that_is_wrong_as_a_whole_is_refused(
    sqs: Any, url: str, given: list[dict[str, Any]], shape: str, message: str
) -> None:
    seen = refused(sqs.send_message_batch, QueueUrl=url, Entries=given)
    assert seen == type(seen)(f"AWS.SimpleQueueService.{shape}", message, 400, shape)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


@pytest.mark.parametrize("entry_id", ["", "x" * 81, "a:b", "é"])
def test_entry_ids_are_1_to_80_letters(sqs: Any, url: str, entry_id: str) -> None:
    seen = refused(sqs.send_message_batch, QueueUrl=url, Entries=entries(entry_id))
    assert seen.exception == "InvalidBatchEntryId"


def test_fifo_batch_without_ids_fails_as_a_whole(sqs: Any, fifo: str) -> None:
    whole = entries("a", MessageGroupId="g", MessageDeduplicationId="d")
    seen = refused(sqs.send_message_batch, QueueUrl=fifo, Entries=whole + entries("b", MessageDeduplicationId="e"))
    assert seen.code == "InvalidParameterValue"
    assert seen.message == "The request must contain the parameter MessageGroupId."
    seen = refused(sqs.send_message_batch, QueueUrl=fifo, Entries=whole + entries("b", MessageGroupId="g"))
    assert seen.code == "InvalidParameterValue"
    assert "Messages" not in sqs.receive_message(QueueUrl=fifo)


def test_fifo_batch_keeps_its_order(sqs: Any, fifo: str) -> None:
    given = [
        {"Id": str(n), "MessageBody": str(n), "MessageGroupId": "g", "MessageDeduplicationId": str(n)} for n in range(5)
    ]
    answer = sqs.send_message_batch(QueueUrl=fifo, Entries=given)
    assert all(entry["SequenceNumber"] for entry in answer["Successful"])
    messages = sqs.receive_message(QueueUrl=fifo, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in messages] == ["0", "1", "2", "3", "4"]
