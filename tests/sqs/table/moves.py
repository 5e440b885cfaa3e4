"""StartMessageMoveTask, CancelMessageMoveTask and ListMessageMoveTasks."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from tests.sqs.table.queues import redrive
from tests.sqs.table.rows import (
    ABSENT,
    ANY,
    API,
    GUIDE,
    JSON,
    MOVES,
    OURS,
    TEXTS,
    Advance,
    Call,
    Error,
    Matcher,
    Row,
    bodies,
    call,
    missing,
    queue,
    receive,
    refused,
    row,
    send,
)

DEAD: Final = (queue("d"), queue("o"), queue(VisibilityTimeout="0", RedrivePolicy=redrive("d", 1)))
"""A source `q`, its dead-letter queue `d`, another queue `o`."""

LETTERS: Final = (*DEAD, send("1"), send("2"), *(receive() for _ in range(4)))
"""Two dead letters."""


def start(source: str = "${arn:d}", **members: Any) -> Call:
    return call("StartMessageMoveTask", SourceArn=source, save="t", **members)


def listed(source: str = "${arn:d}", **members: Any) -> Call:
    return call("ListMessageMoveTasks", SourceArn=source, **members)


def cancel(handle: str = "${t.TaskHandle}") -> Call:
    return call("CancelMessageMoveTask", TaskHandle=handle)


def task_handle(task_id: str, source: str) -> str:
    return base64.b64encode(json.dumps({"taskId": task_id, "sourceArn": source}).encode()).decode()


def _handle_holds(value: Any) -> bool:
    decoded = json.loads(base64.b64decode(value))
    return set(decoded) == {"taskId", "sourceArn"} and len(decoded["taskId"]) == 36


def format_of(parameter: str) -> Error:
    return refused(
        f"You must use this format to specify the {parameter}: arn:<partition>:<service>:<region>:<account-id>:<resource-id>"
    )


def no_resource(parameter: str) -> Error:
    return Error(
        "ResourceNotFoundException",
        f"The resource that you specified for the {parameter} parameter doesn't exist.",
        404,
    )


NO_TASK: Final = Error("ResourceNotFoundException", "Task does not exist.", 404)
RATE: Final = refused(
    "Value for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: You must enter a number that's between 1 and 500."
)

START: Final = (
    row(
        "StartMessageMoveTask: to another queue",
        start(DestinationArn="${arn:o}"),
        {"TaskHandle": Matcher("base64 of taskId and sourceArn", _handle_holds)},
        MOVES + "test_basic_move_task_workflow",
        setup=LETTERS,
        then=[
            (Advance(2), {}),
            (receive(of="o", MaxNumberOfMessages=10), bodies("1", "2")),
            (receive(of="d"), bodies()),
            (
                listed(),
                {
                    "Results": [
                        {
                            "ApproximateNumberOfMessagesMoved": 2,
                            "ApproximateNumberOfMessagesToMove": 2,
                            "DestinationArn": "${arn:o}",
                            "SourceArn": "${arn:d}",
                            "StartedTimestamp": ANY,
                            "Status": "COMPLETED",
                            "TaskHandle": ABSENT,
                            "FailureReason": ABSENT,
                            "MaxNumberOfMessagesPerSecond": ABSENT,
                        }
                    ]
                },
            ),
        ],
    ),
    row(
        "StartMessageMoveTask: back to the source",
        start(),
        {},
        API + "StartMessageMoveTask: without a DestinationArn",
        setup=LETTERS,
        then=[
            (Advance(2), {}),
            (receive(VisibilityTimeout=60, MaxNumberOfMessages=10), bodies("1", "2")),
            (listed(), {"Results": [{"Status": "COMPLETED", "DestinationArn": ABSENT}]}),
        ],
    ),
    row(
        "StartMessageMoveTask: one message a second",
        start(DestinationArn="${arn:o}", MaxNumberOfMessagesPerSecond=1),
        {},
        MOVES + "test_move_task_with_throughput_limit",
        setup=[*LETTERS, send("3"), send("4"), *(receive() for _ in range(4))],
        then=[
            (Advance(1.5), {}),
            (
                listed(),
                {
                    "Results": [
                        {
                            "Status": "RUNNING",
                            "MaxNumberOfMessagesPerSecond": 1,
                            "ApproximateNumberOfMessagesToMove": 4,
                            "TaskHandle": "${t.TaskHandle}",
                        }
                    ]
                },
            ),
            (Advance(5), {}),
            (receive(of="o", MaxNumberOfMessages=10), bodies("1", "2", "3", "4")),
        ],
    ),
    row(
        "StartMessageMoveTask: an empty dead-letter queue",
        start(),
        {},
        OURS,
        setup=DEAD,
        then=[
            (Advance(1), {}),
            (listed(), {"Results": [{"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 0}]}),
        ],
    ),
    row(
        "StartMessageMoveTask: a message that was sent to the dead-letter queue by hand",
        start(MaxNumberOfMessagesPerSecond=93),
        {},
        GUIDE + "Troubleshooting dead-letter queues, CouldNotDetermineMessageSource; " + TEXTS + "MessageMoveTask)",
        setup=[*DEAD, send("by hand", to="d")],
        then=[
            (Advance(2), {}),
            (
                listed(),
                {
                    "Results": [
                        {
                            "Status": "FAILED",
                            "FailureReason": "CouldNotDetermineMessageSource",
                            "ApproximateNumberOfMessagesMoved": 0,
                            "ApproximateNumberOfMessagesToMove": 1,
                            "TaskHandle": ABSENT,
                        }
                    ]
                },
            ),
            (receive(of="d"), bodies("by hand")),
        ],
    ),
    row(
        "StartMessageMoveTask: the destination is deleted meanwhile",
        call("DeleteQueue", QueueUrl="${url:o}"),
        {},
        MOVES + "test_move_task_delete_destination_queue_while_running",
        setup=[*LETTERS, start(DestinationArn="${arn:o}", MaxNumberOfMessagesPerSecond=1)],
        then=[
            (Advance(5), {}),
            (
                listed(),
                {
                    "Results": [
                        {
                            "Status": "FAILED",
                            "FailureReason": "AWS.SimpleQueueService.NonExistentQueue",
                            "DestinationArn": "${arn:o}",
                            "ApproximateNumberOfMessagesToMove": 2,
                        }
                    ]
                },
            ),
        ],
    ),
    row(
        "StartMessageMoveTask: while another is running",
        start(DestinationArn="${arn:o}"),
        refused(
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
        ),
        MOVES + "test_start_multiple_move_tasks",
        setup=[*LETTERS, start(DestinationArn="${arn:o}", MaxNumberOfMessagesPerSecond=1)],
    ),
    row(
        "StartMessageMoveTask: after another was completed",
        start(DestinationArn="${arn:o}"),
        {},
        API + "StartMessageMoveTask",
        setup=[*LETTERS, start(DestinationArn="${arn:o}"), Advance(2)],
    ),
    row(
        "StartMessageMoveTask: from a queue that is nobody's dead-letter queue",
        start("${arn:o}", DestinationArn="${arn:d}"),
        refused("Source queue must be configured as a Dead Letter Queue."),
        MOVES + "test_source_needs_redrive_policy",
        setup=DEAD,
    ),
    row(
        "StartMessageMoveTask: to a queue that is not there",
        start(DestinationArn="${arn:nowhere}"),
        no_resource("DestinationArn"),
        MOVES + "test_destination_needs_to_exist",
        setup=DEAD,
    ),
    row(
        "StartMessageMoveTask: from a queue that is not there",
        start("${arn:nowhere}"),
        no_resource("SourceArn"),
        TEXTS + "StartMessageMoveTask): with inexisting SourceArn",
    ),
    row(
        "StartMessageMoveTask: from and to the same",
        start(DestinationArn="${arn:d}"),
        refused("Source queue arn and destination queue arn cannot be the same."),
        TEXTS + "StartMessageMoveTask): with same ARN",
        setup=DEAD,
    ),
    row(
        "StartMessageMoveTask: to a FIFO queue",
        start(DestinationArn="${arn:f.fifo}"),
        refused("The source queue and destination queue must be of the same queue type."),
        TEXTS + "StartMessageMoveTask): with invalid Source/Destination Queue Type",
        setup=[*DEAD, queue("f.fifo")],
    ),
    row(
        "StartMessageMoveTask: no source",
        call("StartMessageMoveTask"),
        missing("SourceArn"),
        TEXTS + "StartMessageMoveTask): without SourceArn",
    ),
    *(
        row(
            f"StartMessageMoveTask: the source {source!r}",
            start(source),
            format_of("SourceArn"),
            TEXTS + "StartMessageMoveTask): with empty SourceArn",
        )
        for source in ("", "invalid", "http://localhost:9324/000000000000/q")
    ),
    *(
        row(
            f"StartMessageMoveTask: the destination {destination!r}",
            start(DestinationArn=destination),
            format_of("DestinationArn"),
            TEXTS + "StartMessageMoveTask): with invalid DestinationArn",
            setup=DEAD,
        )
        for destination in ("", "invalid")
    ),
    *(
        row(
            f"StartMessageMoveTask: {rate} messages a second",
            start(MaxNumberOfMessagesPerSecond=rate),
            RATE,
            TEXTS + "StartMessageMoveTask): with invalid MaxNumberOfMessagesPerSecond",
            setup=DEAD,
        )
        for rate in (-1, 0, 501)
    ),
    row(
        "StartMessageMoveTask: 500 messages a second",
        start(MaxNumberOfMessagesPerSecond=500),
        {},
        API + "StartMessageMoveTask",
        setup=DEAD,
    ),
    row(
        "StartMessageMoveTask: the rate as text",
        start(MaxNumberOfMessagesPerSecond=""),
        Error("MalformedInput", "STRING_VALUE can not be converted to an Integer"),
        TEXTS + "StartMessageMoveTask): with empty MaxNumberOfMessagesPerSecond",
        setup=DEAD,
        only=JSON,
    ),
)

CANCEL: Final = (
    row(
        "CancelMessageMoveTask: a running task",
        cancel(),
        {"ApproximateNumberOfMessagesMoved": ANY},
        MOVES + "test_move_task_cancel",
        setup=[*LETTERS, start(DestinationArn="${arn:o}", MaxNumberOfMessagesPerSecond=1)],
        then=[
            (Advance(2), {}),
            (
                listed(),
                {
                    "Results": [
                        {
                            "ApproximateNumberOfMessagesToMove": 2,
                            "DestinationArn": "${arn:o}",
                            "MaxNumberOfMessagesPerSecond": 1,
                            "SourceArn": "${arn:d}",
                            "Status": "CANCELLED",
                            "TaskHandle": ABSENT,
                        }
                    ]
                },
            ),
            (receive(of="d"), {"Messages": [ANY]}),
        ],
    ),
    row(
        "CancelMessageMoveTask: no handle",
        call("CancelMessageMoveTask"),
        missing("TaskHandle"),
        API + "CancelMessageMoveTask",
    ),
    *(
        row(
            f"CancelMessageMoveTask: the handle {text!r}",
            cancel(text),
            refused("Value for parameter TaskHandle is invalid."),
            MOVES + "test_cancel_with_invalid_task_handle",
        )
        for text in ("foobared", "e30=", "ä")
    ),
    row(
        "CancelMessageMoveTask: of a queue that is not there",
        cancel(
            task_handle("10f57157-fc38-4da9-a113-4de7e12d05dd", "arn:aws:sqs:us-east-1:878966065785:test-queue-123456")
        ),
        no_resource("SourceArn"),
        MOVES + "test_cancel_with_invalid_source_arn_in_task_handle",
    ),
    row(
        "CancelMessageMoveTask: a task that never was",
        cancel(task_handle("10f57157-fc38-4da9-a113-4de7e12d05aa", "arn:aws:sqs:us-east-1:000000000000:taskless")),
        NO_TASK,
        MOVES + "test_cancel_with_invalid_task_id_in_task_handle",
        setup=[call("CreateQueue", QueueName="taskless")],
    ),
)

LIST: Final = (
    row(
        "ListMessageMoveTasks: none",
        listed(),
        {"Results": ABSENT},
        API + "ListMessageMoveTasks",
        setup=DEAD,
    ),
    row(
        "ListMessageMoveTasks: one by default, the newest",
        listed(),
        {"Results": [{"DestinationArn": ABSENT}]},
        API + "ListMessageMoveTasks: MaxResults is 1 by default",
        setup=[*DEAD, start(DestinationArn="${arn:o}"), Advance(2), start(), Advance(2)],
    ),
    row(
        "ListMessageMoveTasks: ten, the newest first",
        listed(MaxResults=10),
        {"Results": [{"DestinationArn": ABSENT}, {"DestinationArn": "${arn:o}"}]},
        API + "ListMessageMoveTasks",
        setup=[*DEAD, start(DestinationArn="${arn:o}"), Advance(2), start(), Advance(2)],
    ),
    *(
        row(
            f"ListMessageMoveTasks: MaxResults {number}",
            listed(MaxResults=number),
            Error("InvalidParameterValue", Matcher("about MaxResults", lambda value: "MaxResults" in value)),
            API + "ListMessageMoveTasks: the upper limit is 10",
            setup=DEAD,
        )
        for number in (-1, 0, 11)
    ),
    row(
        "ListMessageMoveTasks: no source",
        call("ListMessageMoveTasks"),
        missing("SourceArn"),
        API + "ListMessageMoveTasks",
    ),
    row(
        "ListMessageMoveTasks: a source that is not there",
        listed("${arn:nowhere}"),
        no_resource("SourceArn"),
        API + "ListMessageMoveTasks: ResourceNotFoundException",
    ),
)

ROWS: Final[tuple[Row, ...]] = (*START, *CANCEL, *LIST)
