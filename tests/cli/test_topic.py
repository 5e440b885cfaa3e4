from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import CommandLine


def test_topic_is_made_shown_changed_listed_and_removed(run: CommandLine) -> None:
    assert run("topic", "create", "flights", "--retention", "7d").json["topic"] == "flights"
    assert run("topic", "set", "flights", "--retention-bytes", "1000").json["retention_bytes"] == 1_000
    shown = run("topic", "show", "flights").json
    assert (shown["retention_seconds"], shown["retention_bytes"], shown["subscriptions"]) == (604_800, 1_000, [])
    assert [row["topic"] for row in run("topic", "ls").json] == ["flights"]
    assert run("topic", "rm", "flights").code == 2
    assert run("topic", "rm", "flights", "--yes").json == {"topic": "flights", "removed": True}
    assert run("topic", "show", "flights").code == 1


def test_published_messages_arrive_and_are_replayed(run: CommandLine, tmp_path: Path) -> None:
    run("topic", "create", "flights", "--retention", "1d")
    assert run("topic", "subscribe", "flights", "late", "--create", "--filter", '{"state": ["late"]}').code == 0
    assert run("topic", "publish", "flights", "UA 1", "-a", "state=late").json["duplicate"] is False
    file = tmp_path / "lines"
    file.write_text("UA 2\nUA 3\n")
    assert run("topic", "publish", "flights", "--lines", str(file)).json["published"] == 2
    assert [row["body"] for row in run("queue", "peek", "late").json] == ["UA 1"]

    run("topic", "subscribe", "flights", "all", "--create", "--from", "beginning")
    assert [row["body"] for row in run("queue", "peek", "all").json] == ["UA 1", "UA 2", "UA 3"]
    assert run("topic", "replay", "flights", "late").code == 0
    assert [row["body"] for row in run("queue", "peek", "late").json] == ["UA 1", "UA 1"]
    run("topic", "replay", "flights", "all", "--purge", "--from", "2001-01-01T00:00")
    assert len(run("queue", "peek", "all").json) == 3
    shown = run("topic", "show", "flights").json["subscriptions"]
    assert [(one["queue"], one["state"], one["waiting"]) for one in shown] == [("all", "live", 3), ("late", "live", 2)]
    assert json.loads(shown[1]["filter"]) == {"state": ["late"]}
    assert "live" in run("topic", "show", "flights", "-o", "table").out

    run("topic", "unsubscribe", "flights", "late")
    assert len(run("topic", "show", "flights").json["subscriptions"]) == 1


def test_inbox_is_given_and_taken(run: CommandLine) -> None:
    run("queue", "create", "in")
    run("topic", "create", "flights", "--inbox", "in")
    assert run("topic", "show", "flights").json["inbox"] == "in"
    assert run("topic", "set", "flights", "--no-inbox").json["inbox"] is None


def test_name_alone_makes_a_fifo_topic(run: CommandLine) -> None:
    run("topic", "create", "steps.fifo", "--content-dedup")
    assert run("topic", "publish", "steps.fifo", "a", "--group", "g").json["duplicate"] is False
    assert run("topic", "publish", "steps.fifo", "a", "--group", "g").json["duplicate"] is True
    assert run("topic", "publish", "steps.fifo", "a", "--group", "g", "--dedup-id", "d").json["duplicate"] is False


def test_wrong_calls_are_explained(run: CommandLine) -> None:
    run("topic", "create", "flights")
    run("queue", "create", "q")
    for call in (
        ("publish", "flights"),
        ("set", "flights"),
        ("subscribe", "flights", "q", "--filter", "no json"),
        ("subscribe", "flights", "q", "--filter", "[]"),
        ("subscribe", "flights", "q", "--from", "yesterday"),
    ):
        assert run("topic", *call).code == 2, call
    refused = run("topic", "subscribe", "flights", "q", "--from", "beginning")
    assert refused.code == 1 and "no log" in refused.err


def test_topic_that_is_not_there_says_what_to_do(run: CommandLine) -> None:
    result = run("topic", "show", "nope")

    assert result.code == 1
    assert "there is no topic 'nope'; `headrace topic ls` lists what is there" in result.err
