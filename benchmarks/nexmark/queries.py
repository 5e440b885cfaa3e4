"""Nexmark's queries as pipelines.

The numbers are Nexmark's; the SQL is Spark's dialect. What differs from Nexmark's words for Flink:

* q4 averages, per category, prices that may still rise; an average of those would have to take values back, and streams
  here only add. So it averages per 20 seconds of auctions' openings, when their prices are final.
* q9 and q4 say that an auction lasts 20 seconds at most (the generator's rule), so that bids are not kept for ever.
* q5, q7 and q8 join windows by their start and end, q7 by the window's time.
* q12 counts by processing time: the source says when that is, as the event time `sent_at` (of a queue, its metadata).
* q9 and q15 to q19 never end: their results change (update mode).

q6 is left out, as in Nexmark's own suite for Flink: an average over the last ten rows of a partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

import headrace.stream as hs
from benchmarks.nexmark.generator import AUCTION, BID, PERSON

DELAY: Final = "2 seconds"
"""How far events may be out of order."""

SIDE_INPUT: Final = pa.table({"key": pa.array(range(10_000)), "value": [f"value {key}" for key in range(10_000)]})
"""q13's table that stands still."""


@dataclass(frozen=True, slots=True)
class Query:
    """One of them.

    Attributes:
        what: in a few words.
        sql: over `person`, `auction`, `bid`, `side_input`.
        partition: of changing results (update mode): the columns whose last rows count. Empty: results are final.
        time: the event time.
    """

    what: str
    sql: str
    partition: tuple[str, ...] = ()
    time: str = "ts"


def sources(query: Query) -> dict[str, hs.Stream]:
    """The three streams, from queues of their names."""
    bid = hs.queue("bid", schema=BID, metadata=["sent_at"] if query.time == "sent_at" else [])
    return {
        "person": hs.queue("person", schema=PERSON).with_watermark("ts", delay=DELAY),
        "auction": hs.queue("auction", schema=AUCTION).with_watermark("ts", delay=DELAY),
        "bid": bid.with_watermark(query.time, delay=DELAY),
    }


def pipeline(name: str, streams: Mapping[str, hs.Stream] | None = None, sink: hs.Sink | None = None) -> hs.Pipeline:
    """A query as a pipeline.

    Args:
        name: q0, q1, …
        streams: `person`, `auction` and `bid`, with their event times; None: queues of these names.
        sink: where the results go; None: nowhere.
    """
    query = QUERIES[name]
    side_input = hs.table("side_input", data=SIDE_INPUT)
    stream = hs.sql(query.sql, name=name, **(streams or sources(query)), side_input=side_input)
    sinks = [] if sink is None else [sink]
    return hs.pipeline(f"nexmark-{name}", stream, sink=sinks, mode="update" if query.partition else "append")


_RANKS: Final = """
    count(*) FILTER (WHERE price < 10000) AS rank1_bids,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
    count(*) FILTER (WHERE price >= 1000000) AS rank3_bids"""

_DISTINCT: Final = """
    count(DISTINCT bidder) AS bidders,
    count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
    count(DISTINCT auction) AS auctions,
    count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions"""

QUERIES: Final = {
    "q0": Query("pass through", "SELECT auction, bidder, price, ts, extra FROM bid"),
    "q1": Query("currency", "SELECT auction, bidder, 0.908 * price AS price, ts, extra FROM bid"),
    "q2": Query("selection", "SELECT auction, price FROM bid WHERE auction % 123 = 0"),
    "q3": Query(
        "join, local sellers",
        """SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')""",
    ),
    "q4": Query(
        "join, maximum, average",
        """WITH final AS (
            SELECT a.id, a.category, max(b.price) AS price, window_time
            FROM auction a JOIN bid b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.ts + INTERVAL 20 SECONDS
            WHERE b.ts <= a.expires
            GROUP BY tumble(a.ts, '20 seconds'), a.id, a.category)
        SELECT window_start, category, avg(price) AS price FROM final GROUP BY tumble(window_time, '20 seconds'), category""",
    ),
    "q5": Query(
        "hopping counts, hot items",
        """WITH counts AS (
            SELECT window_start, window_end, auction, count(*) AS num
            FROM bid GROUP BY hop(ts, '10 seconds', '2 seconds'), auction),
        most AS (SELECT window_start, window_end, max(num) AS num FROM counts GROUP BY window_start, window_end)
        SELECT c.window_start, c.auction, c.num FROM counts c JOIN most m
        ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.num""",
    ),
    "q7": Query(
        "highest bid of a window, joined back",
        """SELECT b.auction, b.price, b.bidder, b.ts FROM bid b JOIN (
            SELECT max(price) AS price, window_time FROM bid GROUP BY tumble(ts, '10 seconds')) m
        ON b.price = m.price AND b.ts > m.window_time - INTERVAL 10 SECONDS AND b.ts <= m.window_time""",
    ),
    "q8": Query(
        "join of windows, new sellers",
        """SELECT p.id, p.name, p.window_start FROM (
            SELECT id, name, window_start, window_end FROM person GROUP BY tumble(ts, '10 seconds'), id, name) p
        JOIN (SELECT seller, window_start, window_end FROM auction GROUP BY tumble(ts, '10 seconds'), seller) a
        ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end""",
    ),
    "q9": Query(
        "join, winning bid",
        """SELECT id, category, seller, bidder, price, bid_ts FROM (
            SELECT a.id, a.category, a.seller, b.bidder, b.price, b.ts AS bid_ts,
                row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.ts ASC) AS place
            FROM auction a JOIN bid b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.ts + INTERVAL 20 SECONDS
            WHERE b.ts <= a.expires)
        WHERE place <= 1""",
        ("id",),
    ),
    "q10": Query(
        "columns to partition files by",
        """SELECT auction, bidder, price, ts, extra, date_format(ts, 'yyyy-MM-dd') AS day, date_format(ts, 'HH:mm') AS minute
        FROM bid""",
    ),
    "q11": Query(
        "sessions",
        """SELECT bidder, count(*) AS bids, window_start, window_end FROM bid
        GROUP BY session_window(ts, '10 seconds'), bidder""",
    ),
    "q12": Query(
        "windows of processing time",
        "SELECT bidder, count(*) AS bids, window_start, window_end FROM bid GROUP BY tumble(sent_at, '10 seconds'), bidder",
        time="sent_at",
    ),
    "q13": Query(
        "a table that stands still",
        """SELECT b.auction, b.bidder, b.price, b.ts, s.value FROM bid b JOIN side_input s
        ON b.auction % 10000 = s.key""",
    ),
    "q14": Query(
        "CASE, functions, filter",
        """SELECT auction, bidder, 0.908 * price AS price,
            CASE WHEN hour(ts) BETWEEN 8 AND 18 THEN 'dayTime' WHEN hour(ts) <= 6 OR hour(ts) >= 20 THEN 'nightTime'
                ELSE 'otherTime' END AS bid_time,
            ts, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
        FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000""",
    ),
    "q15": Query(
        "distinct counts, filtered",
        f"""SELECT date_format(ts, 'yyyy-MM-dd') AS day, count(*) AS bids, {_RANKS}, {_DISTINCT}
        FROM bid GROUP BY date_format(ts, 'yyyy-MM-dd')""",
        ("day",),
    ),
    "q16": Query(
        "the same, more keys",
        f"""SELECT channel, date_format(ts, 'yyyy-MM-dd') AS day, max(date_format(ts, 'HH:mm')) AS minute,
            count(*) AS bids, {_RANKS}, {_DISTINCT}
        FROM bid GROUP BY channel, date_format(ts, 'yyyy-MM-dd')""",
        ("channel", "day"),
    ),
    "q17": Query(
        "aggregates without end",
        f"""SELECT auction, date_format(ts, 'yyyy-MM-dd') AS day, count(*) AS bids, {_RANKS},
            min(price) AS low, max(price) AS high, avg(price) AS mean, sum(price) AS total
        FROM bid GROUP BY auction, date_format(ts, 'yyyy-MM-dd')""",
        ("auction", "day"),
    ),
    "q18": Query(
        "the last bid",
        """SELECT auction, bidder, price, channel, ts FROM (
            SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY ts DESC) AS place FROM bid)
        WHERE place <= 1""",
        ("auction", "bidder"),
    ),
    "q19": Query(
        "top ten of each auction",
        """SELECT auction, bidder, price, ts, place FROM (
            SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, ts ASC) AS place FROM bid)
        WHERE place <= 10""",
        ("auction",),
    ),
    "q20": Query(
        "bids with their auctions",
        """SELECT b.auction, b.bidder, b.price, b.ts, a.item_name, a.seller, a.category
        FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10""",
    ),
    "q21": Query(
        "CASE, regular expression",
        r"""SELECT auction, bidder, price, channel,
            CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
                ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id
        FROM bid WHERE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) <> ''
            OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')""",
    ),
    "q22": Query(
        "a URL's parts",
        """SELECT auction, bidder, price, channel, split(url, '/')[3] AS dir1, split(url, '/')[4] AS dir2,
            split(url, '/')[5] AS dir3 FROM bid""",
    ),
}
