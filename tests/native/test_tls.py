from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import headrace
from headrace.native.http_sync import HttpTransport
from tests.native.served import ServedBroker


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA, tmp_path: Path) -> Iterator[ServedBroker]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(context)
    broker = ServedBroker(tmp_path, tls=context)
    yield broker
    broker.stop()


def test_both_clients_speak_tls(
    secure: ServedBroker, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with headrace.connect(secure.url, patience=0) as client:
        queue = client.queue("orders", create=True)
        queue.send_many([b"x" * 1_000] * 1_000)
        assert len(queue.receive(600, wait=0)) == 600
        assert isinstance(client._transport, HttpTransport)
        assert len(client._transport._nodes[0]._idle) == 1

    async def main() -> None:
        async with headrace.connect_async(secure.url, patience=0) as client:
            queue = await client.queue("orders")
            assert len(await queue.receive(1_000, wait=0)) == 400

    asyncio.run(main())


def test_certificate_of_somebody_else_is_refused(secure: ServedBroker) -> None:
    with headrace.connect(secure.url, patience=0) as client, pytest.raises(headrace.Unavailable, match="certificate"):
        client.queues()
    assert secure.requests == []
