"""headrace by its own client, hundreds of messages a call, a connection a thread."""

from __future__ import annotations

import headrace
from benchmarks.http_load import BODY_BYTES
from benchmarks.postgres.clients import window
from benchmarks.sqs_wire import bodies


def main() -> None:
    given = window.arguments()
    texts = [text.encode() for text in bodies(given.batch, BODY_BYTES)]

    def work(number: int, counter: window.Counter) -> None:
        with headrace.connect(given.address) as client:
            queue = client.queue(given.queue, create=True, visibility_timeout=600)
            while not counter.stop.is_set():
                queue.send_many(texts)
                done = given.batch
                if given.mode == "cycle":
                    received = queue.receive(max=given.batch, wait=0)
                    queue.delete(received)
                    done = len(received)
                counter.done[number] += done

    window.in_threads(given, work)


if __name__ == "__main__":
    main()
