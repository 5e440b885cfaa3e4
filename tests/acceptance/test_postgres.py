"""boto3 against three brokers on one PostgreSQL, the database killed meanwhile, and a broker, too."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import headrace
from headrace.testing.postgres import Server, find_programs
from tests.acceptance.conftest import client_of
from tests.broker_process import BrokerProcess, broker, run_command, wait_until
from tests.console.serving import serving

pytestmark = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")

WOKEN_WITHIN_S = 15.0  # 15 to 50 ms on an idle machine; a poll that nobody wakes would take 20 s


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Not in pytest's folders: they are closed to the user that the server runs as."""
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder, Server(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def nodes(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[BrokerProcess]]:
    folder = tmp_path_factory.mktemp("nodes")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE runs_brokers LOGIN")
    made = run_command(_headrace("store", "init", server.url(), "--role", "runs_brokers"), cwd=folder)
    assert made.returncode == 0, made.stderr
    url = server.url().replace("headrace@", "runs_brokers@")
    with ExitStack() as stack:
        yield [stack.enter_context(broker(folder / str(number), "--store", url)) for number in range(3)]


@pytest.fixture(scope="module")
def clients(nodes: list[BrokerProcess]) -> list[Any]:
    return [client_of(node.url) for node in nodes]


def _headrace(*arguments: str) -> list[str]:

    return [sys.executable, "-m", "headrace", *arguments]


def _queue(clients: list[Any], name: str, **attributes: str) -> list[str]:
    """Make a queue on the first node; its URL at each."""
    clients[0].create_queue(QueueName=name, Attributes=attributes)
    return [wait_until(lambda: _url(client, name)) for client in clients]  # noqa: B023 - used at once


def _url(client: Any, name: str) -> str:
    """Empty while its node does not know the queue: it looks for half a second only."""
    try:
        return str(client.get_queue_url(QueueName=name)["QueueUrl"])
    except client.exceptions.QueueDoesNotExist:
        return ""


def test_message_goes_through_three_nodes(clients: list[Any]) -> None:
    urls = _queue(clients, "through")
    sent = clients[0].send_message(QueueUrl=urls[0], MessageBody="x")
    (received,) = clients[1].receive_message(QueueUrl=urls[1], WaitTimeSeconds=20)["Messages"]
    assert received["MessageId"] == sent["MessageId"]
    clients[2].delete_message(QueueUrl=urls[2], ReceiptHandle=received["ReceiptHandle"])
    counts = clients[0].get_queue_attributes(QueueUrl=urls[0], AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_long_poll_is_woken_by_a_send_on_another_node(clients: list[Any]) -> None:
    urls = _queue(clients, "woken")
    got: list[Any] = []
    poll = threading.Thread(target=lambda: got.append(clients[1].receive_message(QueueUrl=urls[1], WaitTimeSeconds=20)))
    poll.start()
    time.sleep(
        1.5
    )  # the poll waits by now, and the look of each second has been had: nothing else would wake it at once
    clients[0].send_message(QueueUrl=urls[0], MessageBody="x")
    poll.join(WOKEN_WITHIN_S)
    assert [message["Body"] for message in got[0]["Messages"]] == ["x"]


def test_every_node_tells_of_all_and_so_do_top_and_the_console(nodes: list[BrokerProcess], tmp_path: Path) -> None:
    urls = sorted(node.url for node in nodes)
    for node in nodes:
        with headrace.connect(node.url) as client:
            wait_until(lambda: sorted(one.facts["url"] for one in client.holders("broker")) == urls)
    top = _headrace("top", "--once", "--every", "100ms", "-o", "json", "--broker", nodes[0].url)
    report = json.loads(run_command(top, cwd=tmp_path).stdout)
    assert sorted(one["node"] for one in report["nodes"]) == urls
    assert all(one["requests_rate"] is not None and "send_rate" in one for one in report["nodes"])
    with serving(broker=nodes[1].url) as served:
        served.look()
        assert sorted(one["url"] for one in served.browser().get("/api/workers").json["nodes"]) == urls
        shown = served.browser().get("/workers").text
        assert all(url in shown for url in urls) and "3 nodes" in served.browser().get("/").text
        assert served.browser().get("/api/").json["nodes"] == 3


FIFO = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "600"}


def test_fifo_group_goes_through_three_nodes_in_order(clients: list[Any]) -> None:
    urls = _queue(clients, "order.fifo", **FIFO)
    sent = [
        client.send_message(QueueUrl=url, MessageBody=str(number), MessageGroupId="g")
        for number, (client, url) in enumerate(zip(clients, urls, strict=True))
    ]
    again = clients[2].send_message(QueueUrl=urls[2], MessageBody="0", MessageGroupId="g")
    assert (again["MessageId"], again["SequenceNumber"]) == (sent[0]["MessageId"], sent[0]["SequenceNumber"])
    asked = {"MaxNumberOfMessages": 2, "ReceiveRequestAttemptId": "try"}
    first = clients[1].receive_message(QueueUrl=urls[1], **asked)["Messages"]
    assert clients[0].receive_message(QueueUrl=urls[0], **asked)["Messages"] == first
    assert [message["Body"] for message in first] == ["0", "1"]
    assert "Messages" not in clients[2].receive_message(QueueUrl=urls[2])
    for message in first:
        clients[0].delete_message(QueueUrl=urls[0], ReceiptHandle=message["ReceiptHandle"])
    (last,) = clients[2].receive_message(QueueUrl=urls[2], WaitTimeSeconds=20)["Messages"]
    assert last["Body"] == "2"


def test_long_poll_is_woken_by_a_delete_that_frees_a_group_on_another_node(clients: list[Any]) -> None:
    urls = _queue(clients, "freed.fifo", **FIFO)
    for body in ("1", "2"):
        clients[0].send_message(QueueUrl=urls[0], MessageBody=body, MessageGroupId="g")
    (held,) = clients[0].receive_message(QueueUrl=urls[0], MaxNumberOfMessages=1)["Messages"]
    got: list[Any] = []
    poll = threading.Thread(target=lambda: got.append(clients[1].receive_message(QueueUrl=urls[1], WaitTimeSeconds=20)))
    poll.start()
    time.sleep(1.5)  # as above
    clients[2].delete_message(QueueUrl=urls[2], ReceiptHandle=held["ReceiptHandle"])
    poll.join(WOKEN_WITHIN_S)
    assert [message["Body"] for message in got[0]["Messages"]] == ["2"]


def test_fifo_groups_keep_their_order_under_load_of_three_nodes(clients: list[Any]) -> None:
    urls = _queue(clients, "load.fifo", **FIFO)
    each, groups = 40, ("a", "b")
    received: dict[str, list[str]] = {f"{group}{number}": [] for group in groups for number in range(3)}

    def produce(number: int) -> None:
        for count in range(each):
            entries = [
                {"Id": group, "MessageBody": f"{group}{number} {count}", "MessageGroupId": group} for group in groups
            ]
            assert "Failed" not in clients[number].send_message_batch(QueueUrl=urls[number], Entries=entries)

    def consume(number: int) -> None:
        client, url = clients[number], urls[number]
        while sum(map(len, received.values())) < len(received) * each:
            asked = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=2)
            found = asked.get("Messages", [])
            for message in found:
                source, count = message["Body"].split()
                received[source].append(count)  # nobody else has the group
            entries = [{"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]} for at, one in enumerate(found)]
            assert not found or "Failed" not in client.delete_message_batch(QueueUrl=url, Entries=entries)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number) for work in (produce, consume) for number in range(3)]:
            done.result()
    assert received == {source: [str(count) for count in range(each)] for source in received}


@pytest.mark.serial
def test_dead_letters_move_tasks_purges_and_counts_are_those_of_all_nodes(clients: list[Any]) -> None:
    dead = _queue(clients, "rules-dead")
    arn = clients[0].get_queue_attributes(QueueUrl=dead[0], AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    urls = _queue(clients, "rules", RedrivePolicy=policy, VisibilityTimeout="0")
    for number in range(3):
        clients[number].send_message(QueueUrl=urls[number], MessageBody=str(number))
    clients[1].receive_message(QueueUrl=urls[1], MaxNumberOfMessages=10)
    assert "Messages" not in clients[2].receive_message(QueueUrl=urls[2], MaxNumberOfMessages=10)
    assert _visible(clients[0], dead[0]) == 3

    clients[0].start_message_move_task(SourceArn=arn)
    wait_until(lambda: _visible(clients[1], urls[1]) == 3)
    (task,) = clients[2].list_message_move_tasks(SourceArn=arn)["Results"]
    wait_until(lambda: clients[2].list_message_move_tasks(SourceArn=arn)["Results"][0]["Status"] == "COMPLETED")
    assert task["ApproximateNumberOfMessagesToMove"] == 3

    clients[2].purge_queue(QueueUrl=urls[2])
    assert _visible(clients[0], urls[0]) == 0
    clients[1].send_message(QueueUrl=urls[1], MessageBody="new")
    (received,) = clients[0].receive_message(QueueUrl=urls[0], WaitTimeSeconds=20, MaxNumberOfMessages=10)["Messages"]
    assert received["Body"] == "new"


def _visible(client: Any, url: str) -> int:
    counts = client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"])


def test_nothing_acknowledged_is_lost_when_the_database_is_killed(server: Server, clients: list[Any]) -> None:
    urls = _queue(clients, "killed", VisibilityTimeout="600")
    sent: set[str] = set()
    over = threading.Event()

    def send(number: int) -> None:
        count = 0
        while not over.is_set():
            count += 1
            body = f"{number}-{count}"
            try:
                clients[number].send_message(QueueUrl=urls[number], MessageBody=body)
            except clients[number].exceptions.ClientError:
                continue
            sent.add(body)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for sender in senders:
        sender.start()
    wait_until(lambda: len(sent) > 50)
    server.stop(signal.SIGKILL)
    server.start()
    before = len(sent)
    wait_until(lambda: len(sent) > before + 50)
    over.set()
    for sender in senders:
        sender.join()
    assert sent <= _received(clients[0], urls[0])


def test_leases_of_a_killed_node_end_on_time(server: Server, clients: list[Any], tmp_path: Path) -> None:
    urls = _queue(clients, "leased", VisibilityTimeout="2")
    clients[0].send_message(QueueUrl=urls[0], MessageBody="x")
    with broker(tmp_path / "data", "--store", server.url()) as doomed:
        client = client_of(doomed.url)
        url = client.get_queue_url(QueueName="leased")["QueueUrl"]
        assert client.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"]
        doomed.process.kill()
        doomed.process.wait()
        with pytest.raises(headrace.errors.StoreUnusable, match="its broker keeps its messages in postgresql://"):
            headrace.connect(tmp_path / "data")  # not a store of its own, which nobody would look into
        again = clients[1].receive_message(QueueUrl=urls[1], WaitTimeSeconds=20, AttributeNames=["All"])
    assert again["Messages"][0]["Attributes"]["ApproximateReceiveCount"] == "2"


def _received(client: Any, url: str) -> set[str]:
    bodies: set[str] = set()
    while found := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        bodies |= {message["Body"] for message in found}
    return bodies
