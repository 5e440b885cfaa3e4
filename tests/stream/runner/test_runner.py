from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import headrace
import headrace.stream as hs
from headrace.errors import InvalidParameter, QueueNotFound
from headrace.stream.errors import DefinitionChanged, TooManyFailures, UnsupportedQuery
from headrace.stream.result import Report
from headrace.stream.runner import admin, runner, state_keys
from headrace.stream.runner.admin import reset
from headrace.stream.runner.store import BrokerStore, Control, RetryPolicy, write_control
from tests.patience import PATIENCE_S
from tests.stream.runner.pipelines import BASE, copied, counted, counts, event, expected_counts, send, taken


def test_pipeline_reads_counts_and_writes(client: headrace.Client) -> None:
    rows = [event(number) for number in range(1_000)]
    send(client, rows)
    result = counts().run(client, until="end")
    assert (result.rows_in, result.rows_out, result.late, result.dead) == (1_000, 30, 0, 0)
    assert counted(taken(client, "out")) == expected_counts(rows)
    assert client.queue("events").counts().deleted == 1_000
    assert client.queue("events").counts().in_flight == 0


def test_a_run_takes_the_plan_as_it_was_compiled_when_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = hs.pipeline("doubled", hs.memory("n bigint", [[{"n": 1}]]).sql("SELECT n * 2 AS n FROM input"))

    def refuse(_: object) -> None:
        raise AssertionError("it was compiled again")

    monkeypatch.setattr(runner, "compile_plan", refuse)
    assert doubled.run().to_arrow().to_pylist() == [{"n": 2}]


def test_duckdb_begins_in_the_midst_of_a_run_where_kernels_cannot_go_on() -> None:
    rows = hs.memory("n bigint", [[{"n": 1}], [{"n": 9 * 10**18}]])  # thousandths of the second do not fit 64 bits
    found = hs.pipeline("scaled", rows.sql("SELECT 0.908 * n AS m FROM input")).run(batch_rows=1)
    assert found.to_arrow()["m"].to_pylist() == [Decimal("0.908"), Decimal("8172000000000000000.000")]


def test_windows_stay_open_until_the_watermark_passes(client: headrace.Client) -> None:
    send(client, [event(number) for number in range(1_000)])
    assert counts().run(client, until="idle").rows_out == 27  # the last window ends at 100 s; the watermark is at 97.9


def test_end_closes_windows_also_behind_a_slow_sink(client: headrace.Client) -> None:
    """The run was over when the delivery was noted: with the last windows still open."""
    rows = [event(number) for number in range(1_000)]
    send(client, rows)
    stop = threading.Event()
    slow = hs.callback(lambda _number, _rows: None if stop.wait(0.3) else None)  # noqa: RUF034 (a pause)
    result = counts(sink=[hs.queue("out"), slow]).run(client, until="end")
    assert result.rows_out == 30
    assert counted(taken(client, "out")) == expected_counts(rows)


def test_pipeline_goes_on_where_it_was(client: headrace.Client) -> None:
    rows = [event(number) for number in range(900)]
    for start in range(0, 900, 300):
        send(client, rows[start : start + 300])
        counts().run(client, until="idle", batch_rows=70)
    counts().run(client, until="end")
    assert counted(taken(client, "out")) == expected_counts(rows)


def test_late_rows_go_to_their_queue_with_the_reason(client: headrace.Client) -> None:
    send(client, [event(500)])
    counts(late_queue="late").run(client, until="idle")
    send(client, [event(1)])
    result = counts(late_queue="late").run(client, until="idle")
    assert result.late == 1
    [late] = taken(client, "late")
    assert late["v"] == 1 and "watermark" in late["_reason"]


def test_late_rows_without_a_queue_are_counted(client: headrace.Client) -> None:
    send(client, [event(500)])
    counts().run(client, until="idle")
    send(client, [event(1)])
    assert counts().run(client, until="idle").late == 1


def test_poison_messages_become_dead_letters_and_the_rest_goes_on(client: headrace.Client) -> None:
    send(client, [event(1), b"junk", event(2), b'{"k": 7}', b"\xff\xfe"])
    ids = [message.id for message in client.queue("events").peek(5)]
    result = copied(dead_letter_queue="dead").run(client, until="idle")
    assert (result.rows_out, result.dead) == (2, 3)
    letters = taken(client, "dead")
    assert [letter["message_id"] for letter in letters] == [ids[1], ids[3], ids[4]]
    assert letters[0]["body"] == "junk" and letters[2]["body_base64"] == "//4="
    assert all(letter["pipeline"] == "copied" and letter["source"] == "events" for letter in letters)


def test_row_that_fails_in_a_step_is_dead_as_its_message(client: headrace.Client) -> None:
    events = hs.queue("events", schema="k string, v bigint")

    def divided(row: dict[str, Any]) -> dict[str, Any]:
        return {"q": 100 // row["v"]}

    pipeline = hs.pipeline(
        "divide", events.map(divided, schema="q bigint"), sink=hs.queue("out"), dead_letter_queue="dead"
    )
    send(client, [{"k": "a", "v": 5}, {"k": "b", "v": 0}, {"k": "c", "v": 10}])
    assert pipeline.run(client, until="idle").dead == 1
    assert [row["q"] for row in taken(client, "out")] == [20, 10]
    [letter] = taken(client, "dead")
    assert "ZeroDivisionError" in letter["reason"] and '"b"' in letter["body"]


def test_first_poison_message_stops_a_pipeline_without_dead_letters(client: headrace.Client) -> None:
    send(client, [event(1)])
    copied().run(client, until="idle")
    send(client, [event(2), b"junk"])
    with pytest.raises(TooManyFailures, match=r"dead_letter_queue=.copied-dead"):
        copied().run(client, until="idle")
    assert len(taken(client, "out")) == 1, "nothing of the batch was committed"
    assert client.queue("events").counts().deleted == 1
    assert copied(dead_letter_queue="dead").run(client, until="idle").rows_out == 1, "it goes on where it was"


def test_too_many_poison_messages_stop_it(client: headrace.Client) -> None:
    send(client, [*([b"junk"] * 3), *(event(number) for number in range(7))])
    allowed = copied(dead_letter_queue="dead", failures_max=3, failures_share=0.1)
    assert allowed.run(client, until="idle").dead == 3
    send(client, [b"junk"])
    with pytest.raises(TooManyFailures) as stopped:
        allowed.run(client, until="idle")
    assert (stopped.value.failures, stopped.value.rows) == (4, 11)


def test_few_among_many_do_not_stop_it(client: headrace.Client) -> None:
    send(client, [*([b"junk"] * 3), *(event(number) for number in range(97))])
    assert copied(dead_letter_queue="dead", failures_max=2, failures_share=0.03).run(client, until="idle").dead == 3


def test_source_queue_must_be_there(client: headrace.Client) -> None:
    with pytest.raises(QueueNotFound, match="events"):
        copied().run(client, until="idle")


def test_source_that_says_so_is_made(client: headrace.Client) -> None:
    waiting = hs.queue("not-yet", schema="n bigint", create=True)
    assert hs.pipeline("early", waiting, sink=hs.queue("out")).run(client, until="idle").rows_in == 0
    assert client.queue("not-yet").counts().sent == 0


def test_pipeline_with_queues_needs_a_broker() -> None:
    with pytest.raises(UnsupportedQuery, match="no broker"):
        copied().run(until="idle")


def test_settings_out_of_range_are_refused(client: headrace.Client) -> None:
    with pytest.raises(InvalidParameter):
        copied().run(client, batch_rows=0)
    with pytest.raises(InvalidParameter):
        copied().run(client, batch_ms=-1)


def test_stateless_change_goes_on(client: headrace.Client) -> None:
    send(client, [event(1)])
    copied().run(client, until="idle")
    send(client, [event(2)])
    assert copied(where="v > 1").run(client, until="idle").rows_out == 1


def test_change_of_state_is_refused_and_nothing_is_lost(client: headrace.Client) -> None:
    send(client, [event(number) for number in range(50)])
    counts().run(client, until="idle")
    events = hs.queue("events", schema="k string, v bigint, ts timestamp").with_watermark("ts", delay="2 seconds")
    other = hs.sql("SELECT k, max(v) AS m FROM events GROUP BY tumble(ts, '10 seconds'), k", events=events)
    changed = hs.pipeline("counts", other, sink=hs.queue("out"))
    with pytest.raises(DefinitionChanged, match="aggregate-1"):
        changed.run(client, until="idle")
    assert changed.run(client, until="end", reset=True).rows_in == 0
    assert counts("another").run(client, until="idle").rows_in == 0


def test_reset_gives_claimed_messages_back_and_drops_state(client: headrace.Client) -> None:
    send(client, [event(number) for number in range(50)])
    counts().run(client, until="idle")
    client.queue("events").send(b"junk")
    with pytest.raises(TooManyFailures):
        counts().run(client, until="idle")
    assert client.queue("events").counts().in_flight == 1, "claimed, and not acknowledged"
    store = BrokerStore(client, state_keys.state_name("counts"), RetryPolicy(0, threading.Event()))
    assert reset(store, client, "counts") > 0
    assert client.queue("events").counts().visible == 1
    assert list(client.state(state_keys.state_name("counts"))) == [state_keys.OWNERS]
    with pytest.raises(admin.PipelineUnknown):
        admin.pipeline_status(client, "counts")


def test_reset_that_was_cut_short_is_asked_for_again(client: headrace.Client) -> None:
    from headrace.stream.runner.admin import _mark
    from headrace.stream.runner.definition import Definition

    send(client, [event(1)])
    counts().run(client, until="idle")
    store = BrokerStore(client, state_keys.state_name("counts"), RetryPolicy(0, threading.Event()))
    _mark(store, state_keys.state_name("counts"), Definition({}, {"events": "queue events"}, 8))
    with pytest.raises(DefinitionChanged, match="not finished"):
        counts().run(client, until="idle")
    send(client, [event(2)])
    assert counts().run(client, until="end", reset=True).rows_out == 1


def test_files_without_a_broker(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"k": ["a", "b", "a"], "v": [1, 2, 3]}), tmp_path / "rows.parquet")
    rows = hs.files(tmp_path / "rows.parquet")
    big = hs.sql("SELECT k, v * 2 AS w FROM rows WHERE v > 1", rows=rows)
    result = hs.pipeline("files", big).run()
    assert result.to_arrow().to_pylist() == [{"k": "b", "w": 4}, {"k": "a", "w": 6}]
    assert result.complete and "<td>6</td>" in result._repr_html_()


def test_finite_sources_close_their_windows(client: headrace.Client) -> None:
    rows = hs.memory("k string, ts timestamp", [[{"k": "a", "ts": BASE}]]).with_watermark("ts")
    n = hs.sql("SELECT k, count(*) AS n FROM rows GROUP BY tumble(ts, '1 hour'), k", rows=rows)
    result = hs.pipeline("memory", n).run(client)
    assert result.to_arrow().to_pylist() == [{"k": "a", "n": 1}]
    assert hs.pipeline("memory", n).run(client).rows_in == 0, "the source has ended, and the store knows"


def test_sinks_outside_the_store_get_every_batch_in_order(client: headrace.Client) -> None:
    got: list[tuple[int, int]] = []
    pipeline = copied(sink=[hs.callback(lambda number, rows: got.append((number, rows.num_rows))), hs.queue("out")])
    send(client, [event(number) for number in range(10)])
    pipeline.run(client, until="idle", batch_rows=10)
    send(client, [event(number) for number in range(5)])
    pipeline.run(client, until="idle")
    assert [number for number, _ in got] == list(range(1, len(got) + 1))
    assert sum(rows for _, rows in got) == 15
    assert len(taken(client, "out")) == 15
    assert client.state(state_keys.state_name("copied"), state_keys.OUTBOX) == {}


def test_batch_that_a_sink_did_not_take_comes_again_the_same(client: headrace.Client) -> None:
    got: list[tuple[int, list[Any]]] = []

    def refusing(number: int, rows: pa.Table) -> None:
        got.append((number, rows.to_pylist()))
        if len(got) == 1:
            raise OSError("not now")

    pipeline = copied(sink=hs.callback(refusing))
    send(client, [event(1), event(2)])
    with pytest.raises(OSError, match="not now"):
        pipeline.run(client, until="idle")
    assert client.queue("events").counts().deleted == 2, "the batch is kept in the store"
    pipeline.run(client, until="idle")
    assert got == [(1, [{"k": "b", "v": 1}, {"k": "c", "v": 2}])] * 2


def test_backfill_reads_files_first_then_the_queue(client: headrace.Client, tmp_path: Path) -> None:
    import json

    old = [event(number) for number in range(100)]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    new = [event(number) for number in range(100, 200)]
    send(client, new)
    result = counts().run(client, until="end", backfill=tmp_path / "old.jsonl")
    assert result.late == 0
    assert counted(taken(client, "out")) == expected_counts(old + new)
    assert counts().run(client, until="idle").rows_in == 0, "it remembers that the files are done"
    again = counts().run(client, until="idle", backfill=tmp_path / "old.jsonl")
    assert again.rows_in == 0, "started again with the same command it goes on"
    with pytest.raises(UnsupportedQuery, match="--reset"):
        counts().run(client, until="end", backfill=tmp_path / "other.jsonl")


def test_paused_pipeline_takes_nothing_until_it_is_resumed(client: headrace.Client) -> None:
    send(client, [event(1)])
    copied().run(client, until="idle")
    store = BrokerStore(client, state_keys.state_name("copied"), RetryPolicy(0, threading.Event()))
    write_control(store, "copied", Control(paused=True))
    stop, paused = threading.Event(), threading.Event()
    seen: list[Report] = []

    def watch(report: Report) -> None:
        seen.append(report)
        if report.paused:
            paused.set()

    send(client, [event(2)])
    runner = threading.Thread(target=copied().run, args=(client,), kwargs={"stop": stop, "on_progress": watch})
    runner.start()
    assert paused.wait(PATIENCE_S)
    assert len(taken(client, "out")) == 1
    write_control(store, "copied", Control())
    while len(taken(client, "out")) < 2:
        assert not stop.wait(0.05)
    stop.set()
    runner.join()


def test_more_messages_than_one_transaction_takes(client: headrace.Client) -> None:
    """One Arrow message of 25,000 rows becomes 25,000 messages: one batch, several commits, exactly once."""
    import io

    sink = io.BytesIO()
    rows = pa.table({"k": ["a"] * 25_000, "v": range(25_000)})
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    client.queue("events", create=True).send(
        sink.getvalue(), attributes={"content-type": "application/vnd.apache.arrow.stream"}
    )
    events = hs.queue("events", schema="k string, v bigint")
    pipeline = hs.pipeline("wide", hs.sql("SELECT v FROM events", events=events), sink=hs.queue("out"))
    assert pipeline.run(client, until="idle").rows_out == 25_000
    assert client.queue("out").counts().visible == 25_000
    assert client.state(state_keys.state_name("wide"), state_keys.REDO) == {}


def test_inspection_tells_what_is_there(client: headrace.Client) -> None:
    send(client, [event(number) for number in range(100)])
    counts().run(client, until="idle")
    found = admin.pipeline_status(client, "counts", measured=True)
    assert found.state_bytes and found.state_parts and found.progress.rows_in == 100 and not found.members
    [lag] = admin.lags(client, "counts")
    assert (lag.reads, lag.waiting) == ("queue events", 0)
    [operator] = admin.state_schemas(client, "counts")
    rows = pa.concat_tables(admin.state_rows(client, "counts", operator)).to_pylist()
    assert len(rows) == 3 and {row["k0"] for row in rows} == {"a", "b", "c"}
    with pytest.raises(admin.PipelineUnknown, match="nobody"):
        admin.pipeline_status(client, "nobody")
