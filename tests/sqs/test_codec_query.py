from __future__ import annotations

from typing import Any

import pytest

from headrace.sqs import shapes
from headrace.sqs.codec_query import QUERY, decode, parse
from headrace.sqs.errors import SERIALIZATION, Fault


def test_lists_are_in_the_order_of_their_numbers() -> None:
    request = decode("UntagQueue", shapes.UntagQueue, parse(b"TagKey.10=c&TagKey.2=b&TagKey.1=a"))
    assert request.tag_keys == ["a", "b", "c"]


def test_nested_structures() -> None:
    form = (
        "SendMessageBatchRequestEntry.1.Id=one&SendMessageBatchRequestEntry.1.MessageBody=a%20b+c"
        "&SendMessageBatchRequestEntry.1.DelaySeconds=5"
        "&SendMessageBatchRequestEntry.1.MessageAttribute.1.Name=n"
        "&SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.DataType=Binary"
        "&SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.BinaryValue=AAE%3D"
    )
    request = decode("SendMessageBatch", shapes.SendMessageBatch, parse(form.encode()))
    attribute = shapes.AttributeValue(data_type="Binary", binary_value=b"\x00\x01")
    assert request.entries == [
        shapes.SendMessageEntry(id="one", message_body="a b c", delay_seconds=5, message_attributes={"n": attribute})
    ]


def test_last_of_equal_parameters_counts() -> None:
    assert decode("CreateQueue", shapes.CreateQueue, parse(b"QueueName=a&QueueName=b")).queue_name == "b"


def test_unknown_parameters_are_ignored() -> None:
    request = decode("CreateQueue", shapes.CreateQueue, parse(b"QueueName=a&Colour=red&X.1.y=2&Version=2012-11-05"))
    assert request == shapes.CreateQueue(queue_name="a")


def test_map_value_may_be_empty_or_missing() -> None:
    request = decode("TagQueue", shapes.TagQueue, parse(b"Tag.1.Key=a&Tag.1.Value=&Tag.2.Key=b"))
    assert request.tags == {"a": "", "b": ""}


@pytest.mark.parametrize(
    "form",
    [
        "Tag=x",
        "Tag.1=x",
        "Tag.1.Value=x",
        "Tag.0.Key=x",
        "Tag.one.Key=x",
        "Tag.-1.Key=x",
        "Tag.01.Key=x",
        "Tag.1.Key.2=x",
        "Tag.1=x&Tag.1.Key=y",
        "Tag.1.Key=y&Tag.1=x",
        "Tag.9999999.Key=x",
        "." * 100 + "=x&Tag..Key=x",
    ],
)
def test_parameters_that_make_no_request_are_refused(form: str) -> None:
    with pytest.raises(Fault) as raised:
        decode("TagQueue", shapes.TagQueue, parse(form.encode()))
    assert raised.value.kind is SERIALIZATION


@pytest.mark.parametrize("value", ["x", "", "1.5", " 1", "1_0", "٣", "0x1", "true"])
def test_numbers_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(Fault) as raised:
        decode("ReceiveMessage", shapes.ReceiveMessage, [("WaitTimeSeconds", value)])
    assert raised.value.kind is SERIALIZATION


def test_binary_that_is_no_base64_is_refused() -> None:
    parameters = [("MessageAttribute.1.Name", "n"), ("MessageAttribute.1.Value.BinaryValue", "%%")]
    with pytest.raises(Fault) as raised:
        decode("SendMessage", shapes.SendMessage, parameters)
    assert raised.value.kind is SERIALIZATION


@pytest.mark.parametrize(
    ("result", "content"),
    [
        (
            shapes.QueueUrlsResult(["a", "b"], "t"),
            "<QueueUrl>a</QueueUrl><QueueUrl>b</QueueUrl><NextToken>t</NextToken>",
        ),
        (shapes.AttributesResult({"a": "1"}), "<Attribute><Name>a</Name><Value>1</Value></Attribute>"),
        (shapes.TagsResult({"a": ""}), "<Tag><Key>a</Key><Value></Value></Tag>"),
        (shapes.BatchResult([shapes.BatchResultEntry("a")]), "<XResultEntry><Id>a</Id></XResultEntry>"),
        (
            shapes.BatchResult(failed=[shapes.BatchResultErrorEntry("a", True, "C", "<m>")]),
            (
                "<BatchResultErrorEntry><Id>a</Id><SenderFault>true</SenderFault><Code>C</Code>"
                "<Message>&lt;m&gt;</Message></BatchResultErrorEntry>"
            ),
        ),
        (shapes.CancelMoveResult(3), "<ApproximateNumberOfMessagesMoved>3</ApproximateNumberOfMessagesMoved>"),
    ],
)
def test_answers(result: Any, content: str) -> None:
    assert f"<XResult>{content}</XResult>" in QUERY.answer("X", result, "id").decode()
