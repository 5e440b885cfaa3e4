"""Several processes share a pipeline: what comes out is what one alone would have written, whoever comes, goes or dies."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from typing import Any

import pytest

import headrace
import headrace.stream as hs
from headrace.errors import Unavailable
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.stream import limits
from headrace.stream.pipelines import Pipeline
from headrace.stream.runner import admin, membership, sharing, state_keys
from headrace.stream.runner.admin import reset
from headrace.stream.runner.commit import TakenOver
from tests.stream.runner.fleet import Fleet, One, fleet
from tests.stream.runner.pipelines import SCHEMA, copied, counted, counts, event, expected_counts, send, taken

ROWS = [event(number) for number in range(600)]


def owners(made: Fleet) -> membership.Owners:
    return membership.read_owners(made.store.read(state_keys.OWNERS).get(state_keys.OWNERS))


def finished(client: headrace.Client) -> None:
    """Everybody has left; one closes every window. Nothing was late, nothing is left."""
    counts(late_queue="late").run(client, until="end")
    assert taken(client, "late") == []
    assert client.queue("events").counts().in_flight == client.queue("events").counts().visible == 0
    assert client.state(state_keys.state_name("counts"), state_keys.SHUFFLE) == {}


def test_two_members_count_what_one_would(client: headrace.Client) -> None:
    send(client, ROWS)
    with fleet(client, counts(late_queue="late"), "a", "b") as made:
        assert sorted(map(len, (owners(made).shards_of(slot) for slot in (0, 1)))) == [4, 4]
        made.settle()
        assert all(one.rows for one in made.members.values()), "both have windows of their keys"
        assert len(taken(client, "out")) == 15, "all windows that the watermark has passed"
    finished(client)
    assert counted(taken(client, "out")) == expected_counts(ROWS)


def test_window_waits_for_rows_that_another_has_claimed(client: headrace.Client) -> None:
    send(client, ROWS)
    with fleet(client, counts(late_queue="late"), "a", "b") as made:
        made.turns("a", rounds=4)
        while made.members["b"].turn():
            pass
        assert all(made.members[name].session for name in "ab")
        made.settle()
    finished(client)
    assert counted(taken(client, "out")) == expected_counts(ROWS)


def test_idle_member_holds_nobody_up(client: headrace.Client) -> None:
    send(client, [])
    with fleet(client, counts(late_queue="late"), "a", "b", batch_rows=200) as made:
        made.settle()
        made.members["b"].drop()  # it reads nothing
        send(client, ROWS)
        made.settle("a")
        assert client.queue("events").counts().deleted == 600
        made.turns("b", rounds=3)
        assert len(taken(client, "out")) == 15
    finished(client)


@pytest.mark.parametrize("how", ["leave", "kill"])
def test_what_a_member_had_goes_to_the_others(client: headrace.Client, how: str) -> None:
    send(client, ROWS[:300])
    with fleet(client, counts(late_queue="late"), "a", "b", "c") as made:
        made.turns(rounds=2)
        getattr(made, how)("b")
        send(client, ROWS[300:])
        made.turns(rounds=2)
        getattr(made, how)("a")
        made.settle()
        assert owners(made).shards_of(2) == set(range(8))
    finished(client)
    assert counted(taken(client, "out")) == expected_counts(ROWS)


def test_zombie_changes_nothing(client: headrace.Client) -> None:
    send(client, ROWS)
    with fleet(client, counts(late_queue="late"), "a", "b") as made:
        made.turns(rounds=2)
        zombie = made.members.pop("b")
        made.killed.add("b")
        made.settle()
        before = client.state(state_keys.state_name("counts")), len(taken(client, "out"))
        with pytest.raises(TakenOver):
            zombie.come_back()
        assert (client.state(state_keys.state_name("counts")), len(taken(client, "out"))) == before
        zombie.drop()
    finished(client)
    assert counted(taken(client, "out")) == expected_counts(ROWS)


def test_late_row_is_late_after_whoever_had_its_key_got_other_keys(client: headrace.Client) -> None:
    """TableSlot 0 had all keys, closed windows of them, and writes that it has others now before slot 1, which gets them, has
    written anything."""
    send(client, ROWS[:300])
    with fleet(client, counts(late_queue="late"), "a") as made:
        made.settle()
        made.join("b")
        made.settle("b")
        made.kill("a")
        made.turns("b")
        made.join("c")
        assert owners(made).shards == (1, 1, 1, 1, 0, 0, 0, 0)
        send(client, [*ROWS[300:], *ROWS[:3]])
        made.settle("c")
        made.settle()
        assert sorted(row["v"] for row in taken(client, "late")) == [0, 1, 2]
    counts(late_queue="late").run(client, until="end")
    assert counted(taken(client, "out")) == expected_counts(ROWS)


def test_silent_member_is_lost_by_the_clock(client: headrace.Client) -> None:
    send(client, ROWS)
    with fleet(client, counts(late_queue="late"), "a", "b") as made:
        made.turns(rounds=2)
        silent = made.members.pop("b")
        for _ in range(6):
            made.store.later_ms += 2_000
            made.members["a"].membership.beat()
            made.turns("a")
        assert list(owners(made).slots) == [0]
        made.settle()
        silent.drop()
    finished(client)
    assert counted(taken(client, "out")) == expected_counts(ROWS)


def test_without_state_everybody_reads_and_writes_alone(client: headrace.Client) -> None:
    send(client, ROWS)
    with fleet(client, copied(), "a", "b") as made:
        made.turns(rounds=2)
        made.kill("a")
        made.settle()
    assert sorted(row["v"] for row in taken(client, "out")) == list(range(600))


@pytest.mark.parametrize(("seed", "commit_bytes"), [(0, None), (1, None), (3, 600)])
def test_whoever_comes_and_goes(
    client: headrace.Client, monkeypatch: pytest.MonkeyPatch, seed: int, commit_bytes: int | None
) -> None:
    """`commit_bytes`: commits that are larger are done in pieces."""
    if commit_bytes is not None:
        monkeypatch.setattr(limits, "COMMIT_BYTES_MAX", commit_bytes)
        monkeypatch.setattr(limits, "PIECE_BYTES_MAX", commit_bytes)
    chance = random.Random(seed)
    rows = list(ROWS)
    for start in range(0, len(rows), 15):  # disorder of 1.5 s, below the delay
        rows[start : start + 15] = chance.sample(rows[start : start + 15], 15)
    come_and_go(client, chance, [rows[start : start + 15] for start in range(0, len(rows), 15)])
    finished(client)
    assert counted(taken(client, "out")) == expected_counts(rows)


@pytest.mark.parametrize("seed", [2, 9])
def test_late_rows_count_nowhere_whoever_comes_and_goes(client: headrace.Client, seed: int) -> None:
    chance = random.Random(seed)
    old = [{**event(chance.randrange(100)), "v": 10_000 + number} for number in range(20)]
    lots = [ROWS[start : start + 15] for start in range(0, len(ROWS), 15)]
    come_and_go(client, chance, [*lots[:20], *([*lot, row] for lot, row in zip(lots[20:], old, strict=True))])
    counts(late_queue="late").run(client, until="end")
    late = [row["v"] for row in taken(client, "late")]
    assert len(late) == len(set(late)) > 0
    used = [row for row in (*ROWS, *old) if row["v"] not in late]
    assert counted(taken(client, "out")) == expected_counts(used)


def come_and_go(client: headrace.Client, chance: random.Random, lots: list[list[dict[str, Any]]]) -> None:
    """Members join, leave, die and are thought dead while these rows come."""
    send(client, [])
    with fleet(client, counts(late_queue="late"), "m0", batch_rows=20) as made:
        zombies = []
        for number, lot in enumerate(lots[:-1], 1):
            send(client, lot)
            names = list(made.members)
            match chance.randrange(8):
                case 0 if len(names) < 4:
                    made.join(f"m{number}")
                case 1 if len(names) > 1:
                    made.leave(chance.choice(names))
                case 2 if len(names) > 1:
                    made.kill(chance.choice(names))
                case 3 if len(names) > 1:
                    made.killed.add(name := chance.choice(names))
                    zombies.append(made.members.pop(name))
                case _:
                    for _ in range(4):
                        made.turns(chance.choice(names))
        send(client, lots[-1])
        made.settle()
        for zombie in zombies:
            if zombie.session is not None:
                with pytest.raises(TakenOver):
                    zombie.come_back()
            zombie.drop()
        made.settle()


def test_purge_of_claimed_messages_holds_nobody_up(client: headrace.Client) -> None:
    send(client, ROWS[:200])
    with fleet(client, counts(late_queue="late"), "a", "b") as made:
        while client.queue("events").counts().in_flight < 150:
            made.turns("a")
        made.kill("b")
        client.queue("events").purge()
        made.settle()
        send(client, ROWS[200:])
        made.settle()
        state = client.call(ops.GetClaims(arn_of("events"), "counts/1"))
        assert state.acknowledged == state.last, "what it had claimed is acknowledged, though it is gone"
        assert len(taken(client, "out")) >= 9


def test_reset_gives_back_what_every_slot_has_claimed(client: headrace.Client) -> None:
    send(client, [])
    counts().run(client, until="idle")  # its definition says what is read
    send(client, ROWS[:200])
    with fleet(client, counts(), "a", "b") as made:
        while client.queue("events").counts().in_flight < 150:
            made.turns("a")
        made.kill("a")
        made.kill("b")
        reset(made.store, client, "counts")
        assert client.queue("events").counts().in_flight == 0
        assert owners(made).used == 0


def test_who_does_not_take_its_rows_slows_down_who_sends_them(client: headrace.Client) -> None:
    send(client, ROWS)
    with fleet(client, counts(late_queue="late"), "a", "b", batch_rows=10) as made:
        made.settle()
        made.members["b"].drop()
        send(client, ROWS)
        while not made.members["a"].ready() or not stalled(made.members["a"]):
            made.turns("a")
        before = client.queue("events").counts().deleted
        assert before < 1_200
        made.turns("a", rounds=5)
        assert client.queue("events").counts().deleted == before
        made.settle()
        assert client.queue("events").counts().deleted == 1_200


def test_broker_that_is_away_for_a_moment_ends_no_shared_run(
    client: headrace.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, ROWS[:100])
    call, failing = client.call, [True]

    def flaky(operation: Any, *, wait: float = 0.0) -> Any:
        if isinstance(operation, ops.GetClaims) and failing and threading.current_thread() is threading.main_thread():
            failing.pop()
            raise Unavailable("away")
        return call(operation, wait=wait)

    with fleet(client, counts(late_queue="late"), "a", "b") as made:
        made.turns()
        monkeypatch.setattr(client, "call", flaky)
        made.settle()
        assert not failing
        assert client.queue("events").counts().deleted == 100


def stalled(one: One) -> bool:
    assert one.session is not None
    share = one.session._share
    return share is not None and share.stalled


JOINED = """
    SELECT l.k, l.v, r.v AS w FROM left_rows l JOIN right_rows r
    ON l.k = r.k AND r.ts BETWEEN l.ts - INTERVAL 2 SECONDS AND l.ts + INTERVAL 2 SECONDS"""
SESSIONS = "SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events GROUP BY session_window(ts, '3 seconds'), k"
LAST = "SELECT k, v FROM events QUALIFY row_number() OVER (PARTITION BY k ORDER BY ts DESC) <= 1"


def source(queue: str) -> hs.Stream:
    return hs.queue(queue, schema=SCHEMA).with_watermark("ts", delay="2 seconds")


def shared_and_alone(client: headrace.Client, pipeline: Pipeline, queues: list[str]) -> tuple[list[str], list[str]]:
    """What comes out of two members that come and go, and what of the same rows through one."""
    rows = {queue: [event(number, step_ms=700) for number in range(200)] for queue in queues}
    for queue in queues:
        send(client, [], queue)
    with fleet(client, pipeline, "a", batch_rows=20) as made:
        for start in range(0, 200, 50):
            for queue in queues:
                send(client, rows[queue][start : start + 50], queue)
            made.turns(rounds=3)
            made.join(f"m{start}") if start % 100 == 0 else made.kill(f"m{start - 50}")
        made.settle()
    pipeline.run(client, until="end")
    out = sorted(message.body.decode() for message in client.queue("out").peek(10_000))
    client.queue("out").purge()
    for queue in queues:
        send(client, rows[queue], queue)
    replace(pipeline, plan=replace(pipeline.plan, name="alone")).run(client, until="end")
    return out, sorted(message.body.decode() for message in client.queue("out").peek(10_000))


def test_joins_are_shared(client: headrace.Client) -> None:
    stream = hs.sql(JOINED, left_rows=source("left"), right_rows=source("right"))
    out, alone = shared_and_alone(client, hs.pipeline("joined", stream, sink=hs.queue("out")), ["left", "right"])
    assert out == alone and len(out) == 200


def test_sessions_are_shared(client: headrace.Client) -> None:
    stream = hs.sql(SESSIONS, events=source("events"))
    out, alone = shared_and_alone(client, hs.pipeline("sessions", stream, sink=hs.queue("out")), ["events"])
    assert out == alone and len(out) == 3


def test_duplicates_are_found_whoever_reads_them(client: headrace.Client) -> None:
    """Both copies of a row are near each other in the queue, and read by different members."""
    stream = source("events").dedup("v", within="1 minute")
    send(client, [row for row in ROWS[:300] for _ in range(2)])
    with fleet(client, hs.pipeline("firsts", stream, sink=hs.queue("out")), "a", "b", batch_rows=25) as made:
        made.turns(rounds=4)
        made.kill("a")
        made.settle()
    assert sorted(row["v"] for row in taken(client, "out")) == list(range(300))


@pytest.mark.parametrize(
    ("sql", "sinks", "reason"),
    [
        ("SELECT count(*) AS n FROM events GROUP BY tumble(ts, '1 minute')", ["out"], "no keys"),
        (
            "SELECT k, count(*) AS n FROM events GROUP BY tumble(ts, '1 minute'), k",
            [hs.console()],
            "not a queue or topic",
        ),
    ],
)
def test_what_cannot_be_shared_says_why(sql: str, sinks: list[Any], reason: str) -> None:
    made = hs.pipeline(
        "p", hs.sql(sql, events=source("events")), sink=[hs.queue(s) if s == "out" else s for s in sinks]
    )
    found = sharing.unshareable_reason(made.plan, made.physical)
    assert found is not None and reason in found


def test_state_that_cannot_be_shared_is_not_cut(client: headrace.Client) -> None:
    send(client, ROWS)
    stream = hs.sql("SELECT count(*) AS n FROM events GROUP BY tumble(ts, '1 minute')", events=source("events"))
    hs.pipeline("all", stream, sink=hs.queue("out")).run(client, until="idle")
    assert admin.pipeline_status(client, "all").definition.shards == 1
