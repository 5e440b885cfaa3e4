"""headrace by SQS's protocol, ten messages a request: the load generator of the other benchmarks."""

from __future__ import annotations

import itertools
import json
import os
from typing import Final
from urllib.parse import urlsplit

from benchmarks.http_load import (
    BODY_BYTES,
    Load,
    Mode,
    Tally,
    Turns,
    ask,
    check_batch,
    cycle,
    send_batch,
    take_and_delete,
)
from benchmarks.postgres.clients import window
from benchmarks.sqs_wire import BATCH, Requests, bodies, request

GROUPS: Final = 1_000


class FifoRequests(Requests):
    """Requests of a FIFO queue: batches of one group each, every message with a deduplication id of its own."""

    def __init__(self, host: str, queue_url: str, size_bytes: int) -> None:
        super().__init__(host, queue_url, size_bytes)
        self._start = json.dumps({"QueueUrl": queue_url})[:-1] + ',"Entries":['
        self._texts = bodies(64, size_bytes)
        self._run = os.urandom(6).hex()
        self._numbers = itertools.count()

    def batch(self) -> bytes:
        """A SendMessageBatch that no other call makes."""
        number = next(self._numbers)
        group = f"{self._run}-{number % GROUPS}"
        entries = ",".join(
            f'{{"Id":"{at}","MessageBody":"{self._texts[(number + at) % 64]}","MessageGroupId":"{group}",'
            f'"MessageDeduplicationId":"{self._run}-{number}-{at}"}}'
            for at in range(BATCH)
        )
        return request("SendMessageBatch", self._host, (self._start + entries + "]}").encode())


def fifo_send(requests: Requests, tally: Tally) -> Turns:
    assert isinstance(requests, FifoRequests)
    while True:
        check_batch((yield requests.batch()))
        tally.messages += BATCH


def fifo_cycle(requests: Requests, tally: Tally) -> Turns:
    assert isinstance(requests, FifoRequests)
    while True:
        check_batch((yield requests.batch()))
        yield from take_and_delete(requests, tally)


MODES: Final[dict[tuple[str, bool], Mode]] = {
    ("send", False): send_batch, ("cycle", False): cycle, ("send", True): fifo_send, ("cycle", True): fifo_cycle,
}  # fmt: skip


def main() -> None:
    given = window.arguments()
    url = urlsplit(given.address)
    attributes = {"VisibilityTimeout": "600"} | ({"FifoQueue": "true"} if given.fifo else {})
    name = given.queue + (".fifo" if given.fifo else "")
    queue = ask(given.address, "CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]
    requests = (FifoRequests if given.fifo else Requests)(url.netloc, queue, BODY_BYTES)
    address = (url.hostname or "", url.port or 80)
    with Load(address, requests, MODES[given.mode, given.fifo], given.connections) as load:
        for seconds in (given.warmup, given.seconds):
            load.run(seconds=seconds)
            window.tell(load.tally.messages)


if __name__ == "__main__":
    main()
