"""The broker as a process: what its supervisor, its operator and its clients see of start and end."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import resource
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, broker, command, environment, run_to_end, wait_until
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker for tests that only look."""
    with broker(tmp_path_factory.mktemp("node") / "data") as one:
        yield one


# ------------------------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/health/live", b'{"status":"live"}\n'),
        ("/healthz", b'{"status":"live"}\n'),
        ("/health/ready", b'{"status":"ready"}\n'),
        ("/readyz", b'{"status":"ready"}\n'),
    ],
)
def test_health_is_told_to_anybody(shared: BrokerProcess, path: str, answer: bytes) -> None:
    assert shared.get(path) == (200, answer)
    assert shared.get(path, headers={"Host": "10.0.0.7:9324"}) == (200, answer)
    assert shared.get_by_socket(path) == (200, answer)


def test_metrics_count_what_happened(shared: BrokerProcess) -> None:
    url = shared.sqs("CreateQueue", QueueName="counted")[1]["QueueUrl"]
    for _ in range(3):
        assert shared.sqs("SendMessage", QueueUrl=url, MessageBody="x")[0] == 200
    shared.sqs("ReceiveMessage", QueueUrl=url)
    assert shared.metric('headrace_queue_messages{queue="counted",state="visible"}') == 2
    assert shared.metric('headrace_queue_messages{queue="counted",state="in_flight"}') == 1
    assert shared.metric('headrace_queue_sent_total{queue="counted"}') == 3
    assert shared.metric("headrace_store_commit_seconds_count") >= 4
    assert shared.metric("headrace_http_requests_total") >= 5


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_web_pages_get_nothing(shared: BrokerProcess, headers: dict[str, str]) -> None:
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    status, body = shared.get("/", method="POST", body=b"Action=ListQueues", headers=form)
    assert status == 403
    assert b"<Code>AccessDenied</Code>" in body
    json_headers = {**headers, "Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.ListQueues"}
    status, body = shared.get("/", method="POST", body=b"{}", headers=json_headers)
    assert status in (400, 403)
    assert "AccessDenied" in json.loads(body)["__type"]
    status, body = shared.get("/headrace/v1/call", method="POST", body=b"{}", headers=headers)
    assert (status, json.loads(body)["error"]) == (403, "AccessDenied")
    assert shared.get("/metrics", headers=headers)[0] == 403


def test_metrics_are_not_told_through_a_proxy(shared: BrokerProcess) -> None:
    assert shared.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})[0] == 403
    assert shared.get("/metrics", method="POST")[0] == 405
    assert shared.get_by_socket("/metrics")[0] == 200


def test_allowed_host_is_served(tmp_path: Path) -> None:
    with broker(tmp_path / "data", "--allow-host", "Queue.Example", "--metrics", "off") as one:
        for host in ("queue.example", "queue.example:9324", "sqs.eu-west-1.queue.example"):
            status, _ = one.get("/?Action=ListQueues", headers={"Host": host})
            assert status == 200
        assert one.get("/?Action=ListQueues", headers={"Host": "other.example"})[0] == 403
        assert one.get("/metrics")[0] == 403
        assert one.get_by_socket("/metrics")[0] == 403


def test_malformed_http_is_answered_in_the_protocols_form(shared: BrokerProcess) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=PATIENCE_S) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["__type"].endswith("#MalformedHttpRequestException")


# ------------------------------------------------------------------------------------------------------------- start


def test_data_folder_and_its_files_are_private(shared: BrokerProcess) -> None:
    assert stat.S_IMODE(shared.data.stat().st_mode) == 0o700
    for path in shared.data.iterdir():
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


def test_second_broker_on_the_folder_is_refused(shared: BrokerProcess, tmp_path: Path) -> None:
    ended = run_to_end("--data", str(shared.data), "--port", "0", cwd=tmp_path)
    assert ended.returncode == 1
    assert str(shared.data) in ended.stderr
    assert f"another broker (pid {shared.process.pid})" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert shared.get("/health/ready")[0] == 200


def test_port_in_use_is_refused(shared: BrokerProcess, tmp_path: Path) -> None:
    ended = run_to_end("--data", str(tmp_path / "data"), "--port", str(shared.port), cwd=tmp_path)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{shared.port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unusable_folder_ends_it_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    read_only = tmp_path / "read-only"
    read_only.mkdir(mode=0o500)
    open_to_others = tmp_path / "open"
    open_to_others.mkdir()
    (open_to_others / "something").touch()
    open_to_others.chmod(0o777)
    folders = [tmp_path / "file", tmp_path / "file" / "data", open_to_others]
    if Path("/sys").is_dir():  # nobody makes folders there, not even root
        folders.append(Path("/sys/headrace"))
    if os.geteuid() != 0:  # root writes wherever it likes
        folders += [read_only, read_only / "data"]
    for folder in folders:
        ended = run_to_end("--data", str(folder), "--port", "0", cwd=tmp_path)
        assert ended.returncode == 1
        assert ended.stderr.count("\n") == 1
        assert str(folder) in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "name the access keys with --keys"),
        (["--host", "0.0.0.0", "--behind-proxy"], "name the access keys with --keys"),
        (["--port", "70000"], "--port: '70000' does not fit"),
        (["--prot", "1"], "No such option"),
        (["--keys", "absent.toml"], "absent.toml: cannot be read"),
        (["--certfile", "absent.pem"], "needs --keyfile"),
        (["--certfile", "absent.pem", "--keyfile", "absent.pem"], "cannot be used"),
        (["--config", "absent.toml"], "absent.toml: cannot be read"),
        (["--cooldowns", "maybe"], "'maybe' is not one of"),
    ],
)
def test_wrong_settings_end_with_code_two(tmp_path: Path, arguments: list[str], reason: str) -> None:
    ended = run_to_end("--data", "data", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert reason in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


def test_settings_come_from_file_and_environment(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[broker]\nlog-format = 'json'\nmetrics = 'off'\n")
    with broker(tmp_path / "data", env={"HEADRACE_BROKER__ALLOW_HOST": "a.example"}) as one:
        assert one.get("/metrics")[0] == 403
        assert one.get("/?Action=ListQueues", headers={"Host": "a.example"})[0] == 200


def test_descriptor_limit_is_raised(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = (min(256, hard), hard)
    with broker(tmp_path / "data", before_start=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, low)) as one:
        now, _ = resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE)
    assert now == (min(hard, 1_048_576) if hard != resource.RLIM_INFINITY else 1_048_576)


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE_S)
        manager.bind(str(tmp_path / "notify"))
        with broker(tmp_path / "data", env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as one:
            assert manager.recv(100) == b"READY=1"
            one.signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            assert one.wait_end() == 0


def test_a_terminal_is_greeted_with_what_to_type_next(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("--data", "data", "--port", "0"),
        cwd=tmp_path,
        env=environment(TERM="xterm"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while b"Ctrl-C stops" not in seen:
            seen += os.read(ours, 4_096)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    found = re.search(rb"serves SQS at \x1b\[1m(http://127\.0\.0\.1:[0-9]+)\x1b", seen)
    assert found is not None
    assert b"aws sqs list-queues --endpoint-url " + found[1] in seen
    assert b"headrace queue ls --broker " + found[1] in seen
    assert b"action=broker.ready" in seen  # text, for people


def test_a_long_folder_name_costs_only_the_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / "data"
    folder.parent.mkdir()
    with broker(folder, cwd=folder.parent) as one:  # the relative name is short enough
        assert (folder / "headrace.sock").exists()
        assert one.get("/health/ready")[0] == 200
    with broker(folder, cwd=Path("/")) as one:
        assert any(line.get("action") == "broker.no_socket" for line in one.lines)
        assert one.get("/health/ready")[0] == 200


# --------------------------------------------------------------------------------------------------------------- end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_answers_long_polls_empty_and_ends_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    with broker(tmp_path / "data") as one:
        url = one.sqs("CreateQueue", QueueName="q")[1]["QueueUrl"]
        answers: list[tuple[int, dict[str, object]]] = []
        poll = threading.Thread(
            target=lambda: answers.append(one.sqs("ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20))
        )
        poll.start()
        wait_until(lambda: one.metric("headrace_polls_waiting") == 1)
        started = time.monotonic()
        one.signal(number)
        assert one.wait_end() == 0
        poll.join(PATIENCE_S)
        assert time.monotonic() - started < 15  # the poll's own time is 20 s
        assert answers == [(200, {})]
        assert not (one.data / "headrace.sock").exists()
        assert [line["action"] for line in map(json.loads, one.raw[-2:])] == ["broker.stopping", "broker.stopped"]


def test_stop_leaves_a_checkpointed_database(tmp_path: Path) -> None:
    """Nothing waits in the WAL: the file alone is the backup."""
    with broker(tmp_path / "data") as one:
        url = one.sqs("CreateQueue", QueueName="q")[1]["QueueUrl"]
        one.sqs("SendMessage", QueueUrl=url, MessageBody="x")
        wal = one.data / "headrace.db-wal"
        assert wal.stat().st_size > 0
        one.signal(signal.SIGTERM)
        assert one.wait_end() == 0
        assert not wal.exists() or wal.stat().st_size == 0


def test_what_was_accepted_is_there_after_stop_and_after_kill(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in (signal.SIGTERM, signal.SIGKILL):
        with broker(data) as one:
            url = one.sqs("CreateQueue", QueueName="kept")[1]["QueueUrl"]
            assert one.sqs("SendMessage", QueueUrl=url, MessageBody=f"before {number.name}")[0] == 200
            one.signal(number)
            assert one.wait_end() == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    with broker(data) as one:
        url = one.sqs("GetQueueUrl", QueueName="kept")[1]["QueueUrl"]
        got = one.sqs("ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10)[1]["Messages"]
        assert [message["Body"] for message in got] == ["before SIGTERM", "before SIGKILL"]


def hanging_upload(one: BrokerProcess) -> socket.socket:
    """A client that has sent half a request, and holds a drain up."""
    client = socket.create_connection(("127.0.0.1", one.port), timeout=PATIENCE_S)
    client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b"x" * 100)
    wait_until(lambda: one.metric("headrace_http_connections") == 2)
    return client


def test_a_hanging_client_holds_the_end_up_no_longer_than_the_drain(tmp_path: Path) -> None:
    with broker(tmp_path / "data", "--drain", "1s") as one, hanging_upload(one):
        started = time.monotonic()
        one.signal(signal.SIGTERM)
        assert one.wait_end() == 0
        assert time.monotonic() - started < 12  # if nothing is said, 14 s


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    with broker(tmp_path / "data", "--drain", "14s") as one, hanging_upload(one):
        one.signal(signal.SIGINT)
        one.wait_for("broker.stopping")
        started = time.monotonic()
        one.signal(signal.SIGINT)
        assert one.wait_end() == 1
        assert time.monotonic() - started < 12


def test_requests_on_open_connections_do_not_fail_while_it_stops(tmp_path: Path) -> None:
    """Each client sends one request after another until its connection is closed: every answer it gets is a good one."""
    with broker(tmp_path / "data") as one:
        url = one.sqs("CreateQueue", QueueName="q")[1]["QueueUrl"]
        body = json.dumps({"QueueUrl": url, "MessageBody": "x"})
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.SendMessage"}
        bad: list[int] = []
        good = [0] * 8

        def client(index: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=PATIENCE_S)
            connection.connect()
            connection.auto_open = 0
            try:
                while True:
                    connection.request("POST", "/", body, headers)
                    answer = connection.getresponse()
                    answer.read()
                    good[index] += answer.status == 200
                    if answer.status != 200:
                        bad.append(answer.status)
            except (OSError, http.client.HTTPException):
                return  # closed: the next request would have gone to the next broker
            finally:
                connection.close()

        clients = [threading.Thread(target=client, args=(index,)) for index in range(8)]
        for thread in clients:
            thread.start()
        wait_until(lambda: min(good) > 5)
        one.signal(signal.SIGTERM)
        for thread in clients:
            thread.join(PATIENCE_S)
        assert one.wait_end() == 0
        assert bad == []


def test_log_lines_hold_no_bodies(tmp_path: Path) -> None:
    with broker(tmp_path / "data", "--log-level", "debug") as one:
        url = one.sqs("CreateQueue", QueueName="q")[1]["QueueUrl"]
        one.sqs("SendMessage", QueueUrl=url, MessageBody="the-body-itself")
        one.sqs("SendMessage", QueueUrl=url, MessageBody="the-body-itself\x00")
        one.get("/", method="POST", body=b"the-body-itself")
        one.signal(signal.SIGTERM)
        one.wait_end()
        assert one.raw
        assert not [line for line in one.raw if "the-body-itself" in line]
        assert all("action" in json.loads(line) for line in one.raw)
