"""`headrace backup`, `restore`, `fsck` from the command line."""

from __future__ import annotations

from pathlib import Path

import headrace
from tests.cli.conftest import CommandLine
from tests.native.served import ServedBroker


def test_backup_of_a_running_store_is_restored_and_found_whole(run: CommandLine, tmp_path: Path) -> None:
    target, data = str(tmp_path / "backup"), str(tmp_path / "again")
    with headrace.connect(tmp_path / "live") as client:
        client.queue("orders", create=True).send_many([{"n": n} for n in range(10)])
        facts = run("backup", str(tmp_path / "live"), target, "-o", "json").json
    assert (facts["messages"], facts["queues"], facts["backup"]) == (10, 1, target)
    assert run("restore", target, data).json["messages"] == 10
    assert run("fsck", data).json == {
        "whole": True, "queues": 1, "topics": 0, "messages": 10, "commit_seq": facts["commit_seq"], "findings": [],
    }  # fmt: skip
    with headrace.connect(data) as again:
        assert [message.json()["n"] for message in again.queue("orders").receive(100)] == list(range(10))


def test_what_cannot_be_done_is_said_in_one_line(run: CommandLine, served: ServedBroker, tmp_path: Path) -> None:
    assert "where the broker runs" in run("backup", served.url, str(tmp_path / "backup")).err
    live = str(tmp_path / "live")
    with headrace.connect(live):
        refused = run("fsck", live)
    assert refused.code == 1 and "stop that one first" in refused.err
    assert run("backup", live, str(tmp_path / "b"), "--rate", "fast").code == 2
    assert run("restore", live, str(tmp_path / "a")).code == 1


def test_damage_is_listed_and_repaired(run: CommandLine, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with headrace.connect(data) as client:
        client.queue("orders", create=True).send_many([{"n": 1, "pad": "x" * 300}, {"n": 2}])
    database = data / "headrace.db"
    database.write_bytes(database.read_bytes().replace(b"x" * 300, b"y" * 300))
    found = run("fsck", str(data), "-o", "table")
    assert found.code == 1 and "checksum is wrong" in found.out and "orders" in found.out
    assert run("fsck", str(data), "--repair", "-o", "table").code == 0
    with headrace.connect(data) as client:
        assert [message.json()["n"] for message in client.queue("orders").receive(10)] == [2]
