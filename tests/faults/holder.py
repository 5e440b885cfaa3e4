"""A worker for the tests of killed holders: it holds a name, takes messages of several queues, and keeps what it has.

    python -m tests.faults.holder URL NAME LIMIT QUEUE …

Each message taken is a line of its standard output. It acknowledges nothing and extends nothing.
"""

from __future__ import annotations

import contextlib
import sys

import headrace
from headrace.errors import OutcomeUnknown
from headrace.native.presence import Presence


def main(url: str, name: str, limit: int, queues: list[str]) -> None:
    with headrace.connect(url, patience=60) as client:
        presence = Presence(client, holder=name, kind="worker", facts=dict)
        presence.start()
        while True:
            with contextlib.suppress(OutcomeUnknown):  # the broker was killed
                for message in client.receive_any(queues, max=limit, holder=name):
                    print(message.text, message.receives, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
