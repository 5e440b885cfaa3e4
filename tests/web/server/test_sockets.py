from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.http.listener import AddressUnusable
from headrace.web.server import sockets
from headrace.web.server.sockets import address_of, distribute, export, inherited, open_one, open_sockets


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    """Sockets that are closed after the test."""
    found: list[socket.socket] = []
    yield found
    for one in found:
        one.close()


def test_each_process_has_a_socket_of_its_own_on_one_port(opened: list[socket.socket]) -> None:
    opened += open_sockets("127.0.0.1", 0, None, count=3)
    assert len(opened) == (3 if sockets.SPREADS else 1)
    assert len({one.getsockname()[1] for one in opened}) == 1
    with socket.create_connection(opened[0].getsockname()):  # listened to at once
        pass


def test_a_port_that_another_spreads_over_is_noticed(opened: list[socket.socket]) -> None:
    opened += open_sockets("127.0.0.1", 0, None, count=2)
    with pytest.raises(AddressUnusable, match="in use"):
        open_sockets("127.0.0.1", opened[0].getsockname()[1], None, count=2)


def test_a_dead_servers_socket_file_is_replaced_and_a_live_ones_is_not(
    opened: list[socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "s"
    open_sockets("", 0, path, count=2)[0].close()
    assert path.is_socket()
    opened += open_sockets("", 0, path, count=2)
    assert len(opened) == 1
    with pytest.raises(AddressUnusable, match="another server"):
        open_one("", 0, path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(AddressUnusable, match="not a socket"):
        open_one("", 0, tmp_path / "s")
    assert (tmp_path / "s").read_text() == "mine"


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AddressUnusable, match="longer than"):
        open_one("", 0, tmp_path / ("x" * 200))


def test_a_successor_finds_the_sockets_once(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    opened += open_sockets("127.0.0.1", 0, None, count=1)
    passed = opened[0].dup()
    for name, value in export([passed], []).items():
        monkeypatch.setenv(name, value)
    passed.detach()
    found = inherited("listen")
    opened += found
    assert [one.getsockname() for one in found] == [opened[0].getsockname()]
    assert inherited("listen") == []
    assert inherited("admin") == []


def test_socket_of_systemd_that_is_not_at_the_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = socket.create_server(("127.0.0.1", 0)).detach()
    monkeypatch.setattr(sockets, "_LISTEN_FDS_START", passed)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(AddressUnusable, match="leave out --uds"):
        sockets.open_sockets("127.0.0.1", 0, tmp_path / "socket", count=1)


def test_socket_of_systemd_at_the_path_is_taken(
    opened: list[socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = socket.socket(socket.AF_UNIX)
    passed.bind(str(tmp_path / "socket"))
    monkeypatch.setattr(sockets, "_LISTEN_FDS_START", passed.detach())
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    opened += sockets.open_sockets("127.0.0.1", 0, tmp_path / "socket", count=1)
    assert opened[-1].getsockname() == str(tmp_path / "socket")


def test_sockets_of_systemd_are_taken(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    opened += open_sockets("127.0.0.1", 0, None, count=1)
    passed = os.dup(opened[0].fileno())
    monkeypatch.setattr(sockets, "_LISTEN_FDS_START", passed)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    opened += open_sockets("127.0.0.1", 1, None, count=1)
    assert opened[1].getsockname() == opened[0].getsockname()
    assert "LISTEN_FDS" not in os.environ


def test_every_socket_is_dealt_to_somebody_and_everybody_gets_one() -> None:
    four = [socket.socket() for _ in range(4)]
    try:
        assert distribute(four, 4) == [[one] for one in four]
        assert distribute(four, 3) == [[four[0], four[3]], [four[1]], [four[2]]]
        assert distribute(four[:2], 1) == [four[:2]]
        assert distribute(four[:2], 3) == [[four[0]], [four[1]], [four[0]]]
    finally:
        for one in four:
            one.close()


def test_addresses_are_told_as_urls(opened: list[socket.socket], tmp_path: Path) -> None:
    opened += [open_one("127.0.0.1", 0, None), open_one("", 0, tmp_path / "s")]
    port = opened[0].getsockname()[1]
    assert address_of(opened[0], secure=False) == f"http://127.0.0.1:{port}"
    assert address_of(opened[0], secure=True) == f"https://127.0.0.1:{port}"
    assert address_of(opened[1], secure=True) == f"unix:{tmp_path / 's'}"
    if socket.has_ipv6:
        opened.append(open_one("[::1]", 0, None))
        assert address_of(opened[2], secure=False).startswith("http://[::1]:")
