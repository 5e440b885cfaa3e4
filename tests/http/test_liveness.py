"""Both ways of asking the kernel whether the client is there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from headrace.http.liveness import has_input, peek, peer_present

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("present", [peer_present, peek])
def test_client_is_present_until_it_closes(pair: Pair, present: Callable[[int], bool]) -> None:
    ours, theirs = pair
    assert present(ours.fileno())
    theirs.sendall(b"x")
    assert present(ours.fileno())
    assert ours.recv(2) == b"x"  # asking has taken nothing
    theirs.close()
    assert not present(ours.fileno())


@pytest.mark.parametrize("present", [peer_present, peek])
def test_half_closed_client_counts_as_gone(pair: Pair, present: Callable[[int], bool]) -> None:
    ours, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    assert not present(ours.fileno())


def test_unread_bytes_do_not_hide_that_the_client_has_gone(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"pipelined")
    theirs.close()
    assert not peer_present(ours.fileno())


def test_input_is_bytes_or_the_end(pair: Pair) -> None:
    ours, theirs = pair
    assert not has_input(ours.fileno())
    theirs.sendall(b"x")
    assert has_input(ours.fileno())
    assert ours.recv(1) == b"x"
    assert not has_input(ours.fileno())
    theirs.close()
    assert has_input(ours.fileno())
