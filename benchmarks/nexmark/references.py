"""The queries once more, as DuckDB would be asked over all rows at once: written on their own, in other words.

Of queries whose results change, the last state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import duckdb
import pyarrow as pa

from benchmarks.nexmark.queries import SIDE_INPUT


def reference(name: str, tables: Mapping[str, pa.Table], *, threads: int = 2) -> pa.Table:
    """The answer of a query over all rows of `person`, `auction` and `bid`."""
    with duckdb.connect(config={"threads": threads}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, rows in {**tables, "side_input": SIDE_INPUT}.items():
            connection.register(table, rows)
        return connection.sql(REFERENCES[name]).to_arrow_table()


_SLICE: Final = "time_bucket(INTERVAL 10 SECOND, {}, TIMESTAMP '1970-01-01')"
"""The beginning of the window of ten seconds that a time is in. DuckDB's own windows begin on a Monday in 2000."""

_MATCHED: Final = """
    SELECT a.*, b.bidder, b.price, b.ts AS bid_ts FROM auction a, bid b
    WHERE a.id = b.auction AND b.ts >= a.ts AND b.ts <= a.expires"""

_FIGURES: Final = """
    sum((price < 10000)::INT), sum((price >= 10000 AND price < 1000000)::INT), sum((price >= 1000000)::INT)"""


def _distinct(column: str) -> str:
    ranks = ["true", "price < 10000", "price >= 10000 AND price < 1000000", "price >= 1000000"]
    return ", ".join(f"count(DISTINCT CASE WHEN {rank} THEN {column} END)" for rank in ranks)


REFERENCES: Final = {
    "q0": "SELECT auction, bidder, price, ts, extra FROM bid",
    "q1": "SELECT auction, bidder, price * 0.908, ts, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction - auction // 123 * 123 = 0",
    "q3": """SELECT name, city, state, a.id FROM person p, auction a
        WHERE p.id = a.seller AND category = 10 AND (state = 'OR' OR state = 'ID' OR state = 'CA')""",
    "q4": f"""WITH final AS (SELECT id, category, ts, max(price) AS price FROM ({_MATCHED}) GROUP BY id, category, ts)
        SELECT make_timestamp(epoch_us(ts) // 20000000 * 20000000) AS start, category, avg(price) FROM final
        GROUP BY start, category""",
    "q5": """WITH windows AS (
            SELECT auction, unnest(range(epoch_us(ts) // 2000000 - 4, epoch_us(ts) // 2000000 + 1)) AS w FROM bid),
        counts AS (SELECT w, auction, count(*) AS num FROM windows GROUP BY ALL)
        SELECT make_timestamp(w * 2000000), auction, num FROM counts QUALIFY rank() OVER (PARTITION BY w ORDER BY num DESC) = 1""",
    "q7": f"SELECT auction, price, bidder, ts FROM bid QUALIFY price = max(price) OVER (PARTITION BY {_SLICE.format('ts')})",
    "q8": f"""SELECT DISTINCT p.id, p.name, {_SLICE.format("p.ts")} FROM person p, auction a
        WHERE p.id = a.seller AND {_SLICE.format("p.ts")} = {_SLICE.format("a.ts")}""",
    "q9": f"""SELECT id, category, seller, bidder, price, bid_ts FROM ({_MATCHED})
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY price DESC, bid_ts) = 1""",
    "q10": "SELECT auction, bidder, price, ts, extra, strftime(ts, '%Y-%m-%d'), strftime(ts, '%H:%M') FROM bid",
    "q11": """WITH marked AS (
            SELECT bidder, ts, lag(ts) OVER (PARTITION BY bidder ORDER BY ts) AS last FROM bid),
        numbered AS (
            SELECT bidder, ts, count(*) FILTER (WHERE last IS NULL OR ts - last > INTERVAL 10 SECOND)
                OVER (PARTITION BY bidder ORDER BY ts) AS session FROM marked)
        SELECT bidder, count(*), min(ts), max(ts) + INTERVAL 10 SECOND FROM numbered GROUP BY bidder, session""",
    "q12": f"""SELECT bidder, count(*), {_SLICE.format("sent_at")} AS start, start + INTERVAL 10 SECOND FROM bid
        GROUP BY bidder, start""",
    "q13": "SELECT auction, bidder, price, ts, (SELECT value FROM side_input WHERE key = auction % 10000) FROM bid",
    "q14": """SELECT auction, bidder, price * 0.908, CASE WHEN extract(hour FROM ts) IN (7, 19) THEN 'otherTime'
            WHEN extract(hour FROM ts) BETWEEN 8 AND 18 THEN 'dayTime' ELSE 'nightTime' END,
            ts, extra, len(list_filter(string_split(extra, ''), lambda letter: letter = 'c'))
        FROM bid WHERE price * 908 > 1000000000 AND price * 908 < 50000000000""",
    "q15": f"SELECT strftime(ts, '%Y-%m-%d') AS day, count(*), {_FIGURES}, {_distinct('bidder')}, {_distinct('auction')} FROM bid GROUP BY day",
    "q16": f"""SELECT channel, strftime(ts, '%Y-%m-%d') AS day, strftime(max(ts), '%H:%M'), count(*), {_FIGURES},
        {_distinct("bidder")}, {_distinct("auction")} FROM bid GROUP BY channel, day""",
    "q17": f"""SELECT auction, strftime(ts, '%Y-%m-%d') AS day, count(*), {_FIGURES}, min(price), max(price), avg(price),
        sum(price) FROM bid GROUP BY auction, day""",
    "q18": """SELECT auction, bidder, max_by(price, ts), max_by(channel, ts), max(ts) FROM bid GROUP BY auction, bidder""",
    "q19": """SELECT auction, bidder, price, ts, row_number() OVER (PARTITION BY auction ORDER BY price DESC, ts) AS place
        FROM bid QUALIFY place <= 10""",
    "q20": """SELECT auction, bidder, price, b.ts, item_name, seller, category FROM auction a, bid b
        WHERE a.id = b.auction AND category = 10""",
    "q21": """SELECT auction, bidder, price, channel, coalesce(
            CAST(list_position(['apple', 'google', 'facebook', 'baidu'], lower(channel)) - 1 AS VARCHAR),
            split_part(url, '&channel_id=', 2))
        FROM bid WHERE lower(channel) IN ('apple', 'google', 'facebook', 'baidu') OR contains(url, '&channel_id=')""",
    "q22": """SELECT auction, bidder, price, channel, split_part(url, '/', 4), split_part(url, '/', 5), split_part(url, '/', 6)
        FROM bid""",
}
