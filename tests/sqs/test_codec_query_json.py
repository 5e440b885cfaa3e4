"""Answers of the Query protocol in JSON."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from headrace.sqs.codec_query_json import accepts_json
from tests.sqs.harness import ACCOUNT, HOST, Answer, FakeRequest, Harness

JSON = b"application/json"
PATH = f"/{ACCOUNT}/q"


def request_id(answer: Answer) -> dict[str, str]:
    return {"RequestId": answer.headers["x-amzn-requestid"]}


def test_answer_has_the_layout_of_the_xml(harness: Harness) -> None:
    harness.create()
    answer = harness.query("ListQueues", accept=JSON)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.json() == {
        "ListQueuesResponse": {
            "ListQueuesResult": {"queueUrls": [f"http://{HOST}{PATH}"], "NextToken": None},
            "ResponseMetadata": request_id(answer),
        }
    }


def test_empty_members_are_null(harness: Harness) -> None:
    answer = harness.query("ListQueues", accept=JSON)
    assert answer.json()["ListQueuesResponse"]["ListQueuesResult"] == {"queueUrls": None, "NextToken": None}
    harness.create()
    answer = harness.query("ReceiveMessage", path=PATH, accept=JSON)
    assert answer.json()["ReceiveMessageResponse"]["ReceiveMessageResult"] == {"messages": None}


def test_message_of_a_receive(harness: Harness) -> None:
    harness.create()
    attributes = {
        "MessageAttribute.1.Name": "bytes",
        "MessageAttribute.1.Value.DataType": "Binary",
        "MessageAttribute.1.Value.BinaryValue": "AAE=",
    }
    sent = harness.query("SendMessage", {"MessageBody": "é<&>", **attributes}, path=PATH, accept=JSON)
    result = sent.json()["SendMessageResponse"]["SendMessageResult"]
    assert result["MD5OfMessageSystemAttributes"] is None
    assert result["SequenceNumber"] is None
    names = {"AttributeName.1": "ApproximateReceiveCount", "MessageAttributeName.1": "All"}
    received = harness.query("ReceiveMessage", names, path=PATH, accept=JSON)
    (message,) = received.json()["ReceiveMessageResponse"]["ReceiveMessageResult"]["messages"]
    assert message.pop("ReceiptHandle")
    value = {
        "StringValue": None,
        "BinaryValue": "AAE=",
        "StringListValues": None,
        "BinaryListValues": None,
        "DataType": "Binary",
    }
    assert message == {
        "MessageId": result["MessageId"],
        "MD5OfBody": result["MD5OfMessageBody"],
        "Body": "é<&>",
        "Attributes": [{"Name": "ApproximateReceiveCount", "Value": "1"}],
        "MD5OfMessageAttributes": result["MD5OfMessageAttributes"],
        "MessageAttributes": [{"Name": "bytes", "Value": value}],
    }


def test_maps_are_lists_of_their_entries(harness: Harness) -> None:
    harness.create()
    shown = harness.query("GetQueueAttributes", {"AttributeName.1": "DelaySeconds"}, path=PATH, accept=JSON).json()
    assert shown["GetQueueAttributesResponse"]["GetQueueAttributesResult"] == {
        "Attributes": [{"Name": "DelaySeconds", "Value": "0"}]
    }
    harness.query("TagQueue", {"Tag.1.Key": "team", "Tag.1.Value": "red"}, path=PATH)
    tags = harness.query("ListQueueTags", path=PATH, accept=JSON).json()
    assert tags["ListQueueTagsResponse"]["ListQueueTagsResult"] == {"Tags": [{"Key": "team", "Value": "red"}]}


def test_operation_without_a_result_answers_its_metadata(harness: Harness) -> None:
    harness.create()
    answer = harness.query("PurgeQueue", path=PATH, accept=JSON)
    assert answer.json() == {"PurgeQueueResponse": {"ResponseMetadata": request_id(answer)}}


def test_batch_tells_successes_and_failures(harness: Harness) -> None:
    harness.create()
    entry = "DeleteMessageBatchRequestEntry.1"
    answer = harness.query(
        "DeleteMessageBatch", {f"{entry}.Id": "a", f"{entry}.ReceiptHandle": "x"}, path=PATH, accept=JSON
    )
    result = answer.json()["DeleteMessageBatchResponse"]["DeleteMessageBatchResult"]
    assert result["Successful"] is None
    assert [(failed["Id"], failed["Code"], failed["SenderFault"]) for failed in result["Failed"]] == [
        ("a", "ReceiptHandleIsInvalid", True)
    ]


def test_error(harness: Harness) -> None:
    answer = harness.query("GetQueueUrl", {"QueueName": "nope"}, accept=JSON)
    assert (answer.status, answer.content_type) == (400, "application/json")
    assert answer.json() == {
        "Error": {
            "Code": "AWS.SimpleQueueService.NonExistentQueue",
            "Message": "The specified queue does not exist for this wsdl version.",
            "Type": "Sender",
            "Detail": None,
        },
        **request_id(answer),
    }


def test_get_with_json(harness: Harness) -> None:
    harness.create()
    query = urlencode({"Action": "GetQueueAttributes", "AttributeName.1": "QueueArn"})
    headers = {b"host": HOST.encode(), b"accept": b"application/json"}
    answer = harness.serve(FakeRequest(method="GET", target=f"{PATH}?{query}", headers=headers))
    attributes = answer.json()["GetQueueAttributesResponse"]["GetQueueAttributesResult"]["Attributes"]
    assert attributes == [{"Name": "QueueArn", "Value": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"}]


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        (b"application/json", True),
        (b"application/json, text/plain, */*", True),
        (b"Application/JSON;q=0.9", True),
        (b"text/html, application/json, application/xml", True),
        (b"text/xml, application/json", False),
        (b"application/xml;q=0.9, application/json", False),
        (b"*/*", False),
        (b"application/jsonp", False),
        (b"", False),
    ],
)
def test_json_is_chosen_by_the_accept_header(accept: bytes, json: bool) -> None:
    assert accepts_json(accept) is json


def test_json_protocol_is_not_changed_by_accept(harness: Harness) -> None:
    headers = {b"host": HOST.encode(), b"x-amz-target": b"AmazonSQS.ListQueues", b"accept": JSON}
    assert harness.serve(FakeRequest(headers=headers)).content_type == "application/x-amz-json-1.0"
