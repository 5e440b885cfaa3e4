"""Connections to the database: only to a primary, with every wait bounded.

A node that is cut off must notice within seconds: keepalives and TCP_USER_TIMEOUT see a peer that is gone,
`statement_timeout` one that hangs, `lock_timeout` a lock that nobody gives back.
"""

from __future__ import annotations

import logging
from typing import Any, Final, LiteralString, Protocol, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from headrace.errors import StoreUnusable

logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # it warns of pipelines on broken connections; lanes tell those

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Cursor: TypeAlias = psycopg.Cursor[tuple[Any, ...]]


class Executes(Protocol):
    """A connection in a transaction, whoever's it is."""

    def execute(self, sql: LiteralString, parameters: Any = (), /, *, binary: bool = False) -> Cursor: ...


CONNECT_S: Final = 3
STATEMENT_MS: Final = 30_000  # a native batch of 10,000 messages on a slow disk takes a few seconds
LOCK_MS: Final = 5_000
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
_SETTINGS: Final[LiteralString] = (
    "SELECT set_config('search_path', 'headrace', false), set_config('statement_timeout', %s, false),"
    " set_config('lock_timeout', %s, false), set_config('idle_in_transaction_session_timeout', '15s', false),"
    " set_config('plan_cache_mode', 'force_generic_plan', false), " + _BY_INDEX + ", pg_is_in_recovery(),"
    " current_setting('server_version_num')::int"
)
_SERVER_MIN: Final = 150_000


def connect(url: str, *, statement_ms: int = STATEMENT_MS) -> Connection:
    """A connection to the primary, in autocommit, set up.

    Raises:
        psycopg.OperationalError: there is none to be had now.
        StoreUnusable: PostgreSQL is too old.
    """
    given = conninfo_to_dict(url)
    missing = {name: value for name, value in _DEFAULTS.items() if name not in given}
    connection = psycopg.connect(url, autocommit=True, prepare_threshold=0, **missing)
    try:
        row = connection.execute(_SETTINGS, (str(statement_ms), str(LOCK_MS)), prepare=False).fetchone()
        assert row is not None
        if row[-1] < _SERVER_MIN:
            raise StoreUnusable(url_of(url), f"it is PostgreSQL {row[-1] // 10_000}; 15 or newer is needed")
        if row[-2]:
            raise psycopg.OperationalError("this is a standby: its primary is needed")
    except BaseException:
        connection.close()
        raise
    return connection


def url_of(url: str) -> str:
    """The URL without its password, for messages."""
    known = conninfo_to_dict(url)
    user = f"{known['user']}@" if "user" in known else ""
    return f"postgresql://{user}{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
