"""What the service does with requests as such: protocols, methods, headers, who asks, and what must never happen."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.config import Config

from headrace.errors import StoreDamaged, StoreFailed, StoreFull
from headrace.sqs import limits
from headrace.sqs.context import RequestIds, SqsOptions
from headrace.sqs.keys import Key, KeyRing, Principal
from headrace.sqs.signature import Verifier
from tests.sqs.harness import HOST, Boto3, FakeRequest, Harness, json_request, refused

OWNER = Principal("000000000000", "owner", "AKIAOWNER00000000000")
STRANGER = Principal("111111111111", "stranger", "AKIASTRANGER00000000")
SENDER = Principal("000000000000", "sender", "AKIASENDER0000000000", actions=("SendMessage", "GetQueueUrl"))
SECRET = "a secret of at least sixteen characters"


# --- the two protocols, byte for byte ---


def test_json_success(harness: Harness) -> None:
    answer = harness.json("CreateQueue", QueueName="q")
    assert answer.status == 200
    assert answer.content_type == "application/x-amz-json-1.0"
    assert answer.body == b'{"QueueUrl":"http://localhost:9324/000000000000/q"}'
    assert answer.headers.keys() == {"x-amzn-requestid"}
    assert len(answer.headers["x-amzn-requestid"]) == 36


def test_json_success_without_an_answer_has_no_body(harness: Harness) -> None:
    url = harness.create()
    assert harness.json("PurgeQueue", QueueUrl=url).body == b""
    assert harness.json("ReceiveMessage", QueueUrl=url).body == b"{}"


def test_json_error(harness: Harness) -> None:
    answer = harness.json("GetQueueUrl", QueueName="nope")
    assert answer.status == 400
    assert answer.body == (
        b'{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}'
    )
    assert answer.headers["x-amzn-errortype"] == "com.amazonaws.sqs#QueueDoesNotExist"
    assert answer.headers["x-amzn-query-error"] == "AWS.SimpleQueueService.NonExistentQueue;Sender"


def test_errors_that_no_operation_declares_have_the_other_namespace(harness: Harness) -> None:
    answer = harness.json("SendMessage", QueueUrl=harness.create())
    assert answer.json()["__type"] == "com.amazon.coral.service#MissingRequiredParameterException"
    assert answer.headers["x-amzn-errortype"] == "com.amazon.coral.service#MissingRequiredParameterException"
    assert answer.headers["x-amzn-query-error"] == "MissingParameter;Sender"


def test_query_success(harness: Harness) -> None:
    answer = harness.query("CreateQueue", {"QueueName": "q"})
    request_id = answer.headers["x-amzn-requestid"]
    assert (answer.status, answer.content_type) == (200, "text/xml")
    assert answer.body.decode() == (
        '<?xml version="1.0"?><CreateQueueResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/">'
        "<CreateQueueResult><QueueUrl>http://localhost:9324/000000000000/q</QueueUrl></CreateQueueResult>"
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></CreateQueueResponse>"
    )


def test_query_success_without_an_answer_has_no_result(harness: Harness) -> None:
    harness.create()
    answer = harness.query("PurgeQueue", path="/000000000000/q")
    assert answer.xml().find("PurgeQueueResult") is None
    assert answer.xml().findtext("ResponseMetadata/RequestId") == answer.headers["x-amzn-requestid"]


@pytest.mark.parametrize("operation", ["ReceiveMessage", "GetQueueAttributes", "ListQueueTags"])
def test_query_empty_result_is_an_empty_element(harness: Harness, operation: str) -> None:
    harness.create()
    answer = harness.query(operation, path="/000000000000/q")
    assert f"<{operation}Result/>".encode() in answer.body


@pytest.mark.parametrize("path", ["/000000000000/q", "/queue/eu-west-1/000000000000/q", "/000000000000/nope"])
@pytest.mark.parametrize("operation", ["CreateQueue", "ListQueues"])
def test_query_action_without_a_queue_is_invalid_at_a_queue_url(harness: Harness, path: str, operation: str) -> None:
    harness.create()
    for accept, content_type in ((b"", "text/xml"), (b"application/json", "application/json")):
        answer = harness.query(operation, {"QueueName": "other"}, path=path, accept=accept)
        assert (answer.status, answer.code, answer.content_type) == (400, "InvalidAction", content_type)
        assert answer.message == f"The action {operation} is not valid for this endpoint."
    assert len(harness.json("ListQueues").json()["QueueUrls"]) == 1


def test_query_get_queue_url_is_accepted_at_a_queue_url(harness: Harness) -> None:
    harness.create("q")
    harness.create("other")
    answer = harness.query("GetQueueUrl", {"QueueName": "other"}, path="/000000000000/q")
    assert answer.xml().findtext("GetQueueUrlResult/QueueUrl") == f"http://{HOST}/000000000000/other"


@pytest.mark.parametrize("accept", [b"", b"application/json"])
@pytest.mark.parametrize("target", ["/000000000000/q", "/000000000000/q?Version=2012-11-05", "/000000000000/q?Action="])
def test_get_of_a_queue_url_without_action_is_not_found(harness: Harness, accept: bytes, target: str) -> None:
    harness.create()
    headers = {b"host": HOST.encode(), b"accept": accept}
    answer = harness.serve(FakeRequest(method="GET", target=target, headers=headers))
    assert (answer.status, answer.content_type, answer.body) == (404, "text/xml", b"<UnknownOperationException/>")


def test_query_error(harness: Harness) -> None:
    answer = harness.query("GetQueueUrl", {"QueueName": "nope"})
    assert answer.status == 400
    assert answer.body.decode() == (
        '<?xml version="1.0"?><ErrorResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><Error><Type>Sender</Type>'
        "<Code>AWS.SimpleQueueService.NonExistentQueue</Code>"
        "<Message>The specified queue does not exist for this wsdl version.</Message><Detail/></Error>"
        f"<RequestId>{answer.headers['x-amzn-requestid']}</RequestId></ErrorResponse>"
    )


def test_query_escapes_what_xml_would_change(harness: Harness) -> None:
    harness.query("CreateQueue", {"QueueName": "q"})
    harness.query("SendMessage", {"MessageBody": "<&>\"'\r\n\t]]>"}, path="/000000000000/q")
    answer = harness.query("ReceiveMessage", path="/000000000000/q")
    assert b"<Body>&lt;&amp;&gt;&quot;'&#xD;\n\t]]&gt;</Body>" in answer.body
    assert answer.xml().findtext("ReceiveMessageResult/Message/Body") == "<&>\"'\r\n\t]]>"


def test_query_error_that_repeats_no_xml_characters_is_xml(harness: Harness) -> None:
    harness.create()
    answer = harness.query("DeleteMessage", {"ReceiptHandle": "\x00\x1b"}, path="/000000000000/q")
    assert "\ufffd\ufffd" in answer.message


def test_query_by_get(harness: Harness) -> None:
    harness.create()
    query = urlencode({"Action": "SendMessage", "MessageBody": "a b&c", "Version": "2012-11-05"})
    sent = harness.serve(FakeRequest(method="GET", target=f"/000000000000/q?{query}"))
    assert sent.status == 200
    received = harness.serve(FakeRequest(method="GET", target="/000000000000/q?Action=ReceiveMessage"))
    assert received.xml().findtext("ReceiveMessageResult/Message/Body") == "a b&c"


def test_query_parameters_of_target_and_form_go_together(harness: Harness) -> None:
    request = FakeRequest(target="/?Action=CreateQueue", body=b"QueueName=q")
    assert harness.serve(request).status == 200


def test_request_ids_differ() -> None:
    ids, others = RequestIds(), RequestIds()
    drawn = [ids() for _ in range(1_000)] + [others() for _ in range(1_000)]
    assert len(set(drawn)) == 2_000


# --- requests that are none ---


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (FakeRequest(method="GET", target="/"), 400, "MissingAction"),
        (FakeRequest(method="POST", target="/", body=b"x"), 400, "MissingAction"),
        (FakeRequest(method="POST", target="/", body=b"Action="), 400, "MissingAction"),
        (FakeRequest(method="POST", target="/", body=b"Action=Fly"), 400, "InvalidAction"),
        (FakeRequest(method="POST", target="/", body=b"Action=%ff"), 400, "MalformedInput"),
        (FakeRequest(method="POST", target="/", body=b"Action=\xff"), 400, "MalformedInput"),
        (FakeRequest(method="POST", target="/", body=b"Action=ListQueues&MaxResults=x"), 400, "MalformedInput"),
        (FakeRequest(method="POST", target="/", body=b"a=b&" * 4_001), 400, "MalformedInput"),
        (FakeRequest(method="PUT", target="/", body=b"Action=ListQueues"), 405, "InvalidHttpMethod"),
        (FakeRequest(method="DELETE", target="/000000000000/q"), 405, "InvalidHttpMethod"),
    ],
)
def test_malformed_query_requests(harness: Harness, request_: FakeRequest, status: int, code: str) -> None:
    answer = harness.serve(FakeRequest(request_.method, request_.target, dict(request_.headers), request_.body))
    assert (answer.status, answer.code, answer.content_type) == (status, code, "text/xml")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nothing",
        b"[]",
        b"null",
        b'"text"',
        b'{"QueueName": {}}',
        b'{"QueueName": "\xff"}',
        b'{"QueueName": "\\ud800"}',
        b'{"QueueName": "q", "Attributes": []}',
        b'{"QueueName": "q", "Attributes": {"DelaySeconds": [5]}}',
        b'{"QueueName": "q"} more',
        b'{"unknown": ' + b"[" * 100_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_malformed_json_requests(harness: Harness, body: bytes) -> None:
    answer = harness.json("CreateQueue", body)
    assert (answer.status, answer.code) == (400, "MalformedInput")
    assert answer.json()["__type"] == "com.amazon.coral.service#SerializationException"
    assert harness.json("ListQueues").json() == {}


def test_json_ignores_what_it_does_not_know_and_null(harness: Harness) -> None:
    assert harness.json("CreateQueue", b'{"QueueName": "q", "Attributes": null, "Colour": {"a": [1]}}').status == 200
    assert harness.json("ListQueues", b"").json()["QueueUrls"]


@pytest.mark.parametrize(
    ("target", "method", "status", "code"),
    [
        (b"AmazonSQS.Fly", "POST", 400, "InvalidAction"),
        (b"", "POST", 400, "InvalidAction"),
        (b"\xff", "POST", 400, "InvalidAction"),
        (b"DynamoDB.ListQueues", "POST", 400, "InvalidAction"),
        (b"AmazonSQS.ListQueues", "GET", 405, "InvalidHttpMethod"),
    ],
)
def test_wrong_targets(harness: Harness, target: bytes, method: str, status: int, code: str) -> None:
    request = json_request("ListQueues")
    request.method = method
    request.headers[b"x-amz-target"] = target
    answer = harness.serve(request)
    assert (answer.status, answer.code) == (status, code)
    assert answer.json()["__type"] == "com.amazon.coral.service#UnknownOperationException"


def test_json_without_a_target_is_answered_in_json(harness: Harness) -> None:
    request = json_request("ListQueues")
    del request.headers[b"x-amz-target"]
    assert harness.serve(request).json()["__type"] == "com.amazon.coral.service#UnknownOperationException"


def test_request_that_is_too_large_is_not_read(harness: Harness) -> None:
    blank = b" " * limits.REQUEST_BYTES_MAX
    assert harness.json("ListQueues", blank[2:] + b"{}").status == 200
    answer = harness.json("ListQueues", blank[1:] + b"{}")
    assert (answer.status, answer.code) == (413, "RequestEntityTooLarge")
    answer = harness.serve(FakeRequest(body=b"Action=ListQueues&x=" + blank))
    assert (answer.status, answer.code, answer.content_type) == (413, "RequestEntityTooLarge", "text/xml")


def test_whole_batch_of_escapes_is_not_too_large(harness: Harness) -> None:
    body = b"\\u0061" * 104_857
    entries = b",".join(b'{"Id":"%d","MessageBody":"%s"}' % (n, body) for n in range(10))
    harness.create()
    answer = harness.json("SendMessageBatch", b'{"QueueUrl":"q","Entries":[%s]}' % entries)
    assert len(answer.json()["Successful"]) == 10


# --- failures that are ours ---


def test_bug_is_answered_and_logged_without_what_the_client_sent(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = harness.create()

    def submit(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(harness.broker, "submit", submit)
    with caplog.at_level(logging.ERROR):
        answer = harness.json("SendMessage", QueueUrl=url, MessageBody="a secret body")
    assert (answer.status, answer.headers["x-amzn-query-error"]) == (500, "InternalFailure;Receiver")
    assert "bug" not in answer.body.decode()
    record = caplog.records[0]
    assert record.__dict__["action"] == "sqs.request_failed"
    assert record.__dict__["request_id"] == answer.headers["x-amzn-requestid"]
    assert "a secret body" not in record.getMessage()


def test_bug_in_finishing_is_answered_too(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    url = harness.create()
    monkeypatch.setattr(harness.broker, "submit", lambda _operation, done: done(["nonsense"]))
    assert harness.json("SendMessage", QueueUrl=url, MessageBody="a").status == 500


def test_request_is_answered_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    url = harness.create()

    def submit(_: Any, done: Any) -> None:
        done(None)
        raise ZeroDivisionError("a bug, after the answer")

    monkeypatch.setattr(harness.broker, "submit", submit)
    assert harness.json("PurgeQueue", QueueUrl=url).status == 200  # `serve` counts the answers


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreFull("/data"), 503, "ServiceUnavailable"),
        (StoreFailed("EIO"), 500, "InternalFailure"),
        (StoreDamaged("/data", "a page"), 500, "InternalFailure"),
    ],
)
def test_failure_of_the_store_is_the_receivers_fault(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    code: str,
) -> None:
    url = harness.create()
    monkeypatch.setattr(harness.broker, "submit", lambda _operation, done: done(error))
    answer = harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    assert not caplog.records  # a full disk must not be filled by a line for each request
    assert (answer.status, answer.headers["x-amzn-query-error"]) == (status, f"{code};Receiver")
    assert "/data" not in answer.body.decode()
    xml = harness.query("SendMessage", {"MessageBody": "a"}, path="/000000000000/q").xml()
    assert xml.findtext("Error/Type") == "Receiver"


# --- who asks ---


@pytest.fixture
def guarded() -> Iterator[Harness]:
    """A service with keys, at the real time, since boto3 signs with it."""
    principals = (OWNER, STRANGER, SENDER)
    keys = KeyRing({str(principal.access_key): Key(principal, SECRET) for principal in principals})
    verifier = Verifier(keys, lambda: dt.datetime.now(dt.UTC).timestamp())
    harness = Harness(options=SqsOptions(verifier=verifier))
    yield harness
    harness.close()


def client_of(harness: Harness, principal: Principal, secret: str = SECRET) -> Any:
    boto3 = Boto3(aws_access_key_id=principal.access_key, aws_secret_access_key=secret)
    boto3.harness = harness
    return boto3.client


def test_unsigned_requests_are_refused_before_anything_is_read(guarded: Harness) -> None:
    for answer in (guarded.json("ListQueues", b"{"), guarded.query("ListQueues")):
        assert (answer.status, answer.code) == (403, "MissingAuthenticationToken")


def test_signed_requests_are_served(guarded: Harness) -> None:
    sqs = client_of(guarded, OWNER)
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="a")
    message = sqs.receive_message(QueueUrl=url, AttributeNames=["SenderId"])["Messages"][0]
    assert message["Attributes"] == {"SenderId": "owner"}
    wrong = client_of(guarded, OWNER, "another secret of sixteen characters")
    assert refused(wrong.list_queues).code == "SignatureDoesNotMatch"


def test_presigned_get_is_served(guarded: Harness) -> None:
    sqs = client_of(guarded, OWNER)
    sqs.send_message(QueueUrl=sqs.create_queue(QueueName="q")["QueueUrl"], MessageBody="a")
    boto3 = Boto3(
        aws_access_key_id=OWNER.access_key, aws_secret_access_key=SECRET, config=Config(signature_version="v4")
    )
    signer = boto3.client._request_signer
    request = {
        "method": "GET",
        "url": f"http://{HOST}/000000000000/q?Action=ReceiveMessage",
        "body": b"",
        "headers": {},
        "context": {},
    }
    url = urlsplit(signer.generate_presigned_url(request, "ReceiveMessage", expires_in=60))
    answer = guarded.serve(FakeRequest(method="GET", target=f"{url.path}?{url.query}"))
    assert answer.xml().findtext("ReceiveMessageResult/Message/Body") == "a"
    forged = f"{url.path}?{url.query.replace('ReceiveMessage', 'PurgeQueue')}"
    assert guarded.serve(FakeRequest(method="GET", target=forged)).code == "SignatureDoesNotMatch"


def test_strangers_may_do_what_the_owner_permits(guarded: Harness) -> None:
    owner, stranger = client_of(guarded, OWNER), client_of(guarded, STRANGER)
    url = owner.create_queue(QueueName="q")["QueueUrl"]
    seen = refused(stranger.send_message, QueueUrl=url, MessageBody="a")
    assert (seen.code, seen.status) == ("AccessDenied", 403)
    assert seen.message == f"Access to the resource {url} is denied."
    owner.add_permission(QueueUrl=url, Label="l", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    stranger.send_message(QueueUrl=url, MessageBody="a")
    stranger.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "b"}])
    assert refused(stranger.receive_message, QueueUrl=url).code == "AccessDenied"
    owner.remove_permission(QueueUrl=url, Label="l")
    assert refused(stranger.send_message, QueueUrl=url, MessageBody="a").code == "AccessDenied"


def test_strangers_have_their_own_queues(guarded: Harness) -> None:
    owner, stranger = client_of(guarded, OWNER), client_of(guarded, STRANGER)
    owner.create_queue(QueueName="q")
    url = stranger.create_queue(QueueName="q")["QueueUrl"]
    assert url == f"http://{HOST}/111111111111/q"
    assert stranger.list_queues()["QueueUrls"] == [url]
    assert refused(owner.delete_queue, QueueUrl=url).code == "AccessDenied"


def test_a_principal_keeps_within_the_bounds_of_its_key(guarded: Harness) -> None:
    owner, sender = client_of(guarded, OWNER), client_of(guarded, SENDER)
    url = owner.create_queue(QueueName="q")["QueueUrl"]
    assert sender.get_queue_url(QueueName="q")["QueueUrl"] == url
    sender.send_message(QueueUrl=url, MessageBody="a")
    for call, parameters in (
        (sender.receive_message, {"QueueUrl": url}),
        (sender.create_queue, {"QueueName": "new"}),
        (sender.list_queues, {}),
        (sender.list_message_move_tasks, {"SourceArn": "arn:aws:sqs:us-east-1:000000000000:q"}),
    ):
        assert refused(call, **parameters).code == "AccessDenied"


def test_a_denial_holds_for_the_owner_too(guarded: Harness) -> None:
    owner = client_of(guarded, OWNER)
    url = owner.create_queue(QueueName="q")["QueueUrl"]
    deny = {"Effect": "Deny", "Principal": "*", "Action": "SQS:SendMessage", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    owner.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    assert refused(owner.send_message, QueueUrl=url, MessageBody="a").code == "AccessDenied"
    assert "Messages" not in owner.receive_message(QueueUrl=url)


def test_forwarded_scheme_is_believed_behind_a_proxy_only() -> None:
    for behind_proxy, scheme in ((True, "https"), (False, "http")):
        harness = Harness(options=SqsOptions(behind_proxy=behind_proxy))
        request = json_request("CreateQueue", QueueName="q")
        request.headers[b"x-forwarded-proto"] = b"https"
        assert harness.serve(request).json()["QueueUrl"].startswith(f"{scheme}://")
        harness.close()
