"""The tables of the SQLite store. Forward only: a new version adds a step to `STEPS`, none is ever changed.

Anybody may look with `sqlite3`. Messages are written once and deleted once, never updated (a counter beside a 200 kB
body cost 210 kB of WAL); what changes is small and in tables of its own, or in the lease journal beside.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x48524345  # "HRCE": what `file` and SQLite see of whose file this is

FIRST: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
-- the number and steady time of the last commit; numbers have no gaps
CREATE TABLE commit_log (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, now_ms INTEGER NOT NULL);
INSERT INTO commit_log VALUES (1, 0, 0);
CREATE TABLE queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT, arn TEXT NOT NULL UNIQUE, info TEXT NOT NULL, floor INTEGER NOT NULL,
    purged_ms INTEGER
);
-- changes with every commit, hence apart: messages the queue has, and the number up to which it may have given numbers
CREATE TABLE progress (queue INTEGER PRIMARY KEY, messages INTEGER NOT NULL, reserved INTEGER NOT NULL);
-- key = queue << 40 | seq; checksum over all columns before it
CREATE TABLE message (
    key INTEGER PRIMARY KEY, id BLOB, body BLOB, attributes BLOB, sent_ms INTEGER, visible_ms INTEGER,
    message_group TEXT, dedup_id TEXT, trace TEXT, sender TEXT, receives INTEGER, first_received_ms INTEGER,
    source TEXT, checksum INTEGER, commit_seq INTEGER
);
CREATE INDEX message_delayed ON message (visible_ms) WHERE visible_ms IS NOT NULL;
CREATE INDEX message_moved ON message (sent_ms) WHERE source IS NOT NULL;
CREATE TABLE dedup (
    id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT NOT NULL, message_id BLOB NOT NULL, seq INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
);
CREATE TABLE claim (
    queue INTEGER NOT NULL, reader TEXT NOT NULL, number INTEGER NOT NULL, seqs BLOB NOT NULL,
    PRIMARY KEY (queue, reader, number)
) WITHOUT ROWID;
CREATE TABLE reader (
    queue INTEGER NOT NULL, reader TEXT NOT NULL, acknowledged INTEGER NOT NULL, PRIMARY KEY (queue, reader)
) WITHOUT ROWID;
CREATE TABLE move_task (handle TEXT PRIMARY KEY, source TEXT NOT NULL, started_ms INTEGER NOT NULL, task TEXT NOT NULL);
CREATE TABLE state (name TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, UNIQUE (name, key));
CREATE TABLE fence (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
-- keys whose messages are purged: rows to be deleted slice by slice
CREATE TABLE garbage (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE deleted_queue (arn TEXT PRIMARY KEY, deleted_ms INTEGER NOT NULL) WITHOUT ROWID;
-- damaged messages, for the operator
CREATE TABLE quarantine (key INTEGER PRIMARY KEY, at_ms INTEGER, reason TEXT, id BLOB, body BLOB, attributes BLOB);
"""

TOPICS: Final = """
-- a topic's messages are rows of `message` under its number. arn NULL: deleted, and here until nobody refers to them
CREATE TABLE topic (id INTEGER PRIMARY KEY AUTOINCREMENT, arn TEXT UNIQUE, info TEXT NOT NULL);
-- changes with what is published, hence apart: the log begins at seq `first`; rows before are bodies that queues refer to
CREATE TABLE topic_log (
    topic INTEGER PRIMARY KEY, first INTEGER NOT NULL, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    reserved INTEGER NOT NULL
);
CREATE TABLE subscription (
    topic INTEGER NOT NULL, queue INTEGER NOT NULL, details TEXT NOT NULL, PRIMARY KEY (topic, queue)
) WITHOUT ROWID;
-- a message whose `body` is an integer has the body of the topic's message with that key
CREATE INDEX message_reference ON message (body) WHERE typeof(body) = 'integer';
"""

STEPS: Final = (FIRST, TOPICS)
"""Step i brings a file of version i (PRAGMA user_version) to version i + 1."""
VERSION: Final = len(STEPS)
