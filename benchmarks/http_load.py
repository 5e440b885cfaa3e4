"""A load generator for SQS over HTTP: many connections, one process, no SDK.

    python -m benchmarks.http_load http://127.0.0.1:9324 --mode cycle --connections 64 --seconds 5

Each connection sends its next request as soon as the last one is answered (a closed loop: the rate is what the server
gives, the latency is under that load). It is written on epoll and plain sockets rather than asyncio: two system calls
and a few µs of Python a request, so that on a machine of two cores it stays cheaper than the server that it measures.
The share of a core that it used is reported: near 1.0 the generator, not the server, may be the limit.
"""

from __future__ import annotations

import argparse
import gc
import json
import select
import socket
import time
from array import array
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, field
from itertools import cycle as repeat
from typing import Final, Self, TypeAlias
from urllib.parse import urlsplit

from benchmarks.sqs_wire import BATCH, FAILED, RECEIPTS, BadAnswer, Requests, request, split_answer

ANSWER_TIMEOUT_S: Final = 60  # a peer may need seconds for a receive from a deep queue
RECV_BYTES: Final = 65_536
BODY_BYTES: Final = 256
WINDOWS_MAX: Final = 50  # a busy machine may do nothing in a window as short as that of a smoke run


@dataclass
class Tally:
    """What has been answered so far. `messages` counts what the mode is about: sent, or (cycle, drain) deleted."""

    messages: int = 0
    requests: int = 0
    empty_receives: int = 0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))


@dataclass(frozen=True)
class Measured:
    """One run's outcome. Rates are a second of wall time, within the window after the warm-up."""

    mode: str
    connections: int
    messages: int
    seconds: float
    messages_per_s: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    empty_receives: int
    generator_cpu_share: float


Turns: TypeAlias = Generator[bytes, bytes, None]
"""What one connection does: yields its next request, is sent the body of the answer."""

Mode: TypeAlias = Callable[[Requests, Tally], Turns]


def send(requests: Requests, tally: Tally) -> Turns:
    for message in repeat(requests.sends):
        yield message
        tally.messages += 1


def send_batch(requests: Requests, tally: Tally) -> Turns:
    for batch in repeat(requests.batches):
        check_batch((yield batch))
        tally.messages += BATCH


def cycle(requests: Requests, tally: Tally) -> Turns:
    """Send ten, receive ten, delete what was received."""
    for batch in repeat(requests.batches):
        check_batch((yield batch))
        yield from take_and_delete(requests, tally)


def drain(requests: Requests, tally: Tally) -> Turns:
    while True:
        yield from take_and_delete(requests, tally)


MODES: Final[dict[str, Mode]] = {"send": send, "send_batch": send_batch, "cycle": cycle, "drain": drain}


def take_and_delete(requests: Requests, tally: Tally) -> Turns:
    receipts = RECEIPTS.findall((yield requests.receive))
    if not receipts:
        tally.empty_receives += 1
        return
    check_batch((yield requests.delete(receipts)))
    tally.messages += len(receipts)


def check_batch(body: bytes) -> None:
    if FAILED.search(body):
        raise BadAnswer(f"entries of a batch failed: {body[:400]!r}")


class Connection:
    """One client: a socket, its turns, and the request that is under way."""

    def __init__(self, address: tuple[str, int], turns: Turns, tally: Tally) -> None:
        self.address = address
        self._turns = turns
        self._tally = tally
        self._pending = next(turns)
        self._buffer = b""
        self._sent_at = 0.0
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        opened = socket.create_connection(self.address, timeout=ANSWER_TIMEOUT_S)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.settimeout(None)
        return opened

    def ask(self) -> None:
        self._sent_at = time.perf_counter()
        self.socket.sendall(self._pending)

    def answered(self) -> bool:
        """Take what has arrived. False when the server closes connections after an answer: reconnect, then `ask`."""
        data = self.socket.recv(RECV_BYTES)
        if not data:
            raise BadAnswer("the server closed the connection in the middle of an answer")
        self._buffer += data
        answer = split_answer(self._buffer)
        if answer is None:
            return True
        status, body, alive = answer
        if status != 200:
            raise BadAnswer(f"{status}: {body[:400]!r}")
        self._tally.requests += 1
        self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self._pending = self._turns.send(body)
        if alive:
            self.ask()
        return alive

    def reconnect(self) -> None:
        self.socket.close()
        self.socket = self._connect()


class Load:
    """Connections driven by one epoll loop. A context manager: closes them."""

    def __init__(self, address: tuple[str, int], requests: Requests, mode: Mode, connections: int) -> None:
        self.tally = Tally()
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        for _ in range(connections):
            self._start(Connection(address, mode(requests, self.tally), self.tally))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()

    def _start(self, connection: Connection) -> None:
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        connection.ask()

    def run(self, *, seconds: float, messages: float = float("inf")) -> None:
        """Drive until the time is over or the tally has so many messages, whichever comes first.

        Raises:
            BadAnswer: an error, a cut answer, or none within 60 s.
        """
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and self.tally.messages < messages:
            events = self._epoll.poll(min(ANSWER_TIMEOUT_S, seconds))
            if not events and seconds >= ANSWER_TIMEOUT_S:
                raise BadAnswer(f"no answer within {ANSWER_TIMEOUT_S} s")
            for number, _ in events:
                connection = self._connections[number]
                if not connection.answered():
                    self._restart(connection)

    def _restart(self, connection: Connection) -> None:
        """For servers that close after each answer (closing a socket takes it out of the epoll set)."""
        del self._connections[connection.socket.fileno()]
        connection.reconnect()
        self._start(connection)


def ask(endpoint: str, operation: str, **parameters: object) -> dict[str, str]:
    """One request outside the measurement: its decoded answer."""
    url = urlsplit(endpoint)
    with socket.create_connection((url.hostname or "", url.port or 80), timeout=ANSWER_TIMEOUT_S) as opened:
        opened.sendall(request(operation, url.netloc, json.dumps(parameters).encode()))
        buffer = b""
        while (answer := split_answer(buffer)) is None:
            data = opened.recv(RECV_BYTES)
            if not data:
                raise BadAnswer(f"{operation}: the server closed the connection")
            buffer += data
    if answer[0] != 200:
        raise BadAnswer(f"{operation}: {answer[0]} {answer[1][:400]!r}")
    decoded: dict[str, str] = json.loads(answer[1] or b"{}")
    return decoded


class Target:
    """A queue of its own on a server, for one measurement."""

    def __init__(self, endpoint: str, queue: str, body_bytes: int = BODY_BYTES) -> None:
        url = urlsplit(endpoint)
        self._address = (url.hostname or "", url.port or 80)
        queue_url = ask(endpoint, "CreateQueue", QueueName=queue, Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
        self._requests = Requests(url.netloc, queue_url, body_bytes)

    def fill(self, messages: int, *, seconds: float = 3_600, connections: int = 16) -> int:
        """Send a backlog in batches of ten, for at most `seconds`; returns how many messages are known to be there."""
        with Load(self._address, self._requests, send_batch, connections) as load:
            load.run(seconds=seconds, messages=messages)
        return load.tally.messages

    def measure(
        self,
        mode: str,
        *,
        connections: int,
        seconds: float,
        warmup_s: float = 0.5,
        messages: float = float("inf"),
        at_start: Callable[[], None] = lambda: None,
    ) -> Measured:
        """Load the queue and count within a window of `seconds` (or until so many messages are done).

        `at_start` is called when the warm-up is over, to take the server's CPU time.
        """
        with Load(self._address, self._requests, MODES[mode], connections) as load:
            load.run(seconds=warmup_s)
            tally = load.tally
            before = Tally(tally.messages, tally.requests, tally.empty_receives)
            tally.latencies_s = array("d")
            at_start()
            gc.collect()
            gc.disable()
            started, cpu = time.perf_counter(), time.process_time()
            try:
                for _ in range(WINDOWS_MAX):
                    load.run(seconds=seconds, messages=messages)
                    if tally.messages > before.messages:
                        break
            finally:
                gc.enable()
            took, cpu = time.perf_counter() - started, time.process_time() - cpu
        return Measured(
            mode=mode,
            connections=connections,
            messages=tally.messages - before.messages,
            seconds=took,
            messages_per_s=(tally.messages - before.messages) / took,
            requests_per_s=(tally.requests - before.requests) / took,
            p50_ms=percentile_ms(tally.latencies_s, 0.50),
            p99_ms=percentile_ms(tally.latencies_s, 0.99),
            empty_receives=tally.empty_receives - before.empty_receives,
            generator_cpu_share=cpu / took,
        )


def percentile_ms(values_s: Iterable[float], share: float) -> float:
    """The value below which `share` of them lie, in ms; 0 when there are none."""
    ordered = sorted(values_s)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1_000 if ordered else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Load an SQS endpoint and print what it managed, as JSON.")
    parser.add_argument("endpoint", help="for example http://127.0.0.1:9324")
    parser.add_argument("--mode", choices=sorted(MODES), default="send")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES)
    parser.add_argument("--backlog", type=int, default=0, help="messages sent before the measurement starts")
    parser.add_argument("--queue", default=f"load-{time.time_ns()}")
    arguments = parser.parse_args()
    target = Target(arguments.endpoint, arguments.queue, arguments.body_bytes)
    if arguments.backlog:
        target.fill(arguments.backlog)
    measured = target.measure(arguments.mode, connections=arguments.connections, seconds=arguments.seconds)
    print(json.dumps(asdict(measured), indent=2))


if __name__ == "__main__":
    main()
