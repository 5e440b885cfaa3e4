"""The pattern of PGMQ and many a home-made queue: a table, `FOR UPDATE SKIP LOCKED`, every client by itself.

The statements are PGMQ's (`pgmq.send_batch`, `read`, `delete`), ten messages each, a connection a thread, by psycopg.
"""

from __future__ import annotations

import importlib
from typing import Final

from benchmarks.postgres.clients import window

BATCH: Final = 10
MAKE: Final = (
    "CREATE TABLE IF NOT EXISTS pattern (msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, read_ct int NOT NULL DEFAULT 0,"
    " enqueued_at timestamptz NOT NULL DEFAULT now(), vt timestamptz NOT NULL, message bytea);"
    "CREATE INDEX IF NOT EXISTS pattern_vt ON pattern (vt)"
)
SEND: Final = "INSERT INTO pattern (vt, message) SELECT clock_timestamp(), unnest(%s::bytea[]) RETURNING msg_id"
READ: Final = (
    "WITH cte AS (SELECT msg_id FROM pattern WHERE vt <= clock_timestamp() ORDER BY msg_id LIMIT %s FOR UPDATE SKIP LOCKED)"
    " UPDATE pattern m SET vt = clock_timestamp() + interval '600 s', read_ct = read_ct + 1 FROM cte"
    " WHERE m.msg_id = cte.msg_id RETURNING m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message"
)
DELETE: Final = "DELETE FROM pattern WHERE msg_id = ANY (%s) RETURNING msg_id"


def main() -> None:
    given = window.arguments()
    psycopg = importlib.import_module("psycopg")
    texts = [b"x" * 256] * BATCH
    with psycopg.connect(given.address, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")
        connection.execute(MAKE)

    def work(number: int, counter: window.Counter) -> None:
        with psycopg.connect(given.address, autocommit=True, prepare_threshold=0) as connection:
            while not counter.stop.is_set():
                connection.execute(SEND, (texts,), binary=True).fetchall()
                done = BATCH
                if given.mode == "cycle":
                    rows = connection.execute(READ, (BATCH,), binary=True).fetchall()
                    done = len(connection.execute(DELETE, ([row[0] for row in rows],), binary=True).fetchall())
                counter.done[number] += done

    window.in_threads(given, work)


if __name__ == "__main__":
    main()
