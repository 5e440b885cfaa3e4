"""nginx before three brokers, and before two web servers with durable requests, as docs/scale.md configures it: one of them dies,
and nothing is done twice for it."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from headrace.testing.postgres import databases, find_programs
from tests.acceptance.conftest import client_of
from tests.acceptance.web.test_nginx import NGINX, nginx
from tests.broker_process import BrokerProcess, broker, wait_until
from tests.faults.web.test_durable_kills import APP, Client
from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`"),
]

SCALE = Path(__file__).parents[2] / "docs" / "scale.md"
SENDERS, SENDS = 3, 120
QUEUE = "through"


def configuration(name: str, places: dict[str, int]) -> str:
    """That of the document, with ports of this machine. `places`: host -> port."""
    (found,) = re.findall(rf"```nginx\n# {name}[^\n]*\n(.*?)```", SCALE.read_text(encoding="utf-8"), re.DOTALL)
    text = re.sub(r"server (\w+):\d+;", lambda one: f"server 127.0.0.1:{places[one[1]]};", found)
    return (
        re.sub(r"listen \d+;", "listen 127.0.0.1:PORT;", text)
        .replace("{", "{{")
        .replace("}", "}}")
        .replace("PORT", "{port}")
    )


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[BrokerProcess]]:
    """Three, or as many as the test says."""
    store = databases().of(tmp_path)
    with ExitStack() as stack:
        yield [
            stack.enter_context(broker(tmp_path / f"node{place}", "--store", store))
            for place in range(getattr(request, "param", 3))
        ]


@contextmanager
def balanced(folder: Path, ports: list[int]) -> Iterator[Any]:
    """A client of SQS behind nginx that tries each call once, and its queue's URL."""
    folder.mkdir()
    places = {f"queue{place}": port for place, port in enumerate(ports, 1)}
    with nginx(folder, configuration("queues.conf", places)) as port:
        client = client_of(f"http://127.0.0.1:{port}")
        yield client, client.create_queue(QueueName=QUEUE)["QueueUrl"]
        client.close()


class Sender(threading.Thread):
    """Sends each of its bodies once, whatever comes of it."""

    def __init__(self, client: Any, url: str, name: str) -> None:
        super().__init__()
        self._client, self._url, self._name = client, url, name
        self.stored: list[str] = []
        self.tried = 0

    def run(self) -> None:
        for number in range(SENDS):
            body = f"{self._name} {number}"
            try:
                self._client.send_message(QueueUrl=self._url, MessageBody=body)
                self.stored.append(body)
            except (ClientError, BotoCoreError):
                pass  # it may have been stored
            self.tried += 1


def received(client: Any, url: str) -> Counter[str]:
    """All that is in the queue."""
    found: Counter[str] = Counter()
    asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "VisibilityTimeout": 600}
    while messages := client.receive_message(**asked).get("Messages"):
        found.update(message["Body"] for message in messages)
    return found


def test_nothing_is_lost_or_sent_twice_though_a_node_is_killed_and_one_stops(
    nodes: list[BrokerProcess], tmp_path: Path
) -> None:
    with balanced(tmp_path / "nginx", [node.port for node in nodes]) as (client, url):
        senders = [Sender(client, url, str(number)) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        for goal, node, how in ((0.3, nodes[0], signal.SIGKILL), (0.6, nodes[1], signal.SIGTERM)):
            wait_until(lambda: sum(one.tried for one in senders) > goal * SENDERS * SENDS, within_s=PATIENCE_S)  # noqa: B023
            node.signal(how)
            node.wait_end()
        for sender in senders:
            sender.join()
        found = received(client, url)
    stored = [body for sender in senders for body in sender.stored]
    assert set(stored) <= found.keys()
    assert set(found.values()) == {1}
    assert len(stored) > 0.9 * SENDERS * SENDS  # all but what was under way at a node that went: one a sender, or two


@contextmanager
def dies_at_each_request() -> Iterator[tuple[int, list[bytes]]]:
    """A node that takes a request and is gone before it answers: its port, and the requests."""
    taken: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(PATIENCE_S)
                with connection:
                    taken.append(connection.recv(65_536))

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listener.getsockname()[1], taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("nodes", [2], indirect=True)
def test_request_that_a_node_has_taken_is_given_to_no_other(nodes: list[BrokerProcess], tmp_path: Path) -> None:
    client_of(nodes[0].url).create_queue(QueueName=QUEUE)
    with dies_at_each_request() as (port, taken), ExitStack() as stack:
        client, url = stack.enter_context(balanced(tmp_path / "nginx", [nodes[0].port, port, nodes[1].port]))
        outcomes = Counter(status_of_send(client, url) for _ in range(6))
        sends = [request for request in taken if b"AmazonSQS.SendMessage" in request]
        assert outcomes == {200: 6 - len(sends), 502: len(sends)}
        assert sum(received(client, url).values()) == outcomes[200]
        assert taken  # the first that it was given; then nginx leaves it alone for a while


def status_of_send(client: Any, url: str) -> int:
    try:
        return int(client.send_message(QueueUrl=url, MessageBody="x")["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


RULE = '[web]\napp = "shop:app"\nworkers = 1\nbroker = "{broker}"\n[[web.durable]]\npath = "/orders"\nkey_required = true\n'


def web_server(folder: Path, broker_url: str) -> Path:
    folder.mkdir()
    (folder / "shop.py").write_text(APP.replace('open("done"', 'open("../done"'))
    (folder / "headrace.toml").write_text(RULE.format(broker=broker_url))
    return folder


@pytest.mark.parametrize("nodes", [2], indirect=True)
def test_clients_with_keys_see_no_error_though_a_web_server_dies(nodes: list[BrokerProcess], tmp_path: Path) -> None:
    names = [f"order-{number}" for number in range(100)]
    with ExitStack() as stack:
        servers: list[WebProcess] = [
            stack.enter_context(serve(web_server(tmp_path / name, node.url)))
            for name, node in zip(("one", "two"), nodes, strict=False)
        ]
        (tmp_path / "nginx").mkdir()
        places = {f"web{place}": server.port for place, server in enumerate(servers, 1)}
        port = stack.enter_context(nginx(tmp_path / "nginx", configuration("web.conf", places)))
        clients = [Client(port, names[place::4]) for place in range(4)]
        for client in clients:
            client.start()
        wait_until(lambda: sum(len(client.locations) for client in clients) > 30, within_s=PATIENCE_S)
        servers[0].end()
        for client in clients:
            client.join()
        assert {status for client in clients for status in client.statuses} <= {201, 202, 409}
        locations = {name: location for client in clients for name, location in client.locations.items()}
        assert len(set(locations.values())) == len(names)
        assert {ask(port, location) for location in locations.values()} == {200}


def ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
