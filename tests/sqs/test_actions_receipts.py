from __future__ import annotations

from typing import Any

import pytest

from headrace.queue.receipts import SIZE_BYTES
from headrace.sqs import receipts
from headrace.sqs.errors import Fault
from tests.sqs.harness import Harness, refused


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="q")["QueueUrl"])


@pytest.fixture
def fifo(sqs: Any) -> str:
    return str(
        sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true", "VisibilityTimeout": "30"})["QueueUrl"]
    )


def received(sqs: Any, url: str, *, body: str = "a", **more: Any) -> str:
    """The receipt handle of a message just sent and received."""
    sqs.send_message(QueueUrl=url, MessageBody=body, **more)
    return str(sqs.receive_message(QueueUrl=url)["Messages"][0]["ReceiptHandle"])


def test_deleted_message_does_not_come_back(harness: Harness, sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
    harness.advance(30_000)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)  # again: nothing happens


@pytest.mark.parametrize("handle", ["garbage", "Zm9v", "AAAA", "%", "é", "AAAABBBBCCCC=", " "])
def test_handle_that_is_none_is_refused(sqs: Any, url: str, handle: str) -> None:
    for call, more in ((sqs.delete_message, {}), (sqs.change_message_visibility, {"VisibilityTimeout": 1})):
        seen = refused(call, QueueUrl=url, ReceiptHandle=handle, **more)
        assert (seen.code, seen.exception) == ("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid")
        assert seen.message == f'The input receipt handle "{handle}" is not a valid receipt handle.'


def test_every_changed_letter_of_a_handle_is_noticed(harness: Harness) -> None:
    url = harness.create()
    harness.json("SendMessage", QueueUrl=url, MessageBody="a")
    handle = harness.json("ReceiveMessage", QueueUrl=url).json()["Messages"][0]["ReceiptHandle"]
    for place in range(len(handle)):
        other = "A" if handle[place] != "A" else "B"
        changed = handle[:place] + other + handle[place + 1 :]
        assert harness.json("DeleteMessage", QueueUrl=url, ReceiptHandle=changed).code == "ReceiptHandleIsInvalid"


def test_handle_of_another_queue_is_refused(sqs: Any, url: str) -> None:
    other = sqs.create_queue(QueueName="other")["QueueUrl"]
    seen = refused(sqs.delete_message, QueueUrl=other, ReceiptHandle=received(sqs, url))
    assert seen.code == "ReceiptHandleIsInvalid"


def test_handle_is_required(sqs: Any, url: str) -> None:
    seen = refused(sqs.delete_message, QueueUrl=url, ReceiptHandle="")
    assert (seen.code, seen.message) == ("MissingParameter", "The request must contain the parameter ReceiptHandle.")


def test_expired_handle_deletes_on_standard(harness: Harness, sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    harness.advance(30_000)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)


def test_expired_handle_is_refused_on_fifo(harness: Harness, sqs: Any, fifo: str) -> None:
    handle = received(sqs, fifo, MessageGroupId="g", MessageDeduplicationId="d")
    harness.advance(30_000)
    seen = refused(sqs.delete_message, QueueUrl=fifo, ReceiptHandle=handle)
    assert seen.code == "InvalidParameterValue"
    assert seen.message == (
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
    )


def test_visibility_counts_from_the_call(harness: Harness, sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    harness.advance(10_000)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=60)
    harness.advance(59_999)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    harness.advance(1)
    assert sqs.receive_message(QueueUrl=url)["Messages"]


def test_visibility_of_zero_shows_the_message_now(sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    assert sqs.receive_message(QueueUrl=url)["Messages"]


@pytest.mark.parametrize("timeout", [-1, 43_201])
def test_visibility_out_of_range_is_refused(sqs: Any, url: str, timeout: int) -> None:
    handle = received(sqs, url)
    seen = refused(sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=timeout)
    rule = "Must be between 0 and 43200."
    assert seen.message == f"Value {timeout} for parameter VisibilityTimeout is invalid. Reason: {rule}"


def test_visibility_beyond_twelve_hours_in_all_is_refused(harness: Harness, sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    harness.advance(1_000)
    seen = refused(sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=43_200)
    assert seen.message == (
        "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond "
        "the limit [43200 seconds]"
    )


def test_message_whose_timeout_has_run_out_is_hidden_again_on_standard(harness: Harness, sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    harness.advance(30_000)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=1)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    harness.advance(1_000)
    assert sqs.receive_message(QueueUrl=url)["Messages"]


def test_visibility_of_a_message_not_in_flight_is_refused_on_fifo(harness: Harness, sqs: Any, fifo: str) -> None:
    handle = received(sqs, fifo, MessageGroupId="g", MessageDeduplicationId="d")
    harness.advance(30_000)
    seen = refused(sqs.change_message_visibility, QueueUrl=fifo, ReceiptHandle=handle, VisibilityTimeout=1)
    assert seen.code == "InvalidParameterValue"
    assert seen.message.endswith("The receipt handle has expired.")


def test_visibility_of_a_deleted_message_is_refused(sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
    seen = refused(sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=1)
    assert seen.code == "InvalidParameterValue"
    assert "Message does not exist or is not available for visibility timeout change" in seen.message


def test_visibility_is_required(harness: Harness) -> None:
    answer = harness.json("ChangeMessageVisibility", QueueUrl=harness.create(), ReceiptHandle="A" * 40)
    assert (answer.code, answer.message) == (
        "MissingParameter",
        "The request must contain the parameter VisibilityTimeout.",
    )


# --- batches ---


def test_delete_batch_answers_each_entry(harness: Harness, sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    entries = [{"Id": "good", "ReceiptHandle": handle}, {"Id": "bad", "ReceiptHandle": "garbage"}]
    answer = sqs.delete_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert answer["Failed"] == [
        {
            "Id": "bad",
            "SenderFault": True,
            "Code": "ReceiptHandleIsInvalid",
            "Message": 'The input receipt handle "garbage" is not a valid receipt handle.',
        }
    ]
    harness.advance(30_000)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def test_delete_batch_on_fifo_refuses_expired_handles(harness: Harness, sqs: Any, fifo: str) -> None:
    handle = received(sqs, fifo, MessageGroupId="g", MessageDeduplicationId="d")
    harness.advance(30_000)
    answer = sqs.delete_message_batch(QueueUrl=fifo, Entries=[{"Id": "a", "ReceiptHandle": handle}])
    assert answer["Failed"][0]["Code"] == "InvalidParameterValue"
    assert "The receipt handle has expired." in answer["Failed"][0]["Message"]


def test_visibility_batch_answers_each_entry(sqs: Any, url: str) -> None:
    handle = received(sqs, url)
    entries = [
        {"Id": "good", "ReceiptHandle": handle, "VisibilityTimeout": 0},
        {"Id": "late", "ReceiptHandle": handle, "VisibilityTimeout": 43_201},
        {"Id": "none", "ReceiptHandle": handle},
        {"Id": "bad", "ReceiptHandle": "garbage", "VisibilityTimeout": 0},
    ]
    answer = sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert {entry["Id"]: entry["Code"] for entry in answer["Failed"]} == {
        "late": "InvalidParameterValue",
        "none": "MissingParameter",
        "bad": "ReceiptHandleIsInvalid",
    }
    assert sqs.receive_message(QueueUrl=url)["Messages"]


@pytest.mark.parametrize("operation", ["delete_message_batch", "change_message_visibility_batch"])
def test_batches_in_which_nothing_is_right_change_nothing(sqs: Any, url: str, operation: str) -> None:
    answer = getattr(sqs, operation)(QueueUrl=url, Entries=[{"Id": "a", "ReceiptHandle": "garbage"}])
    assert not answer.get("Successful")
    assert [entry["Id"] for entry in answer["Failed"]] == ["a"]


@pytest.mark.parametrize("operation", ["delete_message_batch", "change_message_visibility_batch"])
@pytest.mark.parametrize(
    ("count", "ids", "shape"),
    [
        (0, "", "EmptyBatchRequest"),
        (11, "", "TooManyEntriesInBatchRequest"),
        (2, "same", "BatchEntryIdsNotDistinct"),
        (1, "a:b", "InvalidBatchEntryId"),
    ],
)
def test_batch_that_is_wrong_as_a_whole_is_refused(
    sqs: Any, url: str, operation: str, count: int, ids: str, shape: str
) -> None:
    entries = [{"Id": ids or str(n), "ReceiptHandle": "AAAA", "VisibilityTimeout": 1} for n in range(count)]
    if operation == "delete_message_batch":
        entries = [{key: value for key, value in entry.items() if key != "VisibilityTimeout"} for entry in entries]
    seen = refused(getattr(sqs, operation), QueueUrl=url, Entries=entries)
    assert (seen.code, seen.exception) == (f"AWS.SimpleQueueService.{shape}", shape)


# --- handles ---


def test_handle_has_one_spelling() -> None:
    receipt = bytes(range(225, 225 + SIZE_BYTES))
    handle = receipts.encode(receipt)
    assert receipts.decode(handle) == receipt
    assert "-" in handle or "_" in handle
    twins = (handle.replace("-", "+"), handle.replace("_", "/"))
    for other in (handle + "\n", " " + handle, handle[:-1], handle + "=", handle[:-1] + "=", handle + "====", *twins):
        if other != handle:
            with pytest.raises(Fault):
                receipts.decode(other)
