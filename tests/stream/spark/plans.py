"""Plans that both engines must answer alike, over the same data in the same disorder; no row is late."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

import headrace.stream as hs

BIDS: Final = "auction bigint, bidder string, price bigint, rate double, cost decimal(10,2), ok boolean, ts timestamp"
AUCTIONS: Final = "id bigint, seller string, opened timestamp"
START: Final = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - UTC without zone, as inside a pipeline

Batches = list[list[dict[str, Any]]]


def _batches(rows: list[dict[str, Any]], time: str, seed: int) -> Batches:
    """Three batches of rows that come up to two seconds late; the delay of plans is three."""
    noise = random.Random(seed)
    order = sorted(rows, key=lambda row: row[time] + dt.timedelta(seconds=noise.uniform(0, 2)))
    third = len(order) // 3
    return [order[:third], order[third : 2 * third], order[2 * third :]]


def bids() -> Batches:
    """200 bids in 40 seconds. Sessions of a bidder: some rows lie exactly at the gap. NULLs everywhere."""
    noise = random.Random(1)
    rows = [
        {
            "auction": noise.randrange(6) if noise.random() < 0.9 else None,
            "bidder": noise.choice("abcde"),
            "price": noise.randrange(1_000) if noise.random() < 0.9 else None,
            "rate": noise.uniform(-5, 5) if noise.random() < 0.9 else None,
            "cost": Decimal(noise.randrange(100_000)) / 100,
            "ok": noise.choice([True, False, None]),
            "ts": START + dt.timedelta(milliseconds=500 * noise.randrange(80)),
        }
        for _ in range(200)
    ]
    return _batches(rows, "ts", 2)


def auctions() -> Batches:
    rows = [
        {"id": number % 8, "seller": f"s{number % 3}", "opened": START + dt.timedelta(seconds=2 * number)}
        for number in range(20)
    ]
    return _batches(rows, "opened", 3)


def bid_stream() -> hs.Stream:
    return hs.memory(BIDS, bids(), name="bids").with_watermark("ts", delay="3 seconds")


def auction_stream() -> hs.Stream:
    return hs.memory(AUCTIONS, auctions(), name="auctions").with_watermark("opened", delay="3 seconds")


@hs.function(returns="string")
def label(price: int | None, at: dt.datetime) -> str | None:
    return None if price is None else f"{price}@{at:%H:%M:%S}"


def doubled(row: dict[str, Any]) -> dict[str, Any]:
    return {"bidder": row["bidder"], "twice": (row["price"] or 0) * 2, "ts": row["ts"]}


def pairs(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for letter in "xy" if row["ok"] else "":
        yield {"bidder": row["bidder"] + letter, "price": row["price"]}


def dear(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.greater(rows["price"], 500)).select(["bidder", "price"])


def has_price(row: dict[str, Any]) -> bool:
    return row["price"] is not None


AGGREGATES: Final = """
    SELECT window_start, window_end, bidder, count(*) AS n, count(price) AS prices, sum(price) AS total,
        min(price) AS least, max(price) AS most, avg(price) AS mean, sum(cost) AS costs, avg(cost) AS cost,
        count(DISTINCT auction) AS auctions, stddev_samp(rate) AS s1, stddev_pop(rate) AS s2, var_samp(rate) AS v1,
        var_pop(rate) AS v2, bool_and(ok) AS every, bool_or(ok) AS some, percentile(rate, 0.25) AS quarter,
        sort_array(collect_list(price)) AS list, sort_array(collect_set(auction)) AS elements,
        count(*) FILTER (WHERE ok) AS good, sum(rate) FILTER (WHERE price > 500) AS dear,
        min_by(price, cost) AS cheapest, max_by(price, cost) AS dearest,
        max(price) - min(price) AS spread
    FROM bids GROUP BY tumble(ts, '7 seconds'), bidder HAVING count(*) > 1"""

WINDOW_JOIN: Final = """
    WITH counts AS (SELECT window_start, window_end, auction, count(*) AS n FROM bids
                    GROUP BY tumble(ts, '10 seconds'), auction),
         opens AS (SELECT window_start, window_end, id, count(*) AS m FROM auctions
                   GROUP BY tumble(opened, '10 seconds'), id)
    SELECT counts.window_start, counts.auction, n, m FROM counts JOIN opens
    ON counts.window_start = opens.window_start AND counts.window_end = opens.window_end AND counts.auction = opens.id"""

INTERVAL: Final = """
    SELECT b.bidder, b.price, a.seller, b.ts, a.opened FROM bids b {} JOIN auctions a
    ON b.auction = a.id AND a.opened BETWEEN b.ts - INTERVAL 4 SECONDS AND b.ts + INTERVAL 1 SECOND"""


def over_bids(text: str) -> Callable[[], hs.Stream]:
    return lambda: hs.sql(text, bids=bid_stream())


def over_both(text: str) -> Callable[[], hs.Stream]:
    return lambda: hs.sql(text, bids=bid_stream(), auctions=auction_stream())


def with_table() -> hs.Stream:
    sellers = hs.table(
        "sellers", data=[{"id": number, "city": f"c{number}"} for number in range(3)], schema="id bigint, city string"
    )
    return hs.sql(
        """SELECT bidder, city, CASE WHEN price > 500 THEN 'dear' WHEN price IS NULL THEN '?' ELSE 'cheap' END AS kind,
               label(price, ts) AS label, price / 7 AS part, price % 7 AS rest, date_trunc('MINUTE', ts) AS minute
           FROM bids LEFT JOIN sellers ON bids.auction = sellers.id WHERE bidder <> 'e'""",
        bids=bid_stream(), sellers=sellers, label=label,
    )  # fmt: skip


def with_python() -> hs.Stream:
    stream = bid_stream().filter(has_price).map(doubled, schema="bidder string, twice bigint, ts timestamp")
    return stream.sql(
        "SELECT window_start, bidder, sum(twice) AS total, max(second(ts)) AS last FROM input WHERE twice > 100"
        " GROUP BY tumble(ts, '10 seconds'), bidder"
    )


PLANS: Final[dict[str, Callable[[], hs.Stream]]] = {
    "tumble, every aggregate": over_bids(AGGREGATES),
    "hop with NULL keys": over_bids(
        "SELECT window_start, auction, count(*) AS n, max(price) AS most FROM bids"
        " GROUP BY hop(ts, '10 seconds', '4 seconds'), auction"
    ),
    "sessions": over_bids(
        "SELECT window_start, window_end, bidder, count(*) AS n, sum(price) AS total FROM bids"
        " GROUP BY session_window(ts, '1500 milliseconds'), bidder"
    ),
    "window over windows": over_bids(
        """WITH small AS (SELECT window_time, bidder, count(*) AS n FROM bids GROUP BY tumble(ts, '5 seconds'), bidder)
           SELECT window_start, sum(n) AS n, max(n) AS most FROM small GROUP BY tumble(window_time, '20 seconds')"""
    ),
    "window join": over_both(WINDOW_JOIN),
    "interval join": over_both(INTERVAL.format("")),
    "interval join, left": over_both(INTERVAL.format("LEFT")),
    "interval join, right": over_both(INTERVAL.format("RIGHT")),
    "interval join, full": over_both(INTERVAL.format("FULL")),
    "first and last": over_bids(  # of what depends on the time alone: of equal times the first to come is first
        """SELECT window_start, bidder, first(date_format(ts, 'ss')) AS one, last(date_format(ts, 'ss')) AS other FROM bids
        GROUP BY tumble(ts, '7 seconds'), bidder"""
    ),
    "table, CASE, function": with_table,
    "Python steps": with_python,
    "flat_map, batches": lambda: (
        bid_stream()
        .flat_map(pairs, schema="bidder string, price bigint")
        .map_batches(dear, schema="bidder string, price bigint")
    ),
    "union": over_bids("SELECT bidder, price FROM bids WHERE ok UNION ALL SELECT bidder, auction FROM bids WHERE NOT ok"),
}  # fmt: skip


def sources_of(name: str) -> dict[str, Batches]:
    """The batches of a plan's sources, by name."""
    found = {"bids": bids()}
    return {**found, "auctions": auctions()} if "join" in name else found
