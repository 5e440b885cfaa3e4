from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import headrace
from headrace.cli import output
from headrace.cli.options import duration
from headrace.cli.output import table
from tests.cli.conftest import CommandLine
from tests.native.served import ServedBroker, eventually


def test_queue_is_made_shown_changed_listed_and_removed(run: CommandLine) -> None:
    made = run("queue", "create", "orders", "--visibility-timeout", "5m", "--delay", "0", "--tag", "team=a")
    assert (made.code, made.json["queue"]) == (0, "orders")
    run("queue", "create", "dead")

    changed = run("queue", "set", "orders", "--retention", "1d", "--dead-letter", "dead", "--max-receives", "3")
    assert changed.json["retention_seconds"] == 86_400
    shown = run("queue", "show", "orders").json
    assert (shown["visibility_timeout_seconds"], shown["dead_letter"], shown["max_receives"]) == (300, "dead", 3)
    assert shown["tags"] == {"team": "a"}
    assert run("queue", "set", "orders", "--no-dead-letter").json["dead_letter"] is None

    assert [row["queue"] for row in run("queue", "ls").json] == ["dead", "orders"]
    assert [row["queue"] for row in run("queue", "ls", "ord").json] == ["orders"]
    assert run("queue", "rm", "orders", "--yes").json == {"queue": "orders", "removed": True}
    assert run("queue", "show", "orders").code == 1


def test_name_alone_makes_a_fifo_queue(run: CommandLine) -> None:
    run("queue", "create", "steps.fifo", "--content-dedup")

    shown = run("queue", "show", "steps.fifo").json
    assert (shown["fifo"], shown["content_dedup"]) == (True, True)


def test_set_without_settings_is_a_wrong_call(run: CommandLine) -> None:
    run("queue", "create", "orders")

    assert run("queue", "set", "orders").code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "orders", "--visibility-timeout", "13h"], "visibility_timeout = 46800 s is invalid: it must be from 0 s to 43200 s"),
        (["set", "orders", "--retention", "15d"], "retention = 1296000 s is invalid: it must be from 60 s to 1209600 s"),
        (["create", "orders", "--visibility-timeout", "5"], "a different value for visibility_timeout;"),
        (["send", "orders", "x", "--delay", "15d"], "DelaySeconds = 1296000 is invalid: it must be from 0 to 345600 seconds"),
        (["redrive", "orders"], "must be configured as a Dead Letter Queue; `headrace queue ls`"),
    ],
)  # fmt: skip
def test_error_has_the_name_and_the_unit_of_what_was_given(run: CommandLine, arguments: list[str], said: str) -> None:
    run("queue", "create", "orders")

    result = run("queue", *arguments)

    assert result.code == 1
    assert said in result.err


def test_message_is_sent_peeked_received_and_deleted(run: CommandLine) -> None:
    run("queue", "create", "orders")
    sent = run("queue", "send", "orders", '{"book": 7}', "-a", "kind=order").json

    [peeked] = run("queue", "peek", "orders").json
    assert (peeked["id"], peeked["body"], peeked["state"], peeked["receives"]) == (
        sent["id"],
        '{"book": 7}',
        "visible",
        0,
    )
    assert peeked["attributes"] == {"kind": "order"}

    [received] = run("queue", "receive", "orders").json
    assert received["receives"] == 1
    assert run("queue", "receive", "orders").json == []
    assert run("queue", "delete", "orders", received["receipt"]).json["deleted"] == 1
    assert run("queue", "peek", "orders").json == []


def test_jsonl_of_receive_is_what_delete_reads(run: CommandLine) -> None:
    run("queue", "create", "orders")
    run("queue", "send", "orders", "--lines", "-", stdin="a\nb\n\nc")
    received = run("queue", "receive", "orders", "-n", "2", "-o", "jsonl").out
    lines = [json.loads(line) for line in received.splitlines()]
    assert [line["body"] for line in lines] == ["a", "b"]

    assert run("queue", "delete", "orders", "-", stdin=received).json["deleted"] == 2
    assert [row["body"] for row in run("queue", "peek", "orders").json] == ["c"]


@pytest.mark.parametrize("stdin", ["not base64!\n", '{"no": "receipt"}\n', "{broken\n"])
def test_what_is_no_receipt_is_a_wrong_call(run: CommandLine, stdin: str) -> None:
    run("queue", "create", "orders")

    assert run("queue", "delete", "orders", "-", stdin=stdin).code == 2


def test_forged_receipt_fails(run: CommandLine) -> None:
    run("queue", "create", "orders")

    result = run("queue", "delete", "orders", base64.b64encode(b"x" * 28).decode())

    assert result.code == 1
    assert "receipt" in result.err


def test_receive_deletes_when_asked(run: CommandLine, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True)
    queue.send_many(["a", "b"])

    assert [row["body"] for row in run("queue", "receive", "orders", "--max", "9", "--delete").json] == ["a", "b"]
    assert queue.peek() == []


def test_body_comes_from_stdin_as_it_is(run: CommandLine, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True)

    run("queue", "send", "orders", "-", stdin=b"\x00\xff\n")

    assert queue.peek()[0].body == b"\x00\xff\n"
    assert run("queue", "peek", "orders").json[0]["body_base64"] == "AP8K"


def test_lines_of_a_file_are_messages(run: CommandLine, client: headrace.Client, tmp_path: Path) -> None:
    queue = client.queue("orders", create=True)
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"{i}\r\n" for i in range(2_500)))

    assert run("queue", "send", "orders", "--lines", str(file)).json == {"queue": "orders", "sent": 2_500}
    assert [m.text for m in queue.peek(10_000)] == [str(i) for i in range(2_500)]


def test_line_that_is_refused_is_told_with_what_was_sent_before(run: CommandLine, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True, max_message_bytes=1_024)
    lines = "a\n" * 1_000 + "b\n" + "c" * 2_000 + "\n"

    result = run("queue", "send", "orders", "--lines", "-", stdin=lines)

    assert result.code == 1
    assert "1 of 2 entries were refused" in result.err
    assert "1,000 messages before these were sent" in result.err
    assert queue.counts().visible == 1_001


def test_group_and_dedup_id(run: CommandLine) -> None:
    run("queue", "create", "steps.fifo")
    arguments = ["queue", "send", "steps.fifo", "x", "--group", "g", "--dedup-id", "d"]

    assert run(*arguments).json["duplicate"] is False
    assert run(*arguments).json["duplicate"] is True
    assert run("queue", "send", "steps.fifo", "x").code == 1


@pytest.mark.parametrize("arguments", [[], ["body", "--lines", "-"], ["--lines", "-", "--dedup-id", "x"]])
def test_send_takes_either_a_body_or_lines(run: CommandLine, arguments: list[str]) -> None:
    run("queue", "create", "orders")

    assert run("queue", "send", "orders", *arguments).code == 2


@pytest.mark.parametrize("verb", ["purge", "rm"])
def test_destructive_verb_asks_for_the_name(run: CommandLine, client: headrace.Client, verb: str) -> None:
    queue = client.queue("orders", create=True)
    queue.send("x")

    assert run("queue", verb, "orders").code == 2
    wrong = run("queue", verb, "orders", stdin="order\n", terminal=True)
    assert wrong.code == 1
    assert "1 message" in wrong.err
    assert queue.counts().visible == 1

    assert run("queue", verb, "orders", stdin="orders\n", terminal=True).code == 0
    assert [summary.counts.visible for summary in client.queues()] == ([0] if verb == "purge" else [])


def test_purge_tells_how_many(run: CommandLine, client: headrace.Client) -> None:
    client.queue("orders", create=True).send_many(["a", "b"])

    assert run("queue", "purge", "orders", "--yes").json == {"queue": "orders", "purged": 2}


def test_dead_letters_are_redriven_and_the_status_tells(run: CommandLine, client: headrace.Client) -> None:
    dead = client.queue("dead", create=True)
    queue = client.queue("orders", create=True, dead_letter="dead", max_receives=1)
    queue.send("poison")
    queue.receive(wait=0)[0].release()
    assert queue.receive(wait=0) == []

    done = run("queue", "redrive", "dead").json

    assert (done["status"], done["moved"], done["source"], done["target"]) == ("COMPLETED", 1, "dead", None)
    assert dead.peek() == []
    [status] = run("queue", "move-status", "dead").json
    assert status == done


def test_redrive_is_left_to_itself_and_cancelled(run: CommandLine, client: headrace.Client) -> None:
    client.queue("dead", create=True).send_many(["x"] * 50)
    client.queue("orders", create=True, dead_letter="dead", max_receives=1)

    assert run("queue", "redrive", "dead", "--to", "orders", "--rate", "1", "--no-wait").json["status"] == "RUNNING"
    assert run("queue", "redrive", "dead", "--cancel").json["status"] in ("CANCELLING", "CANCELLED")
    eventually(lambda: run("queue", "move-status", "dead").json[0]["status"] == "CANCELLED")
    again = run("queue", "redrive", "dead", "--cancel")
    assert (again.code, again.out) == (1, "")


def test_table_is_for_people(run: CommandLine, client: headrace.Client) -> None:
    queue = client.queue("orders", create=True)
    queue.send('{"a":[1]}')
    queue.send("\x1b[31mred")

    heading, _, row = run("queue", "ls", "-o", "table").out.strip().splitlines()
    assert heading.split() == ["queue", "visible", "in", "flight", "delayed", "oldest", "dead", "letter"]
    assert row.split()[:2] == ["orders", "2"]
    peeked = run("queue", "peek", "orders", "-o", "table").out
    assert '  {\n    "a": [\n      1\n    ]\n  }\n' in peeked
    assert "\x1b[31m" not in peeked
    assert "\\x1b[31mred" in peeked
    assert "visibility timeout" in run("queue", "show", "orders", "-o", "table").out


def test_nothing_to_show_is_said_aside(run: CommandLine) -> None:
    listed = run("queue", "ls", "-o", "table")
    assert (listed.code, listed.out) == (0, "")
    assert "headrace queue create" in listed.err
    run("queue", "create", "orders")
    assert run("queue", "peek", "orders", "-o", "table").err == "orders is empty.\n"


def test_folder_names_the_broker_that_runs_on_it(run: CommandLine, served: ServedBroker) -> None:
    run("queue", "create", "orders")

    assert [row["queue"] for row in run("queue", "ls", "--broker", str(served.unix_path.parent)).json] == ["orders"]


def test_folder_without_a_broker_is_opened(run: CommandLine, tmp_path: Path) -> None:
    with headrace.connect(tmp_path / "own") as client:
        client.queue("orders", create=True).send("x")

    assert run("queue", "peek", "orders", "--broker", str(tmp_path / "own")).json[0]["body"] == "x"


def test_keys_come_from_the_environment(
    run: CommandLine, served: ServedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("queue", "ls")
    assert b"authorization" not in served.requests[-1].headers
    monkeypatch.setenv("HEADRACE_ACCESS_KEY", "AKID")
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "secret")
    run("queue", "ls")

    assert b"Credential=AKID/" in served.requests[-1].headers[b"authorization"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("1.5", 1.5), ("250ms", 0.25), ("30s", 30), ("5m", 300), ("12h", 43_200), ("4d", 345_600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["-1", "5x", "", "1e3", "5 m", "٥"])
def test_other_durations_are_a_wrong_call(run: CommandLine, text: str) -> None:
    assert run("queue", "create", "q", f"--delay={text}").code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0s"), (0.25, "250ms"), (59.9, "59s"), (250, "4m 10s"), (7_200, "2h"), (90_061, "1d 1h")],
)
def test_ages_in_two_units(seconds: float | None, text: str) -> None:
    assert output.age(seconds) == text


def test_no_cell_of_a_table_that_is_too_wide_is_cut_or_lost() -> None:
    row = {
        "id": "0" * 32,
        "task": "shop.pack",
        "sent_at": "2026-11-26T21:04:08.123+00:00",
        "due_at": "2026-11-26T21:05:08.000+00:00",
    }
    told = io.StringIO()
    Console(width=60, soft_wrap=True, file=told).print(table([row], tuple(row)))
    assert "0" * 32 + "   shop.pack   2026-11-26 21:04:08   2026-11-26 21:05:08" in told.getvalue()
