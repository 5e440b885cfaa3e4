from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import pytest

from tests.sqs.harness import Harness, refused

PREFIX = "arn:aws:sqs:us-east-1:000000000000:"
DEAD, SOURCE, OTHER = PREFIX + "dead", PREFIX + "source", PREFIX + "other"


@pytest.fixture
def urls(sqs: Any) -> dict[str, str]:
    """A dead-letter queue with three dead letters, its source, another queue."""
    policy = json.dumps({"deadLetterTargetArn": DEAD, "maxReceiveCount": 1})
    urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("dead", "other")}
    urls["source"] = sqs.create_queue(QueueName="source", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    for body in ("a", "b", "c"):
        sqs.send_message(QueueUrl=urls["source"], MessageBody=body)
    for _ in range(2):
        sqs.receive_message(QueueUrl=urls["source"], MaxNumberOfMessages=10, VisibilityTimeout=0)
    return urls


def bodies(sqs: Any, url: str) -> list[str]:
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", [])
    return sorted(message["Body"] for message in messages)


def step(harness: Harness, ms: int = 1_000) -> None:
    for _ in range(10):
        harness.advance(ms // 10)


def test_messages_go_back_to_where_they_came_from(harness: Harness, sqs: Any, urls: dict[str, str]) -> None:
    sqs.set_queue_attributes(QueueUrl=urls["source"], Attributes={"RedrivePolicy": json.dumps({
        "deadLetterTargetArn": DEAD, "maxReceiveCount": 1000})})  # fmt: skip
    assert bodies(sqs, urls["dead"]) == ["a", "b", "c"]
    handle = sqs.start_message_move_task(SourceArn=DEAD)["TaskHandle"]
    decoded = json.loads(base64.b64decode(handle, validate=True))
    assert decoded == {"taskId": str(UUID(decoded["taskId"])), "sourceArn": DEAD}
    step(harness)
    assert bodies(sqs, urls["source"]) == ["a", "b", "c"]
    task = sqs.list_message_move_tasks(SourceArn=DEAD)["Results"][0]
    assert task == {
        "Status": "COMPLETED",
        "SourceArn": DEAD,
        "ApproximateNumberOfMessagesMoved": 3,
        "ApproximateNumberOfMessagesToMove": 3,
        "StartedTimestamp": 1_700_000_000_000,
    }


def test_messages_go_where_they_are_sent_at_a_rate(harness: Harness, sqs: Any, urls: dict[str, str]) -> None:
    task = {"SourceArn": DEAD, "DestinationArn": OTHER, "MaxNumberOfMessagesPerSecond": 1}
    handle = sqs.start_message_move_task(**task)["TaskHandle"]
    listed = sqs.list_message_move_tasks(SourceArn=DEAD, MaxResults=10)["Results"]
    assert len(listed) == 1
    assert listed[0]["TaskHandle"] == handle
    assert listed[0]["Status"] == "RUNNING"
    assert listed[0]["DestinationArn"] == OTHER
    assert listed[0]["MaxNumberOfMessagesPerSecond"] == 1
    step(harness, 10_000)
    assert bodies(sqs, urls["other"]) == ["a", "b", "c"]
    assert "TaskHandle" not in sqs.list_message_move_tasks(SourceArn=DEAD)["Results"][0]


def test_task_can_be_cancelled(harness: Harness, sqs: Any, urls: dict[str, str]) -> None:
    task = {"SourceArn": DEAD, "DestinationArn": OTHER, "MaxNumberOfMessagesPerSecond": 1}
    handle = sqs.start_message_move_task(**task)["TaskHandle"]
    moved = sqs.cancel_message_move_task(TaskHandle=handle)["ApproximateNumberOfMessagesMoved"]
    step(harness, 10_000)
    assert len(bodies(sqs, urls["other"])) == moved
    assert sqs.list_message_move_tasks(SourceArn=DEAD)["Results"][0]["Status"] in ("CANCELLED", "CANCELLING")
    assert refused(sqs.cancel_message_move_task, TaskHandle=handle).status == 400


def test_counts_of_a_task_are_those_moved_by_then(harness: Harness, sqs: Any, urls: dict[str, str]) -> None:
    task = {"SourceArn": DEAD, "DestinationArn": OTHER, "MaxNumberOfMessagesPerSecond": 1}
    handle = sqs.start_message_move_task(**task)["TaskHandle"]

    def listed() -> tuple[str, int, int, bool]:
        entry = sqs.list_message_move_tasks(SourceArn=DEAD)["Results"][0]
        moved, to_move = (entry[f"ApproximateNumberOfMessages{word}"] for word in ("Moved", "ToMove"))
        return entry["Status"], moved, to_move, "TaskHandle" in entry

    assert listed() == ("RUNNING", 0, 3, True)
    step(harness, 2_000)
    assert listed() == ("RUNNING", 2, 3, True)  # the first step moves one, a step a second later the next
    assert len(bodies(sqs, urls["other"])) == 2
    assert sqs.cancel_message_move_task(TaskHandle=handle)["ApproximateNumberOfMessagesMoved"] == 2
    step(harness, 5_000)
    assert listed() == ("CANCELLED", 2, 3, False)
    assert len(bodies(sqs, urls["other"])) == 2
    assert len(bodies(sqs, urls["dead"])) == 1


def test_task_without_its_destination_fails_with_its_counts(harness: Harness, sqs: Any, urls: dict[str, str]) -> None:
    sqs.start_message_move_task(SourceArn=DEAD, DestinationArn=OTHER, MaxNumberOfMessagesPerSecond=1)
    step(harness, 2_000)
    sqs.delete_queue(QueueUrl=urls["other"])
    step(harness, 2_000)
    entry = sqs.list_message_move_tasks(SourceArn=DEAD)["Results"][0]
    assert (entry["Status"], entry["ApproximateNumberOfMessagesMoved"]) == ("FAILED", 2)
    assert entry["FailureReason"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert "TaskHandle" not in entry


def test_one_task_a_source(sqs: Any, urls: dict[str, str]) -> None:
    task = {"SourceArn": DEAD, "DestinationArn": OTHER, "MaxNumberOfMessagesPerSecond": 1}
    sqs.start_message_move_task(**task)
    seen = refused(sqs.start_message_move_task, **task)
    assert (seen.code, seen.status) == ("InvalidParameterValue", 400)
    assert seen.message.startswith("There is already a task running.")


def test_source_must_be_a_dead_letter_queue(sqs: Any, urls: dict[str, str]) -> None:
    seen = refused(sqs.start_message_move_task, SourceArn=OTHER, DestinationArn=SOURCE)
    assert (seen.code, seen.message) == (
        "InvalidParameterValue",
        "Source queue must be configured as a Dead Letter Queue.",
    )


@pytest.mark.parametrize("parameter", ["SourceArn", "DestinationArn"])
def test_queues_must_exist(sqs: Any, urls: dict[str, str], parameter: str) -> None:
    task = {"SourceArn": DEAD, "DestinationArn": OTHER, parameter: PREFIX + "nope"}
    seen = refused(sqs.start_message_move_task, **task)
    assert (seen.code, seen.status, seen.exception) == (
        "ResourceNotFoundException",
        404,
        "ResourceNotFoundException",
    )
    assert seen.message == f"The resource that you specified for the {parameter} parameter doesn't exist."


@pytest.mark.parametrize("parameter", ["SourceArn", "DestinationArn"])
def test_arns_must_be_arns(sqs: Any, urls: dict[str, str], parameter: str) -> None:
    task = {"SourceArn": DEAD, "DestinationArn": OTHER, parameter: "dead"}
    assert refused(sqs.start_message_move_task, **task).code == "InvalidParameterValue"


@pytest.mark.parametrize("rate", [0, 501, -1])
def test_rate_out_of_range_is_refused(sqs: Any, urls: dict[str, str], rate: int) -> None:
    seen = refused(sqs.start_message_move_task, SourceArn=DEAD, MaxNumberOfMessagesPerSecond=rate)
    assert seen.code == "InvalidParameterValue"
    assert "Value for parameter MaxNumberOfMessagesPerSecond is invalid." in seen.message


@pytest.mark.parametrize("limit", [0, 11])
def test_list_size_out_of_range_is_refused(sqs: Any, urls: dict[str, str], limit: int) -> None:
    assert refused(sqs.list_message_move_tasks, SourceArn=DEAD, MaxResults=limit).code == "InvalidParameterValue"


def test_queue_without_tasks_lists_none(sqs: Any, urls: dict[str, str]) -> None:
    assert "Results" not in sqs.list_message_move_tasks(SourceArn=DEAD)
    assert refused(sqs.list_message_move_tasks, SourceArn=PREFIX + "nope").code == "ResourceNotFoundException"


def handle_of(task_id: Any, source: Any) -> str:
    return base64.b64encode(json.dumps({"taskId": task_id, "sourceArn": source}).encode()).decode()


@pytest.mark.parametrize(
    ("handle", "code", "message"),
    [
        ("foobared", "InvalidParameterValue", "Value for parameter TaskHandle is invalid."),
        ("é", "InvalidParameterValue", "Value for parameter TaskHandle is invalid."),
        (handle_of(1, DEAD), "InvalidParameterValue", "Value for parameter TaskHandle is invalid."),
        (
            handle_of("x", PREFIX + "nope"),
            "ResourceNotFoundException",
            "The resource that you specified for the SourceArn parameter doesn't exist.",
        ),
        (handle_of("x", DEAD), "ResourceNotFoundException", "Task does not exist."),
    ],
)
def test_wrong_handles_are_refused(sqs: Any, urls: dict[str, str], handle: str, code: str, message: str) -> None:
    seen = refused(sqs.cancel_message_move_task, TaskHandle=handle)
    assert (seen.code, seen.message) == (code, message)


def test_handle_that_names_another_queue_cancels_nothing(sqs: Any, urls: dict[str, str]) -> None:
    task = {"SourceArn": DEAD, "DestinationArn": OTHER, "MaxNumberOfMessagesPerSecond": 1}
    handle = sqs.start_message_move_task(**task)["TaskHandle"]
    forged = handle_of(json.loads(base64.b64decode(handle))["taskId"], OTHER)
    assert refused(sqs.cancel_message_move_task, TaskHandle=forged).message == "Task does not exist."
    assert sqs.list_message_move_tasks(SourceArn=DEAD)["Results"][0]["Status"] == "RUNNING"


def test_handle_and_source_are_required(harness: Harness) -> None:
    assert harness.json("CancelMessageMoveTask").code == "MissingParameter"
    assert harness.json("StartMessageMoveTask").code == "MissingParameter"
    assert harness.json("ListMessageMoveTasks").code == "MissingParameter"
