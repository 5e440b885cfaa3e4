"""boto3, unchanged, against a broker process: every operation, in today's protocol and in the one before it."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from botocore.config import Config

from tests.acceptance.conftest import client_of
from tests.broker_process import BrokerProcess, broker, wait_until
from tests.patience import PATIENCE_S

PREFIX = "arn:aws:sqs:us-east-1:000000000000:"


def test_life_of_a_message(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "30"}, tags={"team": "red"})["QueueUrl"]
    sent = sqs.send_message(
        QueueUrl=url,
        MessageBody="héllo <&>",
        MessageAttributes={
            "text": {"DataType": "String", "StringValue": "x"},
            "number": {"DataType": "Number.int", "StringValue": "42"},
            "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
        },
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-2-3"}},
    )
    assert sent["MD5OfMessageBody"] == hashlib.md5("héllo <&>".encode()).hexdigest()
    message = sqs.receive_message(QueueUrl=url, AttributeNames=["All"], MessageAttributeNames=["All"])["Messages"][0]
    assert message["Body"] == "héllo <&>"
    assert message["MessageId"] == sent["MessageId"]
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["MessageAttributes"]["bytes"]["BinaryValue"] == bytes(range(256))
    assert message["Attributes"]["AWSTraceHeader"] == "Root=1-2-3"
    handle = message["ReceiptHandle"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    again = sqs.receive_message(QueueUrl=url, AttributeNames=["ApproximateReceiveCount"])["Messages"][0]
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def test_batches(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    sent = sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": f"m{n}"} for n in range(10)])
    assert [entry["Id"] for entry in sent["Successful"]] == [str(n) for n in range(10)]
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    handles = [message["ReceiptHandle"] for message in messages]
    assert len(handles) == 10
    changed = sqs.change_message_visibility_batch(
        QueueUrl=url,
        Entries=[{"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": 60} for n, handle in enumerate(handles)],
    )
    assert len(changed["Successful"]) == 10
    deleted = sqs.delete_message_batch(
        QueueUrl=url, Entries=[{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate([*handles[:9], "x"])]
    )
    assert len(deleted["Successful"]) == 9
    assert [entry["Code"] for entry in deleted["Failed"]] == ["ReceiptHandleIsInvalid"]


def test_queue_and_what_is_set_on_it(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    assert sqs.get_queue_url(QueueName=name)["QueueUrl"] == url
    assert sqs.list_queues(QueueNamePrefix=name)["QueueUrls"] == [url]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"DelaySeconds": "5"})
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["DelaySeconds", "QueueArn"])["Attributes"] == {
        "DelaySeconds": "5",
        "QueueArn": PREFIX + name,
    }
    sqs.tag_queue(QueueUrl=url, Tags={"a": "1", "b": "2"})
    sqs.untag_queue(QueueUrl=url, TagKeys=["a"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "2"}
    sqs.add_permission(QueueUrl=url, Label="l", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    assert "Policy" in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    sqs.remove_permission(QueueUrl=url, Label="l")
    assert "Policy" not in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    sqs.send_message(QueueUrl=url, MessageBody="a", DelaySeconds=0)
    sqs.purge_queue(QueueUrl=url)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    sqs.delete_queue(QueueUrl=url)
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName=name)


def test_dead_letters_and_their_way_back(sqs: Any, name: str) -> None:
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    policy = {"deadLetterTargetArn": f"{PREFIX}{name}-dead", "maxReceiveCount": 1}
    source = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(policy)})["QueueUrl"]
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [source]
    sqs.send_message(QueueUrl=source, MessageBody="poison")
    sqs.receive_message(QueueUrl=source, VisibilityTimeout=0)
    assert "Messages" not in sqs.receive_message(QueueUrl=source)
    task = sqs.start_message_move_task(SourceArn=f"{PREFIX}{name}-dead")
    wait_until(lambda: _status(sqs, f"{PREFIX}{name}-dead") == "COMPLETED")
    assert sqs.receive_message(QueueUrl=source, WaitTimeSeconds=5)["Messages"][0]["Body"] == "poison"
    with pytest.raises(sqs.exceptions.ClientError, match="Only active tasks can be cancelled"):
        sqs.cancel_message_move_task(TaskHandle=task["TaskHandle"])


def test_move_task_is_cancelled(sqs: Any, name: str) -> None:
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    policy = {"deadLetterTargetArn": f"{PREFIX}{name}-dead", "maxReceiveCount": 1}
    sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(policy)})
    sqs.send_message_batch(QueueUrl=dead, Entries=[{"Id": str(n), "MessageBody": "x"} for n in range(10)])
    task = sqs.start_message_move_task(
        SourceArn=f"{PREFIX}{name}-dead", DestinationArn=PREFIX + name, MaxNumberOfMessagesPerSecond=1
    )
    handle = json.loads(base64.b64decode(task["TaskHandle"], validate=True))
    assert handle == {"taskId": str(UUID(handle["taskId"])), "sourceArn": f"{PREFIX}{name}-dead"}
    assert sqs.cancel_message_move_task(TaskHandle=task["TaskHandle"])["ApproximateNumberOfMessagesMoved"] < 10
    assert _status(sqs, f"{PREFIX}{name}-dead").startswith("CANCEL")


def _status(sqs: Any, arn: str) -> str:
    return str(sqs.list_message_move_tasks(SourceArn=arn)["Results"][0]["Status"])


def test_fifo_order_groups_and_duplicates(sqs: Any, name: str) -> None:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    url = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=attributes)["QueueUrl"]
    for body in ("a1", "b1", "a2", "a1"):
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=body[0])
    first = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, ReceiveRequestAttemptId="try")["Messages"]
    assert sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, ReceiveRequestAttemptId="try")["Messages"] == first
    assert [message["Body"] for message in first] == ["a1"]
    rest = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in rest] == ["b1"]  # the group of a1 is locked
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first[0]["ReceiptHandle"])
    assert [m["Body"] for m in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]] == ["a2"]


def test_message_of_a_mebibyte(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    body = "é" * 524_288
    sqs.send_message(QueueUrl=url, MessageBody=body)
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == body
    with pytest.raises(sqs.exceptions.ClientError, match="Message must be shorter than 1048576 bytes"):
        sqs.send_message(QueueUrl=url, MessageBody=body + "x")


def test_batch_of_a_mebibyte(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    entries = [{"Id": str(n), "MessageBody": "x" * 104_857} for n in range(10)]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    entries[0]["MessageBody"] += "x" * 7
    with pytest.raises(sqs.exceptions.BatchRequestTooLong):
        sqs.send_message_batch(QueueUrl=url, Entries=entries)


def test_long_poll_wakes_at_once(sqs: Any, shared_broker: BrokerProcess, name: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    woken: list[tuple[float, list[Any]]] = []
    waiter = client_of(shared_broker.url)

    def wait() -> None:
        answer = waiter.receive_message(QueueUrl=url, WaitTimeSeconds=20)
        woken.append((time.monotonic(), answer.get("Messages", [])))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: shared_broker.metric("headrace_polls_waiting") == 1)
    sent_at = time.monotonic()
    sqs.send_message(QueueUrl=url, MessageBody="now")
    thread.join(PATIENCE_S)
    waiter.close()
    assert [message["Body"] for message in woken[0][1]] == ["now"]
    assert woken[0][0] - sent_at < 15  # by itself it ends after 20 s


def test_list_queues_in_pages(sqs: Any, name: str) -> None:
    urls = [sqs.create_queue(QueueName=f"{name}-{n}")["QueueUrl"] for n in range(5)]
    pages = sqs.get_paginator("list_queues").paginate(QueueNamePrefix=name, PaginationConfig={"PageSize": 2})
    assert [url for page in pages for url in page["QueueUrls"]] == urls


# --- errors, by the classes that users catch ---


def test_errors_are_of_the_class_that_users_catch(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "1"})["QueueUrl"]
    errors = sqs.exceptions
    entry = {"Id": "a", "MessageBody": "x"}
    for error, call, parameters in (
        (errors.QueueNameExists, sqs.create_queue, {"QueueName": name, "Attributes": {"DelaySeconds": "2"}}),
        (errors.QueueDoesNotExist, sqs.send_message, {"QueueUrl": url + "-nope", "MessageBody": "x"}),
        (errors.ReceiptHandleIsInvalid, sqs.delete_message, {"QueueUrl": url, "ReceiptHandle": "x"}),
        (errors.EmptyBatchRequest, sqs.send_message_batch, {"QueueUrl": url, "Entries": []}),
        (errors.TooManyEntriesInBatchRequest, sqs.send_message_batch, {"QueueUrl": url, "Entries": [entry] * 11}),
        (errors.BatchEntryIdsNotDistinct, sqs.send_message_batch, {"QueueUrl": url, "Entries": [entry] * 2}),
        (errors.InvalidBatchEntryId, sqs.send_message_batch, {"QueueUrl": url, "Entries": [{**entry, "Id": "a b"}]}),
        (errors.OverLimit, sqs.add_permission, {"QueueUrl": url, "Label": "l", "AWSAccountIds": ["111111111111"],
                                                "Actions": ["SendMessage"] * 8}),
        (errors.ResourceNotFoundException, sqs.start_message_move_task, {"SourceArn": PREFIX + "nope"}),
    ):  # fmt: skip
        with pytest.raises(error):
            call(**parameters)
    for code, call, parameters in (
        ("InvalidMessageContents", sqs.send_message, {"QueueUrl": url, "MessageBody": "\ufffe"}),
        ("InvalidAttributeName", sqs.get_queue_attributes, {"QueueUrl": url, "AttributeNames": ["Colour"]}),
        ("InvalidAttributeName", sqs.set_queue_attributes, {"QueueUrl": url, "Attributes": {"QueueArn": "x"}}),
        ("InvalidAttributeValue", sqs.set_queue_attributes, {"QueueUrl": url, "Attributes": {"DelaySeconds": "901"}}),
        ("AWS.SimpleQueueService.NonExistentQueue", sqs.purge_queue, {"QueueUrl": "http://localhost/"}),
        ("AWS.SimpleQueueService.NonExistentQueue", sqs.get_queue_attributes, {"QueueUrl": "no-such-queue"}),
        ("InvalidParameterValue", sqs.create_queue, {"QueueName": "a b"}),
        ("InvalidParameterValue", sqs.receive_message, {"QueueUrl": url, "MaxNumberOfMessages": 11}),
        ("MissingParameter", sqs.send_message, {"QueueUrl": url, "MessageBody": ""}),
    ):
        with pytest.raises(errors.ClientError) as raised:
            call(**parameters)
        assert raised.value.response["Error"]["Code"] == code


def test_visibility_of_a_fifo_message_that_is_not_in_flight(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="g", MessageDeduplicationId="d")
    handle = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"][0]["ReceiptHandle"]
    with pytest.raises(sqs.exceptions.ClientError, match="The receipt handle has expired"):
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=1)


def test_cool_downs_of_a_broker_as_it_comes(own_broker: BrokerProcess) -> None:
    sqs = client_of(own_broker.url)
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    sqs.purge_queue(QueueUrl=url)
    with pytest.raises(sqs.exceptions.PurgeQueueInProgress):
        sqs.purge_queue(QueueUrl=url)
    sqs.delete_queue(QueueUrl=url)
    with pytest.raises(sqs.exceptions.QueueDeletedRecently):
        sqs.create_queue(QueueName="q")
    sqs.close()


# --- the process ---


def test_messages_leases_and_receipts_outlive_a_kill(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with broker(data) as running:
        sqs = client_of(running.url)
        url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "600"}, tags={"a": "b"})["QueueUrl"]
        sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": f"m{n}"} for n in range(10)])
        held = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=4)["Messages"]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=held[0]["ReceiptHandle"])
        sqs.close()
        running.signal(signal.SIGKILL)
        running.wait_end()
    with broker(data) as running:
        sqs = client_of(running.url)
        url = sqs.get_queue_url(QueueName="q")["QueueUrl"]
        assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "b"}
        free = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        assert {m["Body"] for m in free} == {f"m{n}" for n in range(10)} - {m["Body"] for m in held}
        for message in held[1:]:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessagesNotVisible"])
        assert counts["Attributes"] == {"ApproximateNumberOfMessagesNotVisible": "6"}
        sqs.close()


KEYS = """
[[principals]]
name = "orders"
keys = [{ id = "AKIAORDERS0000000001", secret = "a secret of at least sixteen characters" }]
"""


def test_keys_are_asked_for_and_a_url_can_be_presigned(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS)
    keys.chmod(0o600)
    credentials: dict[str, Any] = {
        "aws_access_key_id": "AKIAORDERS0000000001",
        "aws_secret_access_key": "a secret of at least sixteen characters",
    }
    with broker(tmp_path / "data", "--keys", str(keys)) as running:
        sqs, unknown = client_of(running.url, **credentials), client_of(running.url)
        url = sqs.create_queue(QueueName="q")["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="a")
        with pytest.raises(unknown.exceptions.ClientError, match="InvalidClientTokenId"):
            unknown.list_queues()
        presigning = client_of(running.url, **credentials, config=Config(signature_version="v4"))
        signer = presigning._request_signer
        action = f"{url}?Action=ReceiveMessage&AttributeName.1=SenderId"
        request = {"method": "GET", "url": action, "body": b"", "headers": {}, "context": {}}
        presigned = signer.generate_presigned_url(request, "ReceiveMessage", expires_in=60)
        status, body = running.get(presigned.removeprefix(running.url))
        assert status == 200
        assert b"<Body>a</Body>" in body
        assert b"<Value>orders</Value>" in body
        assert running.get(action.removeprefix(running.url))[0] == 403
        for client in (sqs, unknown, presigning):
            client.close()


def test_python_booleans_are_accepted_as_attributes(sqs: Any, name: str) -> None:
    attributes = {"FifoQueue": str(True), "ContentBasedDeduplication": str(True), "VisibilityTimeout": "030"}
    url = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=attributes)["QueueUrl"]
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(attributes))["Attributes"]
    assert shown == {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "30"}
    assert sqs.create_queue(QueueName=f"{name}.fifo", Attributes=shown)["QueueUrl"] == url


def test_attribute_names_beyond_ascii_and_the_star(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    attributes = {"attr.1øßä": {"DataType": "String", "StringValue": "x"}}
    sent = sqs.send_message(QueueUrl=url, MessageBody="a", MessageAttributes=attributes)
    message = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["*"])["Messages"][0]
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    control = {"attr": {"DataType": "String", "StringValue": "\x01"}}
    with pytest.raises(sqs.exceptions.ClientError, match="InvalidParameterValue"):
        sqs.send_message(QueueUrl=url, MessageBody="a", MessageAttributes=control)


def test_sequence_numbers_rise(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    entries = [
        {"Id": str(n), "MessageBody": "a", "MessageGroupId": "g", "MessageDeduplicationId": str(n)} for n in range(3)
    ]
    sent = [e["SequenceNumber"] for e in sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]]
    received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    assert [message["Attributes"]["SequenceNumber"] for message in received] == sent == sorted(set(sent))
    assert all(len(number) == 20 and number.startswith("188") for number in sent)


def test_permission_of_an_unknown_label_cannot_be_removed(sqs: Any, name: str) -> None:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    with pytest.raises(sqs.exceptions.ClientError) as raised:
        sqs.remove_permission(QueueUrl=url, Label="nope")
    assert raised.value.response["Error"]["Code"] == "InvalidParameterValue"
    message = raised.value.response["Error"]["Message"]
    assert message == "Value nope for parameter Label is invalid. Reason: can't find label."


def test_query_requests_of_http_clients(shared_broker: BrokerProcess, name: str) -> None:
    url = client_of(shared_broker.url).create_queue(QueueName=name)["QueueUrl"]
    with httpx.Client(headers={"Accept": "application/json"}) as http:
        sent = http.get(url, params={"Action": "SendMessage", "MessageBody": "a"}).json()
        assert sent["SendMessageResponse"]["SendMessageResult"]["MessageId"]
        received = http.get(url, params={"Action": "ReceiveMessage"}).json()
        assert received["ReceiveMessageResponse"]["ReceiveMessageResult"]["messages"][0]["Body"] == "a"
        refused = http.get(url, params={"Action": "ListQueues"})
        message = "The action ListQueues is not valid for this endpoint."
        assert (refused.status_code, refused.json()["Error"]["Message"]) == (400, message)
        missing = http.get(url)
        assert (missing.status_code, missing.text) == (404, "<UnknownOperationException/>")
    empty = httpx.get(url, params={"Action": "ReceiveMessage"})
    assert "<ReceiveMessageResult/>" in empty.text


def test_queues_of_two_regions_have_two_urls(shared_broker: BrokerProcess, name: str) -> None:
    us, eu = (client_of(shared_broker.url, region_name=region) for region in ("us-east-1", "eu-west-1"))
    us_url, eu_url = (client.create_queue(QueueName=name)["QueueUrl"] for client in (us, eu))
    assert us_url == f"{shared_broker.url}/000000000000/{name}"
    assert eu_url == f"{shared_broker.url}/queue/eu-west-1/000000000000/{name}"
    eu.send_message(QueueUrl=eu_url, MessageBody="eu")
    assert "Messages" not in us.receive_message(QueueUrl=us_url)
    assert eu.receive_message(QueueUrl=eu_url)["Messages"][0]["Body"] == "eu"


def test_form_of_queue_urls_is_a_setting(tmp_path: Path) -> None:
    with broker(tmp_path / "data", "--queue-urls", "standard") as running:
        port = running.url.rpartition(":")[2]
        client = client_of(f"http://localhost:{port}", region_name="eu-west-1")
        url = client.create_queue(QueueName="q")["QueueUrl"]
        assert url == f"http://sqs.eu-west-1.localhost:{port}/000000000000/q"
        client.send_message(QueueUrl=url, MessageBody="a")
        short = f"http://localhost:{port}/000000000000/q"
        assert client.receive_message(QueueUrl=short)["Messages"][0]["Body"] == "a"
