"""Whether brokers can run on a database, and what in its settings costs safety or speed."""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec

from headrace.queue.store.postgres import schema
from headrace.queue.store.postgres.connecting import Connection


class Finding(msgspec.Struct, frozen=True):
    """One line. `bad`: brokers cannot run; `warns`: they can, and it should be changed."""

    text: str
    bad: bool = False
    warns: bool = False

    @property
    def mark(self) -> str:
        return "✗" if self.bad else "!" if self.warns else "✓"


_SETTINGS: Final[dict[LiteralString, tuple[str, str]]] = {
    "fsync": ("on", "what is acknowledged may be lost in a crash"),
    "full_page_writes": ("on", "a crash may damage pages"),
    "synchronous_commit": ("on", "what is acknowledged may be lost in a crash"),
    "autovacuum": ("on", "tables grow for ever, and receives become slow"),
    "hot_standby_feedback": ("off", "a long query on a standby would slow receives down"),
}
_RIGHTS: Final[LiteralString] = (
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'headrace'::regnamespace AND c.relkind = 'r'"
    " AND c.relname <> 'meta' AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')"
    " AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1"
)
_OLD: Final[LiteralString] = (
    "SELECT count(*), max(extract(epoch FROM now() - xact_start))::int FROM pg_stat_activity"
    " WHERE datname = current_database() AND xact_start < now() - interval '5 minutes' AND backend_type = 'client backend'"
)


def findings(connection: Connection) -> list[Finding]:
    """Everything looked at, good and bad. Reads only."""
    version = connection.info.server_version
    found = [Finding(f"PostgreSQL {version // 10_000}.{version % 10_000}, the primary")]
    found += _format(connection)
    if not found[-1].bad:
        found += _rights(connection)
    for name, (wanted, why) in _SETTINGS.items():
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        value = row[0] if row is not None else ""
        fine = value == wanted or (name == "synchronous_commit" and value in ("remote_write", "remote_apply"))
        found.append(Finding(f"{name} = {value}" + ("" if fine else f": {why}"), warns=not fine))
    return found + _old_snapshots(connection)


def _format(connection: Connection) -> list[Finding]:
    version = schema.version_of(connection)
    if version == 0:
        return [Finding("there are no tables: run `headrace store init`", bad=True)]
    if version != schema.VERSION:
        todo = "run `headrace store migrate`" if version < schema.VERSION else "upgrade headrace"
        return [Finding(f"format {version}, this headrace needs {schema.VERSION}: {todo}", bad=True)]
    return [Finding(f"tables of format {version}")]


def _rights(connection: Connection) -> list[Finding]:
    lacking = [name for (name,) in connection.execute(_RIGHTS).fetchall()]
    user = connection.info.user
    if lacking:
        todo = f"run `headrace store init --role {user}` as the owner"
        return [Finding(f"{user} may not write {', '.join(lacking)}: {todo}", bad=True)]
    return [Finding(f"{user} may read and write all tables")]


def _old_snapshots(connection: Connection) -> list[Finding]:
    row = connection.execute(_OLD).fetchone()
    if row is None or not row[0]:
        return [Finding("no transaction is open for long")]
    return [
        Finding(f"{row[0]} transactions are open for up to {row[1]} s: dead rows stay, receives slow down", warns=True)
    ]
