"""Durable requests of several web servers on several brokers of one PostgreSQL store: whoever took a request, any of them
tells of it, and any of them does it."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headrace.testing.postgres import Server, find_programs
from tests.broker_process import BrokerProcess, ServerProcess, broker, run_command, wait_until
from tests.faults.web.hosts import Hosts, hosts
from tests.faults.web.test_durable_kills import APP, Client
from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve

pytestmark = [
    pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`"),
]

REQUESTS = 120
RULES = """
[[web.durable]]
path = "/orders"
attempts_max = 50
retry_s = 0.05
"""


def app_in(folder: Path, **settings: str) -> Path:
    """A web server's folder. All of them write the same file `done`, beside the folders."""
    folder.mkdir()
    (folder / "shop.py").write_text(APP.replace('open("done"', 'open("../done"'))
    lines = ['[web]\napp = "shop:app"\nworkers = 1', *(f'{name} = "{value}"' for name, value in settings.items())]
    (folder / "headrace.toml").write_text("\n".join(lines) + RULES)
    return folder


def test_any_web_server_tells_of_a_request_and_does_it_though_nodes_and_workers_are_killed(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    from headrace.testing.postgres import databases

    store = databases().of(tmp_path)
    names = [f"order-{number}" for number in range(REQUESTS)]
    with ExitStack() as stack:

        def node(port: int = 0) -> BrokerProcess:
            data = tmp_path / f"node-{port or os.urandom(4).hex()}"
            return stack.enter_context(broker(data, "--store", store, "--port", str(port)))

        nodes = [node(), node()]
        urls = ",".join(one.url for one in nodes)
        servers = [stack.enter_context(serve(app_in(tmp_path / name, broker=urls))) for name in ("one", "two")]
        clients = [Client(servers[place % 2].port, names[place::4]) for place in range(4)]
        for client in clients:
            client.start()
        for kill in range(3):
            goal = REQUESTS * (kill + 1) // 5
            wait_until(lambda: sum(len(client.locations) for client in clients) >= goal)  # noqa: B023
            if kill % 2:
                os.kill(min(servers[0].workers()), signal.SIGKILL)
                continue
            dead = nodes.pop(0)
            dead.process.kill()
            dead.wait_end()
            nodes.append(node(dead.port))
        for client in clients:
            client.join()
        _all_done(tmp_path, names, clients, servers)


def _all_done(folder: Path, names: list[str], clients: list[Client], servers: list[WebProcess]) -> None:
    done = folder / "done"
    wait_until(lambda: set(names) <= set(done.read_text().split()))
    assert set(done.read_text().split()) == set(names)
    for place, client in enumerate(clients):
        other = servers[(place + 1) % 2]  # not the one that took it
        for name, location in client.locations.items():
            wait_until(lambda: _state(other, location) == "done")  # noqa: B023
            assert other.get(f"{location}/response") == (201, b"did " + name.encode())


def _state(server: ServerProcess, location: str) -> str:
    status, body = server.get(location)
    assert status == 200, (status, body)
    return str(json.loads(body)["status"])


@contextmanager
def _reachable_database(network: Hosts) -> Iterator[str]:
    """A server that the hosts may connect to."""
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
        server = Server(Path(folder))
        with (server.data / "postgresql.auto.conf").open("a") as file:
            file.write("listen_addresses = '*'\n")
        with (server.data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {network.network} trust\n")
        with server:
            url = server.url().replace("127.0.0.1", network.address)
            made = run_command([sys.executable, "-m", "headrace", "store", "init", url], cwd=Path(folder))
            assert made.returncode == 0, made.stderr
            yield url


class Host:
    """A broker and a web server on one host, as they would be on a machine."""

    def __init__(self, network: Hosts, place: int, folder: Path, store: str, stack: ExitStack) -> None:
        folder.mkdir()
        self._prefix, self._folder, self._stack = network.on(place), folder, stack
        node = self._start("broker", "--data", "data", "--store", store)
        app = app_in(folder.parent / f"web{place}", broker=str(node.wait_for("broker.ready")["url"]))
        config = ("--config", str(app / "headrace.toml"), "--app-dir", str(app))
        self.web = self._start("serve", *config, "--host", network.address_of(place))
        self.url = str(self.web.wait_for("web.ready")["url"])

    def _start(self, *arguments: str) -> ServerProcess:
        command = [*self._prefix, sys.executable, "-m", "headrace", *arguments, "--port", "0", "--log-format", "json"]
        process = ServerProcess(command, cwd=self._folder, env=None)
        self._stack.callback(_end, process)
        return process

    def status(self, location: str) -> tuple[str, bytes]:
        """What its web server tells of a request, and the answer that the app gave."""
        with urllib.request.urlopen(self.url + location, timeout=PATIENCE_S) as told:
            status = str(json.load(told)["status"])
        if status != "done":
            return status, b""
        with urllib.request.urlopen(f"{self.url}{location}/response", timeout=PATIENCE_S) as told:
            return status, told.read()


def _end(process: ServerProcess) -> None:
    process.process.kill()
    process.process.wait()
    assert process.process.stderr is not None
    process.process.stderr.close()


def test_web_servers_on_two_hosts_behind_a_balancer_share_requests_though_one_host_is_unplugged(tmp_path: Path) -> None:
    names = [f"order-{number}" for number in range(REQUESTS)]
    with hosts(2) as network, _reachable_database(network) as store, ExitStack() as stack:
        two = [Host(network, place, tmp_path / f"host{place}", store, stack) for place in range(2)]
        (tmp_path / "balancer").mkdir()
        (tmp_path / "balancer" / "headrace.toml").write_text(
            f"[[web.routes]]\nproxy = {[host.url for host in two]}\nconnect_timeout = 1.0\nread_timeout = 3.0\n"
        )
        balancer = stack.enter_context(serve(tmp_path / "balancer"))
        clients = [Client(balancer.port, names[place::4]) for place in range(4)]
        for client in clients:
            client.start()
        wait_until(lambda: sum(len(client.locations) for client in clients) >= REQUESTS // 4)
        network.unplug(0)
        for client in clients:
            client.join()
        network.plug(0)
        wait_until(lambda: set(names) <= set((tmp_path / "done").read_text().split()))
        for name, location in [pair for client in clients for pair in client.locations.items()]:
            for host in two:
                wait_until(lambda: host.status(location) == ("done", b"did " + name.encode()))  # noqa: B023
