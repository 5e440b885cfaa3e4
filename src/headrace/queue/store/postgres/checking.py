"""Whether brokers can run on a database, and what in it costs safety or speed: facts, each judged by a function without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, LiteralString, TypeAlias

import msgspec

from headrace.queue.store.postgres import schema
from headrace.queue.store.postgres.connecting import Connection

Level: TypeAlias = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """`problem`: brokers cannot run; `warning`: they can, and it should be changed, as `advice` says."""

    level: Level
    subject: str
    fact: str
    advice: str = ""


SETTINGS: Final[dict[LiteralString, tuple[tuple[str, ...], str]]] = {
    "fsync": (("on",), "what is acknowledged may be lost in a crash: switch it on"),
    "full_page_writes": (("on",), "a crash may damage pages: switch it on"),
    "synchronous_commit": (
        ("on", "remote_write", "remote_apply"),
        "what is acknowledged may be lost in a crash: set it to on",
    ),
    "autovacuum": (("on",), "tables grow for ever, and receives become slow: switch it on"),
    "hot_standby_feedback": (
        ("off",),
        "a long query on a standby would keep dead rows, and tables grow: switch it off",
    ),
    "server_encoding": (("UTF8",), "make the database anew, with ENCODING 'UTF8'"),
}
"""Name → (what is right, what else would mean)."""
OLD_S: Final = 300  # a transaction that is open for so long
AGE_MAX: Final = 1_000_000_000  # half of what there is; autovacuum freezes at 200 million
DEAD_MIN: Final = 200_000  # dead rows that are worth a word: a busy queue has thousands between two vacuums
FREE_MIN: Final = 22  # connections: two nodes' worth

_MAY_ENTER: Final[LiteralString] = (
    "SELECT CASE WHEN to_regnamespace('headrace') IS NULL THEN true ELSE has_schema_privilege('headrace', 'USAGE') END"
)
_RIGHTS: Final[LiteralString] = (
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'headrace'::regnamespace AND c.relkind = 'r'"
    " AND c.relname <> 'meta' AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')"
    " AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1"
)
# What keeps dead rows from being removed: transactions, also prepared ones, and replication slots.
_OLD: Final[LiteralString] = """
SELECT format('%%s of %%s, %%s', coalesce(nullif(application_name, ''), 'a session'), usename, state),
    extract(epoch FROM now() - xact_start)::int
FROM pg_stat_activity
WHERE xact_start < now() - make_interval(secs => %(old)s) AND backend_type = 'client backend' AND datname = current_database()
UNION ALL
SELECT format('prepared transaction %%s', gid), extract(epoch FROM now() - prepared)::int FROM pg_prepared_xacts
WHERE prepared < now() - make_interval(secs => %(old)s) AND database = current_database()
UNION ALL
SELECT format('replication slot %%s, which nobody uses', slot_name), NULL FROM pg_replication_slots
WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
"""
_DEAD: Final[LiteralString] = (
    "SELECT relname, n_live_tup, n_dead_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables"
    " WHERE schemaname = 'headrace' ORDER BY n_dead_tup DESC LIMIT 1"
)
_CONNECTIONS: Final[LiteralString] = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,"
    " count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'"
)
# A node's lanes mark what they commit; its upkeep does so at least now and then, and maintenance is one of its turns.
_NODES: Final[LiteralString] = """
SELECT count(DISTINCT split_part(id, '/', 1))::int, max(seen_ms) FILTER (WHERE id LIKE '%%/upkeep'),
    (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + offset_ms FROM clock), (SELECT offset_ms FROM clock)
FROM lane
"""
_WAITING: Final[LiteralString] = (
    "SELECT (SELECT count(*) FROM deleted_queue WHERE NOT swept) + (SELECT count(*) FROM queue WHERE swept < floor)"
)


def findings(connection: Connection) -> list[Finding]:
    """Everything looked at, good and bad. Reads only."""
    version = connection.info.server_version
    found = [Finding("ok", "server", f"PostgreSQL {version // 10_000}.{version % 10_000}, the primary")]
    found += _store(connection)
    for name in SETTINGS:
        found.append(judge_setting(name, str(_row(connection, "SELECT current_setting(%s)", (name,))[0])))
    return [*found, *_server(connection)]


def _row(connection: Connection, sql: LiteralString, values: Any = ()) -> tuple[Any, ...]:
    row = connection.execute(sql, values, prepare=False).fetchone()
    assert row is not None
    return row


def _store(connection: Connection) -> Iterator[Finding]:
    if not _row(connection, _MAY_ENTER)[0]:
        yield judge_rights(connection.info.user, ["the schema headrace"])
        return
    found = judge_format(schema.version_of(connection))
    yield found
    if found.level != "ok":
        return
    lacking = [name for (name,) in connection.execute(_RIGHTS).fetchall()]
    yield judge_rights(connection.info.user, lacking)
    if lacking:
        return
    yield judge_dead(*_row(connection, _DEAD))
    nodes, kept_ms, now_ms, offset_ms = _row(connection, _NODES)
    yield judge_nodes(nodes, kept_ms, now_ms, waiting=_row(connection, _WAITING)[0])
    if offset_ms:
        ahead, step = ("ahead of", "back") if offset_ms > 0 else ("behind", "forward")
        fact = f"nodes are {abs(offset_ms) / 1_000:g} s {ahead} the database's, which was set {step} once"
        yield Finding("ok", "clock", fact)


def _server(connection: Connection) -> Iterator[Finding]:
    yield judge_old(connection.execute(_OLD, {"old": OLD_S}, prepare=False).fetchall())
    (age,) = _row(connection, "SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()")
    yield judge_age(age)
    yield judge_connections(*_row(connection, _CONNECTIONS))
    encrypted, version = _row(connection, "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    yield judge_tls(connection.info.host, version if encrypted else None)


def judge_format(version: int) -> Finding:
    if version == schema.VERSION:
        return Finding("ok", "format", f"tables of format {version}")
    if version == 0:
        return Finding("problem", "format", "there are no tables", "run `headrace store init`")
    if version == schema.COPYING:
        return Finding("problem", "format", "a copy is not whole", "run `headrace store copy` again, it goes on")
    todo = "run `headrace store migrate`" if version < schema.VERSION else "upgrade headrace"
    return Finding("problem", "format", f"format {version}, this headrace needs {schema.VERSION}", todo)


def judge_rights(user: str, lacking: list[str]) -> Finding:
    if lacking:
        todo = f"run `headrace store init --role {user}` as the owner"
        return Finding("problem", "rights", f"{user} may not write {', '.join(lacking)}", todo)
    return Finding("ok", "rights", f"{user} may read and write all tables")


def judge_setting(name: LiteralString, value: str) -> Finding:
    right, otherwise = SETTINGS[name]
    if value in right:
        return Finding("ok", name, value)
    return Finding("problem" if name == "server_encoding" else "warning", name, value, otherwise)


def judge_old(found: list[tuple[Any, ...]]) -> Finding:
    """`found`: (who, for how many seconds or None)."""
    if not found:
        return Finding("ok", "old snapshots", "no transaction is open for long, no slot is left behind")
    told = "; ".join(who if seconds is None else f"{who}, for {seconds} s" for who, seconds in found[:5])
    advice = "end it: dead rows stay meanwhile, and receives become slow; set idle_in_transaction_session_timeout"
    return Finding("warning", "old snapshots", f"{len(found)}: {told}", advice)


def judge_age(age: int) -> Finding:
    if age < AGE_MAX:
        return Finding("ok", "transaction ids", f"{age:,} old at most")
    return Finding(
        "warning",
        "transaction ids",
        f"{age:,} old; at 2 billion the database stops",
        "VACUUM; find out what keeps autovacuum",
    )


def judge_dead(table: str, live: int, dead: int, size_bytes: int) -> Finding:
    """Of the table with the most dead rows."""
    fact = f"{table} has {live:,} rows and {dead:,} dead ones, {size_bytes >> 20:,} MiB with its indexes"
    if dead < DEAD_MIN or dead < live:
        return Finding("ok", "dead rows", fact)
    return Finding("warning", "dead rows", fact, f"VACUUM headrace.{table}; find out what keeps autovacuum from it")


def judge_nodes(nodes: int, kept_ms: int | None, now_ms: int, *, waiting: int) -> Finding:
    """`kept_ms`: when any node's upkeep wrote last; `waiting`: queues whose purged or left messages are still there."""
    kept = (
        "no upkeep has written yet" if kept_ms is None else f"upkeep wrote {max(0, now_ms - kept_ms) / 1_000:.0f} s ago"
    )
    rest = f"; the messages of {waiting} purged or deleted queues are still to be removed" if waiting else ""
    return Finding("ok", "nodes", f"{nodes} known of the last day; {kept}{rest}")


def judge_connections(most: int, used: int) -> Finding:
    fact = f"{used} of {most} are used; a node opens up to thirteen"
    if most - used >= FREE_MIN:
        return Finding("ok", "connections", fact)
    return Finding(
        "warning", "connections", fact, "raise max_connections, or let nodes connect by PgBouncer, pool_mode session"
    )


def judge_tls(host: str, version: str | None) -> Finding:
    """`version`: of TLS; None: there is none."""
    if version is not None:
        return Finding("ok", "TLS", version)
    if not host or host.startswith(("/", "127.")) or host in ("localhost", "::1"):
        return Finding("ok", "TLS", "none, within this machine")
    return Finding("warning", "TLS", f"none to {host}", "add ?sslmode=verify-full&sslrootcert=… to the URL")
