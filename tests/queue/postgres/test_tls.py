"""TLS to the database: `verify-full` lets nobody else answer, and each refusal is one clear line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import trustme

from headrace.errors import StoreUnusable
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import CreateQueue, Receive, Send
from headrace.queue.store.postgres import schema
from headrace.queue.store.postgres.checking import findings
from headrace.queue.store.postgres.connecting import connect
from headrace.queue.store.postgres.opening import open_store
from headrace.testing.postgres import Server, find_programs, server
from tests.queue.postgres.nodes import ask

pytestmark = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not in pytest's folders: they are closed to the user that the server runs as."""
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def authorities(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The certificates of the authority that the server's is of, and of another. The server is `localhost`, no address."""
    right, wrong = trustme.CA(), trustme.CA()
    kept = folder / "ours"
    kept.mkdir()
    right.cert_pem.write_to_path(kept / "right.pem")
    wrong.cert_pem.write_to_path(kept / "wrong.pem")
    issued = right.issue_cert("localhost")
    issued.private_key_pem.write_to_path(kept / "key.pem")
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(kept / "cert.pem", append=bool(number))
    yield kept / "right.pem", kept / "wrong.pem"
    shutil.rmtree(kept)


@pytest.fixture(scope="module")
def port(folder: Path, authorities: tuple[Path, Path]) -> Iterator[int]:
    settings = ["ssl = on", "ssl_cert_file = 'cert.pem'", "ssl_key_file = 'key.pem'"]
    place = folder / "server"
    place.mkdir()
    folder.chmod(0o755)
    made = Server(place, settings=settings)
    owner = made.data.stat()
    for name in ("cert.pem", "key.pem"):
        shutil.copy(authorities[0].parent / name, made.data / name)
        (made.data / name).chmod(0o600)
        shutil.chown(made.data / name, owner.st_uid, owner.st_gid)
    hba = made.data / "pg_hba.conf"
    hba.write_text("hostssl all all all trust\n")
    with made:
        with psycopg.connect(_url(made.port, authorities[0]), autocommit=True) as connection:
            schema.migrate(connection)
        yield made.port


def _url(port: int, authority: Path, *, host: str = "localhost", mode: str = "verify-full") -> str:
    return f"postgresql://headrace@{host}:{port}/postgres?sslmode={mode}&sslrootcert={authority}"


def test_node_runs_over_tls(port: int, authorities: tuple[Path, Path]) -> None:
    url = _url(port, authorities[0])
    store = open_store(url)[0]
    arn = arn_of("q")
    _, _, (delivery,) = (
        ask(store, one)[0] for one in (CreateQueue(arn, {}), Send(arn, [Entry(b"x")]), Receive(arn))
    )  # fmt: skip
    assert delivery.message.body == b"x"
    store.close()
    with connect(url) as connection:
        (found,) = [one for one in findings(connection) if one.subject == "TLS"]
    assert found.fact.startswith("TLSv1.")


def test_certificate_of_another_authority_is_refused(port: int, authorities: tuple[Path, Path]) -> None:
    _is_refused(_url(port, authorities[1]), "certificate verify failed")


def test_certificate_of_another_host_is_refused(port: int, authorities: tuple[Path, Path]) -> None:
    _is_refused(_url(port, authorities[0], host="127.0.0.1"), "does not match host name")


def test_server_without_tls_is_refused(authorities: tuple[Path, Path]) -> None:
    _is_refused(_url(server().port, authorities[0]), "server does not support SSL")


def test_client_without_tls_is_refused(port: int, authorities: tuple[Path, Path]) -> None:
    _is_refused(_url(port, authorities[0], mode="disable"), "no encryption")


def test_authority_that_is_not_there_is_named(port: int) -> None:
    _is_refused(_url(port, Path("/nowhere/ca.pem")), "/nowhere/ca.pem")


def _is_refused(url: str, why: str) -> None:
    with pytest.raises(StoreUnusable, match=why) as told:
        open_store(url)
    assert "\n" not in str(told.value)
