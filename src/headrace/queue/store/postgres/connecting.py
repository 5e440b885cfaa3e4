"""Connections to the database: only to a primary, with every wait bounded.

A node that is cut off must notice within seconds, and so must its database. Keepalives and TCP_USER_TIMEOUT see a peer
that is gone, in both directions; `statement_timeout` a statement that takes too long, `lock_timeout` a lock that nobody
gives back. A server that hangs keeps none of these promises, nor does a COMMIT whose standby is gone: so each wait for an
answer has an end of its own here.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Final, LiteralString, Protocol, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from headrace.errors import StoreUnusable
from headrace.queue.store.postgres.statements import Statements

logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # it warns of pipelines on broken connections; lanes tell those

CONNECT_S: Final = 3
STATEMENT_MS: Final = 30_000  # a native batch of 10,000 messages on a slow disk takes a few seconds
LOCK_MS: Final = 5_000
ANSWER_S: Final = 32.0  # longer than a statement may take: the server's own word comes first, if it comes
COMMIT_S: Final = 10.0  # to a disk and a standby that are well it takes milliseconds
ENTER_S: Final = 5.0  # for each answer until a connection is in use

T = TypeVar("T")


class Cursor(Protocol):
    """What a statement gives."""

    def fetchall(self) -> list[tuple[Any, ...]]: ...

    def fetchone(self) -> tuple[Any, ...] | None: ...


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits for no answer longer than `answer_s`; then it is closed: what comes late nobody reads.

    Attributes:
        warning: the last warning that the server gave, or None.
        statements: those of its transactions.
        waits_since_s: since when an answer is waited for (monotonic); None: none is.
        server: which server it is, and which start of it.
        pid: of the server's process; a pooler between tells clients another.
        place: which of the URL's hosts, from 0.
    """

    statements: Statements
    answer_s = ENTER_S
    warning: str | None = None
    waits_since_s: float | None = None
    server = ""
    pid = 0
    place = 0

    def wait(self, gen: Generator[Any, Any, T], *how: Any, **more: Any) -> T:
        began_s = self.waits_since_s = time.monotonic()
        try:
            return super().wait(self._bounded(gen, began_s + self.answer_s), *how, **more)
        finally:
            self.waits_since_s = None

    def break_off(self) -> None:
        """Let whoever waits for an answer find the connection broken. In any thread."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    def _bounded(self, gen: Generator[Any, Any, T], until: float) -> Generator[Any, Any, T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:  # psycopg looks ten times a second
                    self.close()
                    raise psycopg.OperationalError(f"no answer within {self.answer_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            value: T = done.value
            return value

    def note(self, notice: psycopg.errors.Diagnostic) -> None:
        # A server that ends, since another process of it has crashed, warns, too: behind the answer to a commit that took place.
        ends = notice.sqlstate == "57P02" or (notice.sqlstate == "57P01" and notice.message_detail is None)
        if notice.severity_nonlocalized == "WARNING" and not ends:
            self.warning = notice.message_primary


class Executes(Protocol):
    """A connection in a transaction, whoever's it is."""

    def execute(self, sql: LiteralString, parameters: Any = (), /) -> Cursor: ...


_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_S,
    "target_session_attrs": "read-write",  # with several hosts: the primary among them
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
    "application_name": "headrace",
}
# Plans are made once, often while a table is still empty, and must be right when it holds millions: always by an index.
BY_INDEX: Final[tuple[LiteralString, ...]] = (
    "enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"
)  # fmt: skip
"""Settings that are off for the store's statements."""
_BY_INDEX: Final[LiteralString] = ", ".join(f"set_config('{name}', 'off', false)" for name in BY_INDEX)
# READ COMMITTED, whatever is usual in the database: a statement behind a lock must see what was committed before it.
_SETTINGS: Final[LiteralString] = (
    "SELECT set_config('search_path', 'headrace', false), set_config('statement_timeout', %s, false),"
    " set_config('lock_timeout', %s, false), set_config('idle_in_transaction_session_timeout', '5s', false),"
    " set_config('tcp_keepalives_idle', '2', false), set_config('tcp_keepalives_interval', '1', false),"
    " set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '5s', false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    " set_config('plan_cache_mode', 'force_generic_plan', false), "
    + _BY_INDEX
    + ", pg_backend_pid(), pg_postmaster_start_time()::text, pg_is_in_recovery(),"
    " current_setting('server_version_num')::int"
)
_SERVER_MIN: Final = 150_000


class Connects(Protocol):
    """`connect`, or what stands in for it."""

    def __call__(self, url: str, /, *, turn: int = 0) -> Connection: ...


def connect(
    url: str, *, statement_ms: int = STATEMENT_MS, turn: int = 0, kind: type[Connection] = Connection
) -> Connection:
    """A connection to the primary, in autocommit, set up.

    Args:
        url: any libpq connection string.
        statement_ms: how long a statement may take.
        turn: of several hosts, how many are asked last; a deserted primary may be the first, and look well.
        kind: what is made.

    Raises:
        psycopg.OperationalError: there is none to be had now.
        StoreUnusable: PostgreSQL is too old.
    """
    given = conninfo_to_dict(url)
    # psycopg itself prepares nothing: with a rollback it would throw away what is prepared, that of `Statements`, too.
    connection = kind.connect(**_DEFAULTS | turned(given, turn), autocommit=True, prepare_threshold=None)
    connection.statements = Statements(connection)
    connection.add_notice_handler(connection.note)
    try:
        row = connection.execute(_SETTINGS, (str(statement_ms), str(LOCK_MS))).fetchone()
        assert row is not None
        if row[-1] < _SERVER_MIN:
            raise StoreUnusable(url_of(url), f"it is PostgreSQL {row[-1] // 10_000}; 15 or newer is needed")
        if row[-2]:
            raise psycopg.OperationalError("this is a standby: its primary is needed")
        connection.pid, connection.server, connection.place = row[-4], row[-3], place_in(given, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def turned(given: dict[str, Any], turn: int) -> dict[str, Any]:
    """Connection parameters in which the hosts stand in another order: the first `turn` are the last."""
    lists = {name: str(given[name]).split(",") for name in ("host", "hostaddr", "port") if name in given}
    count = max(map(len, lists.values()), default=1)
    at = turn % count
    return given | {name: ",".join(ones[at:] + ones[:at]) for name, ones in lists.items() if len(ones) == count}


def place_in(given: dict[str, Any], connection: Connection) -> int:
    """Which of the hosts a connection leads to."""
    hosts, ports = str(given.get("host", "")).split(","), str(given.get("port", "")).split(",")
    here = (connection.info.host, str(connection.info.port))
    for place, host in enumerate(hosts):
        port = ports[place] if len(ports) == len(hosts) else ports[0]
        if (host, port or here[1]) == here:
            return place
    return 0


def url_of(url: str) -> str:
    """The URL without its password, for messages."""
    known = conninfo_to_dict(url)
    user = f"{known['user']}@" if "user" in known else ""
    return f"postgresql://{user}{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
