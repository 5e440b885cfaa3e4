"""The keys of all that tasks keep in the broker, under the name `work`. The one place.

    u/<key>                         unique lock           r/<task id>            result
    x/<expiry ms>/<kind>/<id>       expiry index          c/<task id>            cancel wish
    a/<task id>                     attempts of a message that is retried in its place (FIFO queues, consumers)
    g/<flow id>                     group counter         g/<flow id>/join       what joins it
    g/<flow id>/m/<n>               member's result
    l/<limit>/<key>                 limits                s/<schedule>           schedule row
    h/<time>/<worker>               chunk of the run log

Keys that people choose are hashed where they are long: a state key has 1,024 bytes at most.
"""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import quote

from headrace.work import limits

NAME: Final = "work"
"""The transactions' name: whose state it is."""

UNIQUE: Final = b"u/"
RESULT: Final = b"r/"
EXPIRY: Final = b"x/"
CANCEL: Final = b"c/"
ATTEMPTS: Final = b"a/"
GROUP: Final = b"g/"
LIMIT: Final = b"l/"
SCHEDULE: Final = b"s/"
RUNS: Final = b"h/"


def unique_lock(key: str) -> bytes:
    return UNIQUE + bounded(key)


def result(task_id: str) -> bytes:
    return RESULT + task_id.encode()


def cancel(task_id: str) -> bytes:
    return CANCEL + task_id.encode()


def attempts(task_id: str) -> bytes:
    return ATTEMPTS + task_id.encode()


def group(workflow_id: str) -> bytes:
    return GROUP + workflow_id.encode()


def members(workflow_id: str) -> bytes:
    """What the keys of the members' results start with."""
    return group(workflow_id) + b"/m/"


def member(workflow_id: str, index: int) -> bytes:
    return b"%s%06d" % (members(workflow_id), index)


def join(workflow_id: str) -> bytes:
    return group(workflow_id) + b"/join"


def limit(name: str, key: str) -> bytes:
    """What the keys of a limit's rows start with. Quoted: no key is another's preflight."""
    return LIMIT + bounded(quote(name, safe="")) + b"/" + bounded(quote(key, safe="")) + b"/"


def schedule(name: str) -> bytes:
    return SCHEDULE + bounded(name)


def runs(at_ms: int, worker: str) -> bytes:
    return b"%s%014d/%s" % (RUNS, at_ms, bounded(worker))


def expiry(at_ms: int, key: bytes) -> bytes:
    """The index row that has `key` removed at `at_ms`: the kind is the key's own first letter."""
    return b"%s%014d/%s" % (EXPIRY, at_ms, key)


def of_expiry(row: bytes) -> tuple[int, bytes]:
    """(at_ms, key) of an index row."""
    at_ms, _, key = row[len(EXPIRY) :].partition(b"/")
    return int(at_ms), key


def bounded(text: str) -> bytes:
    """The text itself, or the SHA-256 of a long one."""
    data = text.encode()
    return data if len(data) <= limits.KEY_BYTES_MAX else b"sha256:" + hashlib.sha256(data).hexdigest().encode()
