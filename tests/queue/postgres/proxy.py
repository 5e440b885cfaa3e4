"""A network between a node and its database that a test breaks: cut at a message, or swallowing everything."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from threading import Event, Thread
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_LOOK_S = 0.05
_BYTES = 1 << 16


class Network:
    """Passes bytes between clients and one server, by threads. Context manager.

    Attributes:
        swallows: nothing passes any more, in either direction, and nobody is told: as when a cable is pulled.
        on_bytes: told of each piece that came, from the server or not, before it is passed on; False cuts its connection. Of a
            client a piece is a statement, though many come at once.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))
        self.on_bytes: Callable[[bytes, bool], bool] = lambda _data, _from_server: True
        self.swallows = False
        self._over = Event()
        self._threads = [Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            if select.select([self._listener], [], [], _LOOK_S)[0]:
                client, _ = self._listener.accept()
                thread = Thread(target=self._pass_on, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            swallowed = False  # a connection that has lost bytes is of no use when the cable is in again
            while not self._over.is_set():
                for one in select.select([client, server], [], [], _LOOK_S)[0]:
                    swallowed |= self.swallows
                    if swallowed:
                        self._over.wait(_LOOK_S)
                    elif not self._passed(one, server if one is client else client, from_server=one is server):
                        return

    def _passed(self, one: socket.socket, other: socket.socket, *, from_server: bool) -> bool:
        try:
            data = one.recv(_BYTES)
            if not data:
                return False
            for piece in [data] if from_server else _statements(data):
                if not self.on_bytes(piece, from_server):
                    return False
                if not self.swallows:
                    other.sendall(piece)
        except OSError:
            return False
        return True


def _statements(data: bytes) -> list[bytes]:
    """What a client sends, cut behind each message that executes something."""
    pieces: list[bytes] = []
    begin = at = 0
    while at + 5 <= len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5])  # a letter, the length, which counts itself
        if end > len(data):
            break
        if data[at : at + 1] == b"E":
            pieces.append(data[begin:end])
            begin = end
        at = end
    return [*pieces, data[begin:]] if begin < len(data) else pieces
