"""Members of one pipeline share it by key while they are killed, frozen until they are taken for dead and let go on,
added and removed, and the broker is killed: every window comes out once, with every row in it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

import headrace
from headrace.stream.runner import state_keys
from headrace.stream.runner.membership import Owners, read_owners
from tests.broker_process import wait_until
from tests.faults.stream.cluster import Cluster, assert_same, cluster, left, messages_of
from tests.faults.stream.events import columns, events, windows
from tests.faults.stream.nursery import Fault

SEED = int(os.environ.get("HEADRACE_SEED", "20251126"))
KILLS = int(os.environ.get("HEADRACE_STREAM_KILLS", "4"))
ROWS = int(os.environ.get("HEADRACE_STREAM_ROWS", "4000"))

pytestmark = pytest.mark.timeout(3_600)

FILE = """
import headrace.stream as hs

events = hs.queue("events", schema="k string, v bigint, ts timestamp").with_watermark("ts", delay="5 minutes")
counts = hs.sql('''SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events
                   GROUP BY tumble(ts, '10 seconds'), k''')
shared = hs.pipeline("shared", counts, sink=hs.queue("out"), late_queue="late", dead_letter_queue="dead")
"""
LIMITS = {"MEMBER_LOST_MS": 1_500, "MEMBER_BEAT_MS": 300}
BATCH = ("--batch-rows", "100")


def owners(one: Cluster) -> Owners:
    with headrace.connect(one.target) as client:
        return read_owners(client.state(state_keys.state_name("shared")).get(state_keys.OWNERS))


def owns(one: Cluster, pid: int) -> bool:
    return any(member.pid == pid for member in owners(one).slots.values())


def freeze_one(one: Cluster, chance: random.Random) -> None:
    """Until the others have taken its keys; then it goes on, where it was, and must change nothing."""
    _, frozen = chance.choice(one.processes)
    frozen.send(signal.SIGSTOP)
    wait_until(lambda: not owns(one, frozen.pid))
    frozen.send(signal.SIGCONT)


def remove_one(one: Cluster, chance: random.Random) -> None:
    _, leaving = one.processes.pop(chance.randrange(len(one.processes)))
    assert leaving.end(signal.SIGTERM) in (0, -signal.SIGTERM), leaving.text


def disturb(one: Cluster, what: str, chance: random.Random) -> None:
    match what:
        case "kill":
            one.kill_one()
        case "freeze":
            freeze_one(one, chance)
        case "add":
            one.start("shared", *BATCH)
        case "remove":
            remove_one(one, chance)
        case "broker":
            one.kill_broker()
        case "at once":
            one.kill_one()
            one.kill_one()


def drawn(chance: random.Random, members: int) -> str:
    """Two to four members."""
    kinds = ["kill", "freeze", "broker", "at once"] + ["add"] * (members < 4) + ["remove"] * (members > 2)
    return chance.choice(kinds)


def test_members_come_and_go(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    rows = events(ROWS, chance)
    seen: Counter[str] = Counter()
    members: set[int] = set()
    with cluster(tmp_path, FILE, chance, limits=LIMITS) as one:
        with headrace.connect(one.target) as client:
            client.queue("events", create=True).send_many(row.body() for row in rows)
        for _ in range(3):
            one.start("shared", *BATCH)
        for number in range(KILLS):
            with headrace.connect(one.target) as client:
                wait_until(lambda: left(client, "events") <= ROWS - number * ROWS // KILLS, within_s=300)  # noqa: B023
            members.add(len(owners(one).slots))
            time.sleep(chance.random() * 0.05)
            what = drawn(chance, len(one.processes))
            disturb(one, what, chance)
            seen[what] += 1
        with headrace.connect(one.target) as client:
            wait_until(lambda: left(client, "events") == 0, within_s=300)
        one.stop()
        one.finish("shared", "end")
        with headrace.connect(one.target) as client:
            found = columns((message.body for message in messages_of(client, "out")), "window_start", "k", "n", "s")
            assert_same(found, windows(rows, 10), "windows")
            for queue in ("late", "dead", "events"):
                assert not list(messages_of(client, queue)), queue
        print(
            f"seed {SEED}: {ROWS} messages, {dict(seen)}, members at work {sorted(members)}: {found.total()} rows equal"
        )
        assert max(members) > 1, "nobody shared: this run proves little"


def test_one_that_freezes_before_its_commit_changes_nothing_later(tmp_path: Path) -> None:
    """Taken for dead with a batch in its hands, which its successor does; then it goes on with its commit."""
    chance = random.Random(SEED)
    rows = events(1_500, chance)
    freezes = Fault("headrace.stream.runner.commit:Committer.commit", "before", 8, signal.SIGSTOP)
    with cluster(tmp_path, FILE, chance, limits=LIMITS) as one, headrace.connect(one.target) as client:
        client.queue("events", create=True).send_many(row.body() for row in rows)
        frozen = one.process("shared", *BATCH, fault=freezes)
        one.processes.append(("shared", frozen))
        wait_until(lambda: is_frozen(frozen.pid))
        one.start("shared", *BATCH)
        wait_until(lambda: not owns(one, frozen.pid))
        wait_until(lambda: left(client, "events") == 0)
        noted = client.state(state_keys.state_name("shared"), state_keys.progress_key(0))
        frozen.send(signal.SIGTERM)  # so that it does not join anew after that commit
        frozen.send(signal.SIGCONT)
        assert frozen.wait() == 0, frozen.text
        assert client.state(state_keys.state_name("shared"), state_keys.progress_key(0)) == noted
        one.processes.remove(("shared", frozen))
        one.stop()
        one.finish("shared", "end")
        found = columns((message.body for message in messages_of(client, "out")), "window_start", "k", "n", "s")
        assert_same(found, windows(rows, 10), "windows")


def is_frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
