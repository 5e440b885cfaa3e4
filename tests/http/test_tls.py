"""Requests over TLS, and what is refused before there is any."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import InvalidParameter
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.http.messages import Request
from headrace.http.tls import renew, server_tls
from tests.http.support import dial, get, on_loop, post

trustme = pytest.importorskip("trustme")


@pytest.fixture(scope="module")
def authority() -> Any:
    """A certificate authority; trustme's, which is not imported by name since it may be absent."""
    return trustme.CA()


@pytest.fixture
def server_side(authority: Any, tmp_path: Path) -> ssl.SSLContext:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))
    return server_tls(tmp_path / "pem")


@pytest.fixture
def client_side(authority: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@on_loop
async def test_requests_over_tls_are_served_and_marked_secure(
    server_side: ssl.SSLContext, client_side: ssl.SSLContext
) -> None:
    seen: list[bool] = []

    def handler(request: Request) -> None:
        seen.append(request.secure)
        request.respond(200, request.body)

    listener = Listener(handler, tls=server_side)
    port = listener.open_tcp("127.0.0.1", 0)
    reader, writer = await dial(port, client_side)
    writer.write(get("/") + post("/", b"x" * 300_000, "Connection: close"))
    received = await reader.read()
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.endswith(b"x" * 300_000)
    assert seen == [True, True]
    writer.close()
    await listener.close()


@on_loop
async def test_refusal_over_tls_reaches_the_client(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    listener = Listener(lambda _: None, tls=server_side)
    port = listener.open_tcp("127.0.0.1", 0)
    reader, writer = await dial(port, client_side)
    writer.write(b"JUNK\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400")
    writer.close()
    await listener.close()


@on_loop
async def test_client_that_leaves_a_tls_connection_is_noticed(
    server_side: ssl.SSLContext, client_side: ssl.SSLContext
) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()
    waiting: list[Request] = []

    def handler(request: Request) -> None:
        waiting.append(request)
        request.on_disconnect = left.set
        arrived.set()

    listener = Listener(handler, tls=server_side)
    port = listener.open_tcp("127.0.0.1", 0)
    _, writer = await dial(port, client_side)
    writer.write(get("/poll"))
    await arrived.wait()
    assert waiting[0].connected()
    writer.transport.abort()
    await left.wait()
    assert not waiting[0].connected()
    await listener.close()


@on_loop
async def test_plain_http_and_silence_on_a_tls_port_get_nothing(server_side: ssl.SSLContext) -> None:
    listener = Listener(lambda _: None, tls=server_side, limits=Limits(tls_handshake_s=0.1))
    port = listener.open_tcp("127.0.0.1", 0)
    for first in (get("/"), b""):
        reader, writer = await dial(port)
        writer.write(first)
        try:
            received = await reader.read()
        except ConnectionResetError:
            received = b""
        assert b"HTTP" not in received
        writer.close()
    assert listener.statistics().requests == 0
    await listener.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@on_loop
async def test_old_tls_is_refused(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    listener = Listener(lambda _: None, tls=server_side)
    port = listener.open_tcp("127.0.0.1", 0)
    client_side.minimum_version = client_side.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await dial(port, client_side)
    await listener.close()
    server_side.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.raises(InvalidParameter, match=r"TLS 1\.2"):
        Listener(lambda _: None, tls=server_side)


def test_missing_certificate_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        server_tls(tmp_path / "none")


def test_an_encrypted_key_is_an_os_error_and_asks_nobody(authority: Any, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    how = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    (tmp_path / "key").write_bytes(key.private_bytes(*how))
    with pytest.raises(OSError, match="the key is encrypted"):
        server_tls(tmp_path / "cert", tmp_path / "key")


@on_loop
async def test_a_certificate_that_does_not_fit_its_key_leaves_the_one_in_use(
    authority: Any, server_side: ssl.SSLContext, client_side: ssl.SSLContext, tmp_path: Path
) -> None:
    one, other = authority.issue_cert("other.example"), authority.issue_cert("other.example")
    one.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    other.private_key_pem.write_to_path(str(tmp_path / "key"))
    listener = Listener(lambda request: request.respond(200, b"still"), tls=server_side)
    port = listener.open_tcp("127.0.0.1", 0)
    with pytest.raises(OSError, match=r"(?i)mismatch"):
        renew(server_side, tmp_path / "cert", tmp_path / "key")
    reader, writer = await dial(port, client_side)
    writer.write(get("/", "Connection: close"))
    assert (await reader.read()).endswith(b"still")
    writer.close()
    await listener.close()
