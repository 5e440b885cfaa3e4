"""The tables of the PostgreSQL store, and how they come about. Forward only: a version adds a step to `STEPS`.

All in one schema, `headrace`; no extension, no superuser, no function: plain tables that anybody may read with psql.
`now` is always a parameter: times are milliseconds of the database's clock, as the nodes keep it.
"""

from __future__ import annotations

import os
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from headrace.errors import StoreUnusable
from headrace.queue.store.postgres.connecting import Executes

SCHEMA: Final = "headrace"
CLAIMED_MS: Final = 1 << 62
"""`visible_ms` of a message that is bound to a claim: in flight without a timeout."""

_LOCK: Final = 0x68656164  # "head": two nodes that start at once do not migrate at once

_STORE: Final = """
CREATE TABLE meta (one boolean PRIMARY KEY DEFAULT true CHECK (one), version int NOT NULL, secret bytea NOT NULL);
-- moves with every change of a queue or topic: a node whose catalogue is older reads it again
CREATE TABLE directory (one boolean PRIMARY KEY DEFAULT true CHECK (one), version bigint NOT NULL);
INSERT INTO directory VALUES (true, 1);
-- the last batch that a lane of a node has committed: after a lost connection it tells whether that commit took place.
-- Whoever raises `epoch` shuts out the connection before.
CREATE TABLE lane (id text PRIMARY KEY, epoch bigint NOT NULL, batch bigint NOT NULL, seen_ms bigint NOT NULL)
    WITH (fillfactor = 10);
-- steady time is the database's clock plus `offset_ms`; `seen_ms`: the latest steady time that any node has seen (`clock.py`)
CREATE TABLE clock (one boolean PRIMARY KEY DEFAULT true CHECK (one), offset_ms bigint NOT NULL, seen_ms bigint NOT NULL)
    WITH (fillfactor = 10);
INSERT INTO clock VALUES (true, 0, 0);
"""

_QUEUES: Final = """
CREATE TABLE queue (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, arn text COLLATE "C" NOT NULL UNIQUE, info jsonb NOT NULL,
    floor bigint NOT NULL DEFAULT 0, -- what has a lower seq is purged
    purged_ms bigint, swept bigint NOT NULL DEFAULT 0 -- below it no purged row is left
);
CREATE INDEX queue_purged ON queue (id) WHERE swept < floor;
CREATE TABLE deleted_queue (
    id int PRIMARY KEY, arn text COLLATE "C" NOT NULL, deleted_ms bigint NOT NULL, swept boolean NOT NULL DEFAULT false
);
-- without a cache: whoever purges must know that what is sent afterwards has a higher number
CREATE SEQUENCE message_seq;
"""

# A node's totals are in rows of its own, a guest's transaction's too (`totals.py`); those of nodes that are gone under the name ''.
_TOTALS: Final = """
CREATE TABLE node (name text COLLATE "C" PRIMARY KEY, told_ms bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE queue_total (
    queue int NOT NULL, node text COLLATE "C" NOT NULL, sent bigint NOT NULL, received bigint NOT NULL,
    deleted bigint NOT NULL, empty_receives bigint NOT NULL, duplicates bigint NOT NULL, dead_lettered bigint NOT NULL,
    expired bigint NOT NULL, damaged bigint NOT NULL, PRIMARY KEY (queue, node)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 500);
CREATE INDEX queue_total_node ON queue_total (node);
"""

# `earned`: how many messages its rate allowed at `earned_ms`.
_MOVES: Final = """
CREATE TABLE move_task (
    handle text COLLATE "C" PRIMARY KEY, number bigint GENERATED ALWAYS AS IDENTITY, source text COLLATE "C" NOT NULL,
    target text COLLATE "C", rate_max int, status text NOT NULL, started_ms bigint NOT NULL,
    moved bigint NOT NULL DEFAULT 0, to_move bigint NOT NULL, failure text,
    earned_ms bigint NOT NULL, earned float8 NOT NULL
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX move_task_running ON move_task (source) WHERE status = 'RUNNING';
CREATE INDEX move_task_source ON move_task (source, started_ms);
"""

# visible_ms: 0 never received nor delayed; else when it is visible (again). So a receive takes what is due of
# message_waiting first, then the oldest of message_fresh, and neither index has what the other needs.
# Mutable columns first. Long bodies go out of line uncompressed, so that a lease does not copy them.
_MESSAGES: Final = """
CREATE TABLE message (
    seq bigint NOT NULL, visible_ms bigint NOT NULL, queue int NOT NULL, receives int NOT NULL DEFAULT 0,
    received_ms bigint, first_ms bigint, -- the latest receive, the first one
    sent_ms bigint NOT NULL, due_ms bigint, -- until when it was delayed when sent
    prior_receives int NOT NULL DEFAULT 0, prior_first_ms bigint, -- before it came to this queue
    id bytea NOT NULL, grp text COLLATE "C", dedup_id text, trace text, sender text, source text,
    attributes bytea, body bytea,
    body_topic int, body_seq bigint, -- the body is in `published`, there
    PRIMARY KEY (queue, seq)
) WITH (fillfactor = 70, toast_tuple_target = 1024, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE message ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN attributes SET STORAGE EXTERNAL;
CREATE INDEX message_fresh ON message (queue, seq) WHERE visible_ms = 0;
CREATE INDEX message_waiting ON message (queue, visible_ms, seq) WHERE visible_ms > 0;
CREATE INDEX message_body ON message (body_topic, body_seq) WHERE body_topic IS NOT NULL;
"""

# A topic's number is negative: never a queue's. `revision`: the directory's version when it was changed last. Whoever
# publishes to a topic with a log, or to a FIFO topic, locks its row: so numbers rise in the order of the commits, and a
# reader steps over none. What `published` has under a topic from `first` on is its log; before that, and under 0 or the
# number of a topic that is gone, are bodies that messages refer to, or nobody.
_TOPICS: Final = """
CREATE TABLE topic (
    id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1) PRIMARY KEY, arn text COLLATE "C" NOT NULL UNIQUE,
    info jsonb NOT NULL, revision bigint NOT NULL,
    first bigint NOT NULL DEFAULT 1, last bigint NOT NULL DEFAULT 0, last_ms bigint NOT NULL DEFAULT 0,
    logged bigint NOT NULL DEFAULT 0, log_bytes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
CREATE TABLE subscription (
    topic int NOT NULL, queue int NOT NULL, filter json, scope text NOT NULL,
    position bigint, -- the queue has been given the log up to here; null: it is live
    PRIMARY KEY (topic, queue)
) WITH (fillfactor = 50);
CREATE INDEX subscription_of ON subscription (queue);
CREATE TABLE deleted_topic (id int PRIMARY KEY);
CREATE TABLE published (
    seq bigint NOT NULL, sent_ms bigint NOT NULL, due_ms bigint, topic int NOT NULL,
    id bytea NOT NULL, grp text COLLATE "C", dedup_id text, trace text, sender text, source text,
    attributes bytea, body bytea NOT NULL,
    PRIMARY KEY (topic, seq)
) WITH (toast_tuple_target = 1024, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE published ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN attributes SET STORAGE EXTERNAL;
"""

# head, head_sent_ms: the first message of a group that is there, in flight or not. busy_ms: until when it is in flight, 0 when it
# is not; turn: the group's place among those of the queue, a new one each time that it is served; reader: who has claimed its
# first messages. So a receive takes groups whose heads' leases ended of message_group_busy, then free ones of
# message_group_free in their turn, however many are busy.
_GROUPS: Final = """
CREATE INDEX message_of_group ON message (queue, grp, seq) WHERE grp IS NOT NULL;
CREATE TABLE message_group (
    head bigint NOT NULL DEFAULT 0, head_sent_ms bigint NOT NULL DEFAULT 0, busy_ms bigint NOT NULL DEFAULT 0,
    turn bigint NOT NULL DEFAULT 0, queue int NOT NULL, name text COLLATE "C" NOT NULL, reader text COLLATE "C",
    PRIMARY KEY (queue, name)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_threshold = 1000);
CREATE INDEX message_group_free ON message_group (queue, turn, head_sent_ms) WHERE busy_ms = 0 AND head > 0;
CREATE INDEX message_group_busy ON message_group (queue, busy_ms) WHERE busy_ms > 0;
CREATE INDEX message_group_claimed ON message_group (queue, reader) WHERE busy_ms = 4611686018427387904; -- CLAIMED_MS
-- what a dedup key (its digest) named first; receive attempts by their ids, and what each was given
CREATE TABLE dedup (
    seq bigint NOT NULL, expires_ms bigint NOT NULL, queue int NOT NULL, key bytea NOT NULL, id bytea NOT NULL,
    PRIMARY KEY (queue, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX dedup_expiry ON dedup (expires_ms);
CREATE TABLE attempt (
    at_ms bigint NOT NULL DEFAULT 0, expires_ms bigint NOT NULL DEFAULT 0, queue int NOT NULL,
    seqs bigint[] NOT NULL DEFAULT '{}', receives bigint[] NOT NULL DEFAULT '{}', id text COLLATE "C" NOT NULL,
    PRIMARY KEY (queue, id)
);
CREATE INDEX attempt_age ON attempt (at_ms);
"""

_STATE: Final = """
CREATE TABLE fence (name text COLLATE "C" PRIMARY KEY, epoch bigint NOT NULL);
-- a value is null only within a transaction, which so locks a key that is absent
CREATE TABLE state (name text COLLATE "C" NOT NULL, key bytea NOT NULL, value bytea, PRIMARY KEY (name, key))
    WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE state ALTER COLUMN value SET STORAGE EXTERNAL;
"""

# who is present at which node, as each tells of its own; empty after a crash of the database, and soon full again
_PRESENCE: Final = """
CREATE UNLOGGED TABLE holder (
    name text COLLATE "C" NOT NULL, node text COLLATE "C" NOT NULL, told_ms bigint NOT NULL, kind text NOT NULL,
    since_ms bigint NOT NULL, seen_ms bigint NOT NULL, leases bigint NOT NULL, facts json NOT NULL,
    PRIMARY KEY (name, node)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 500);
"""

# A claim's messages have CLAIMED_MS; they are here in their order. Deleted with the reader or the queue.
_CLAIMS: Final = """
CREATE TABLE reader (
    queue int NOT NULL, name text COLLATE "C" NOT NULL, acknowledged bigint NOT NULL DEFAULT 0, PRIMARY KEY (queue, name)
) WITH (fillfactor = 50);
CREATE TABLE claim (
    queue int NOT NULL, reader text COLLATE "C" NOT NULL, number bigint NOT NULL, seqs bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (queue, reader, number)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE claim ALTER COLUMN seqs SET STORAGE EXTERNAL;
"""

STEPS: Final[tuple[tuple[LiteralString, ...], ...]] = (
    (
        _STORE,
        _QUEUES,
        _MESSAGES,
        _GROUPS,
        _TOPICS,
        _STATE,
        _PRESENCE,
        _CLAIMS,
        _TOTALS,
        _MOVES,
    ),
)
VERSION: Final = len(STEPS)
COPYING: Final = -1
"""The version while a copy into the tables is not whole (`copying.py`): nobody else may open them."""


def version_of(connection: Executes) -> int:
    """The version of the tables in the database; 0: there are none."""
    row = connection.execute("SELECT to_regclass('headrace.meta') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return 0
    row = connection.execute("SELECT version FROM headrace.meta").fetchone()
    return int(row[0]) if row is not None else 0


def migrate(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Bring the tables to this version, in one transaction: whole or not at all. Returns (before, after). Idempotent.

    Raises StoreUnusable: the tables are of a newer headrace.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("CREATE SCHEMA IF NOT EXISTS headrace")
        connection.execute("SET LOCAL search_path = headrace")
        before = version_of(connection)
        check_not_newer(connection, before)
        for number in range(before, VERSION):
            for part in STEPS[number]:
                connection.execute(part, prepare=False)  # several statements each
            if number == 0:
                connection.execute("INSERT INTO meta VALUES (true, 1, %s)", (os.urandom(32),))
            connection.execute("UPDATE meta SET version = %s", (number + 1,))
        if before != VERSION:  # nodes of the version before, should one still run, look again, and stop
            connection.execute("UPDATE directory SET version = version + 1")
    return before, VERSION


def grant(connection: psycopg.Connection[Any], role: str) -> None:
    """Let a role run brokers: read and write the tables, draw numbers, nothing else. Idempotent."""
    name = sql.Identifier(role)
    for text in (
        "GRANT USAGE ON SCHEMA headrace TO {}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA headrace TO {}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA headrace TO {}",
        "REVOKE INSERT, UPDATE, DELETE ON headrace.meta FROM {}",
    ):
        connection.execute(sql.SQL(text).format(name))


_OUTBOX: Final = """
GRANT USAGE ON SCHEMA headrace TO {0};
GRANT USAGE ON SEQUENCE headrace.message_seq TO {0};
GRANT SELECT ON headrace.meta, headrace.directory, headrace.queue, headrace.topic, headrace.subscription,
    headrace.fence, headrace.clock TO {0};
GRANT SELECT ({1}), INSERT, UPDATE (visible_ms), DELETE ON headrace.message TO {0};
GRANT SELECT, INSERT, UPDATE, DELETE ON headrace.message_group, headrace.dedup TO {0};
GRANT SELECT (topic, seq), INSERT ON headrace.published TO {0};
GRANT UPDATE (last, last_ms, logged, log_bytes) ON headrace.topic TO {0};
GRANT INSERT ON headrace.queue_total TO {0};
"""


_SHOWN: Final = """
SELECT attname::text FROM pg_attribute WHERE attrelid = 'headrace.message'::regclass AND attnum > 0 AND NOT attisdropped
    AND attname NOT IN ('body', 'attributes') ORDER BY attnum
"""


def grant_outbox(connection: psycopg.Connection[Any], role: str) -> None:
    """Let a role send and acknowledge in transactions of its own (`headrace.postgres`); bodies it may not read. Idempotent."""
    columns = connection.execute(_SHOWN).fetchall()
    shown = sql.SQL(", ").join(sql.Identifier(name) for (name,) in columns)
    connection.execute(sql.SQL(_OUTBOX).format(sql.Identifier(role), shown))


def check_version(place: str, version: int) -> None:
    """Raise StoreUnusable unless this headrace can work on tables of this version."""
    if version == 0:
        raise StoreUnusable(place, "there is no store in this database: run `headrace store init` first")
    if version == COPYING:
        raise StoreUnusable(place, "a copy into it is not whole: run `headrace store copy` again, it goes on")
    if version > VERSION:
        raise StoreUnusable(
            place, f"it is of a newer headrace (format {version}, this one knows {VERSION}); upgrade first"
        )
    if version < VERSION:
        raise StoreUnusable(place, f"its format is {version}, {VERSION} is needed: run `headrace store migrate`")


def check_not_newer(connection: psycopg.Connection[Any], version: int) -> None:
    if version > VERSION or version == COPYING:
        check_version(place_of(connection), version)


def place_of(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> str:
    """Where a connection leads, without its password."""
    info = connection.info
    return f"postgresql://{info.user}@{info.host}:{info.port}/{info.dbname}"
