from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from headrace.native.http_sync import HttpTransport
from tests.native.served import ServedBroker

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return cert, key


@pytest.fixture
def secure(certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[ServedBroker]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*certificate)
    broker = ServedBroker(tmp_path, tls=context)
    yield broker
    broker.stop()


def test_both_clients_speak_tls(
    secure: ServedBroker, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with headrace.connect(secure.url, patience=0) as client:
        queue = client.queue("orders", create=True)
        queue.send_many([b"x" * 1_000] * 1_000)
        assert len(queue.receive(600, wait=0)) == 600
        assert isinstance(client._transport, HttpTransport)
        assert len(client._transport._idle) == 1

    async def main() -> None:
        async with headrace.connect_async(secure.url, patience=0) as client:
            queue = await client.queue("orders")
            assert len(await queue.receive(1_000, wait=0)) == 400

    asyncio.run(main())


def test_certificate_of_somebody_else_is_refused(secure: ServedBroker) -> None:
    with headrace.connect(secure.url, patience=0) as client, pytest.raises(headrace.Unavailable, match="certificate"):
        client.queues()
    assert secure.requests == []
