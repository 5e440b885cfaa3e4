"""A broker behind PgBouncer, which pools by session: it listens, keeps prepared statements, and goes on when PgBouncer is
started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import headrace
from headrace import postgres
from headrace.queue.store.postgres import schema
from headrace.testing.ports import free_port
from headrace.testing.postgres import Server, find_programs
from tests.broker_process import BrokerProcess, broker
from tests.patience import PATIENCE_S

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`"),
    pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed: install `pgbouncer`"),
]
CONFIG = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = session
default_pool_size = 40
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""


class Pool:
    """A PgBouncer of one's own, as the user that the database runs as: it runs as no root."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._user = "postgres" if os.geteuid() == 0 else None
        self._config = folder / "pgbouncer.ini"
        self.port = free_port()
        self._config.write_text(CONFIG.format(server=server.port, port=self.port, folder=folder))
        (folder / "users").write_text('"headrace" ""\n')
        self.url = f"postgresql://headrace@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, "-q", str(self._config)], user=self._user, group=self._user, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < until and self._process.poll() is None, "PgBouncer does not start"
                time.sleep(0.02)  # another process
            else:
                return

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def database() -> Iterator[tuple[Server, Pool]]:
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder, Server(Path(folder)) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            schema.migrate(connection)
        pool = Pool(Path(folder), server)
        pool.start()
        yield server, pool
        pool.stop()


@pytest.fixture
def node(database: tuple[Server, Pool], tmp_path: Path) -> Iterator[BrokerProcess]:
    with broker(tmp_path / "data", "--store", database[1].url) as process:
        yield process


def test_broker_runs_behind_pgbouncer_and_goes_on_when_that_is_started_again(
    database: tuple[Server, Pool], node: BrokerProcess
) -> None:
    server, pool = database
    with headrace.connect(node.url) as client:
        queue = client.queue("orders", create=True)
        for number in range(20):  # statements are prepared by now
            queue.send(str(number))
        assert len(list(queue.receive(20))) == 20
        got: list[Any] = []
        poll = threading.Thread(target=lambda: got.extend(queue.receive(wait=20)))
        poll.start()
        with psycopg.connect(server.url()) as connection:  # not by the broker: it hears of it
            postgres.send(connection, "orders", "heard")
        poll.join()
        assert [one.text for one in got] == ["heard"]
        pool.stop()
        pool.start()
        queue.send("after")
        assert [one.text for one in queue.receive(wait=20)] == ["after"]
    assert not [line for line in node.raw if "store.refused" in line]
