from __future__ import annotations

import pyarrow as pa

import headrace
from headrace.queue import limits as queue_limits
from headrace.stream.engine.operator import RejectedRows
from headrace.stream.runner.sink_set import late_entries
from tests.stream.runner.pipelines import counts, event, send, taken


def test_late_row_has_the_reason_behind_its_columns() -> None:
    [entry] = late_entries([RejectedRows(pa.table({"v": [1]}), "too late", "counts")], pipeline="p")
    assert entry.body == b'{"v":1,"_reason":"too late","_step":"counts"}'


def test_late_row_that_is_as_long_as_a_message_may_be_does_not_stop_the_pipeline(client: headrace.Client) -> None:
    pipeline = counts(late_queue="late")
    long = event(1) | {"k": ""}
    long["k"] = "x" * (queue_limits.MESSAGE_BYTES_MAX - 80)
    send(client, [event(10_000)])
    pipeline.run(client, until="idle")
    send(client, [long])
    assert pipeline.run(client, until="idle").late == 1
    [letter] = taken(client, "late")
    assert letter["body_size_bytes"] > queue_limits.MESSAGE_BYTES_MAX and "closed" in letter["reason"]
