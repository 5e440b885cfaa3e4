"""A TCP proxy before the broker that cuts connections at random: requests and answers get lost, whole or in the middle."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

READ_BYTES = 65_536


class LossyProxy:
    """Each connection carries `bytes_mean` bytes on average, in both directions together, then is cut where it is."""

    def __init__(self, port: int, chance: random.Random, *, bytes_mean: int) -> None:
        self.cut = 0
        self._broker = ("127.0.0.1", port)
        self._chance = chance
        self._bytes_mean = bytes_mean
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        for one in [self._listener, *self._sockets]:
            _end(one)
        for thread in self._threads:
            thread.join()
        for one in [self._listener, *self._sockets]:
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._carry(client, socket.create_connection(self._broker))

    def _carry(self, client: socket.socket, broker: socket.socket) -> None:
        self._sockets += [client, broker]
        left = _Allowance(int(self._chance.expovariate(1 / self._bytes_mean)))
        for source, target in ((client, broker), (broker, client)):
            thread = threading.Thread(target=self._copy, args=(source, target, left))
            self._threads.append(thread)
            thread.start()

    def _copy(self, source: socket.socket, target: socket.socket, left: _Allowance) -> None:
        with suppress(OSError):
            while data := source.recv(READ_BYTES):
                allowed = left.take(len(data))
                target.sendall(data[:allowed])
                if allowed < len(data):
                    self.cut += 1
                    break
        _end(source)
        _end(target)


class _Allowance:
    """Bytes that a connection may still carry."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._lock = threading.Lock()

    def take(self, wanted: int) -> int:
        with self._lock:
            given = min(wanted, self._left)
            self._left -= given
            return given


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def lossy(port: int, chance: random.Random, *, bytes_mean: int) -> Iterator[LossyProxy]:
    proxy = LossyProxy(port, chance, bytes_mean=bytes_mean)
    try:
        yield proxy
    finally:
        proxy.close()
