"""Persons, auctions and bids: seeded, out of order as far as asked, built straight into Arrow columns.

Of 50 events one is a person, three are auctions, 46 are bids. Half of the bids go to a hot auction, three quarters come
from a hot bidder, three quarters of the auctions are a hot seller's; prices are log-uniform. The n-th event happens at
n / RATE seconds after START.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

RATE: Final = 10_000
"""Events a second of event time."""
START_US: Final = 1_767_225_600_000_000
"""2026-01-01, UTC: the first event."""

PERSON: Final = (
    "id bigint, name string, email string, credit_card string, city string, state string, ts timestamp, extra string"
)
AUCTION: Final = (
    "id bigint, item_name string, description string, initial_bid bigint, reserve bigint, ts timestamp,"
    " expires timestamp, seller bigint, category bigint, extra string"
)
BID: Final = "auction bigint, bidder bigint, price bigint, channel string, url string, ts timestamp, extra string"

_PERSONS, _AUCTIONS, _EPOCH = 1, 3, 50  # of each epoch of 50 events
_FIRST_ID, _FIRST_CATEGORY, _CATEGORIES = 1_000, 10, 5
_HOT = 100  # of so many auctions or persons one is hot
_ACTIVE_PERSONS, _OPEN_AUCTIONS = 1_000, 100  # who bids and sells, what is bid for: the latest so many
_CHANNELS = 10_000
_POOL = 4_096  # different texts of a kind

_FIRST = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"]
_LAST = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"]
_CITIES = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
]
_STATES = ["AZ", "CA", "ID", "OR", "WA", "WY"]
_HOT_CHANNELS = ["Google", "Facebook", "Baidu", "Apple"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Events:
    """Some events, by kind, each in the order of arrival. `count`: of all kinds."""

    persons: pa.Table
    auctions: pa.Table
    bids: pa.Table

    @property
    def count(self) -> int:
        return int(self.persons.num_rows + self.auctions.num_rows + self.bids.num_rows)

    def tables(self) -> dict[str, pa.Table]:
        """By the names that the queries know them by."""
        return {"person": self.persons, "auction": self.auctions, "bid": self.bids}


def generate(count: int, *, first: int = 0, seed: int = 1, disorder_us: int = 0, rate: int = RATE) -> Events:
    """The events from number `first` on.

    Args:
        count: how many.
        first: how many came before: parts of a stream are made one by one, and are the same each time.
        seed: other seeds, other events.
        disorder_us: a row arrives up to so much (of event time) after younger ones, within these events.
        rate: events a second of event time.
    """
    random = np.random.default_rng((seed, first))
    numbers = np.arange(first, first + count)
    places = numbers % _EPOCH
    kinds = (places < _PERSONS, (places >= _PERSONS) & (places < _PERSONS + _AUCTIONS), places >= _PERSONS + _AUCTIONS)
    persons, auctions, bids = (_arrived(random, numbers[kind], disorder_us, rate) for kind in kinds)
    return Events(_persons(random, persons, rate), _auctions(random, auctions, rate), _bids(random, bids, rate))


def batches(events: Events, rows: int) -> Iterator[dict[str, pa.Table]]:
    """The events in batches of about `rows`, all kinds side by side, as `Events.tables`."""
    steps = max(1, -(-events.count // rows))
    for step in range(steps):
        yield {name: _share(table, step, steps) for name, table in events.tables().items()}


def write_parquet(folder: Path, count: int, *, parts: int = 1, seed: int = 1, disorder_us: int = 0) -> int:
    """Files `folder/KIND/part-NNNNN.parquet`; their names are in the order of time. Returns their bytes."""
    size = 0
    for part, first in enumerate(range(0, count, -(-count // parts))):
        events = generate(min(-(-count // parts), count - first), first=first, seed=seed, disorder_us=disorder_us)
        for name, table in events.tables().items():
            path = folder / name / f"part-{part:05}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, compression="lz4")
            size += path.stat().st_size
    return size


def messages(rows: pa.Table) -> list[bytes]:
    """Each row as a JSON object."""
    with duckdb.connect() as connection:
        connection.register("rows_", rows)
        texts = connection.sql("SELECT to_json(rows_)::VARCHAR AS body FROM rows_").to_arrow_table()
    return [text.encode() for text in texts["body"].to_pylist()]


def _arrived(random: np.random.Generator, numbers: Ints, disorder_us: int, rate: int) -> Ints:
    if not disorder_us:
        return numbers
    return numbers[np.argsort(_times(numbers, rate) + random.integers(0, disorder_us, len(numbers)), kind="stable")]


def _share(table: pa.Table, step: int, steps: int) -> pa.Table:
    start, end = (table.num_rows * place // steps for place in (step, step + 1))
    return table.slice(start, end - start)


def _persons(random: np.random.Generator, numbers: Ints, rate: int) -> pa.Table:
    count = len(numbers)
    names, emails, cards = _people()
    return pa.table(
        {
            "id": _FIRST_ID + numbers // _EPOCH,
            "name": _any(random, names, count),
            "email": _any(random, emails, count),
            "credit_card": _any(random, cards, count),
            "city": _any(random, pa.array(_CITIES), count),
            "state": _any(random, pa.array(_STATES), count),
            "ts": _timestamps(_times(numbers, rate)),
            "extra": _texts(random, count, 40),
        }
    )


def _auctions(random: np.random.Generator, numbers: Ints, rate: int) -> pa.Table:
    count, latest = len(numbers), _latest_person(numbers)
    prices = _prices(random, count)
    times = _times(numbers, rate)
    return pa.table(
        {
            "id": _FIRST_ID + numbers // _EPOCH * _AUCTIONS + numbers % _EPOCH - _PERSONS,
            "item_name": _texts(random, count, 20),
            "description": _texts(random, count, 60),
            "initial_bid": prices,
            "reserve": prices + _prices(random, count),
            "ts": _timestamps(times),
            "expires": _timestamps(times + random.integers(1, 20_000_000, count)),
            "seller": _FIRST_ID + _hot(random, latest, _ACTIVE_PERSONS, 0.75, 0),
            "category": _FIRST_CATEGORY + random.integers(0, _CATEGORIES, count),
            "extra": _texts(random, count, 40),
        }
    )


def _bids(random: np.random.Generator, numbers: Ints, rate: int) -> pa.Table:
    count = len(numbers)
    channels, urls = _channels()
    # The first four are hot: half of the bids come through them.
    chosen = np.where(random.random(count) < 0.5, random.integers(0, 4, count), random.integers(4, len(urls), count))
    return pa.table(
        {
            "auction": _FIRST_ID + _hot(random, _latest_auction(numbers), _OPEN_AUCTIONS, 0.5, 0),
            "bidder": _FIRST_ID + _hot(random, _latest_person(numbers), _ACTIVE_PERSONS, 0.75, 1),
            "price": _prices(random, count),
            "channel": channels.take(pa.array(chosen)),
            "url": urls.take(pa.array(chosen)),
            "ts": _timestamps(_times(numbers, rate)),
            "extra": _texts(random, count, 20),
        }
    )


def _times(numbers: Ints, rate: int) -> Ints:
    return START_US + numbers * 1_000_000 // rate


def _timestamps(times: Ints) -> pa.Array:
    return pa.array(times).cast(pa.timestamp("us"))


def _latest_person(numbers: Ints) -> Ints:
    """The latest person there is when these events happen, from 0."""
    return numbers // _EPOCH


def _latest_auction(numbers: Ints) -> Ints:
    return numbers // _EPOCH * _AUCTIONS + np.clip(numbers % _EPOCH - _PERSONS, 0, _AUCTIONS - 1)


def _hot(random: np.random.Generator, latest: Ints, active: int, share: float, offset: int) -> Ints:
    """One of the latest so many; for `share` of them the hot one."""
    lowest = np.maximum(latest - active + 1, 0)
    cold = lowest + (random.random(len(latest)) * (latest - lowest + 1)).astype(np.int64)
    hot = np.minimum(latest // _HOT * _HOT + offset, latest)
    found: Ints = np.where(random.random(len(latest)) < share, hot, cold)
    return found


def _prices(random: np.random.Generator, count: int) -> Ints:
    """Cents; from 1 to a million, as many of each magnitude."""
    prices: Ints = np.round(10 ** (random.random(count) * 6) * 100).astype(np.int64)
    return prices


@cache
def _people() -> tuple[pa.Array, pa.Array, pa.Array]:
    """Names, addresses and cards to choose from: the same for every part and seed."""
    emails = [f"{word[:7]}@{word[7:]}.com" for word in _words(_POOL, 12)]
    digits = np.random.default_rng(0).integers(0, 10_000, (_POOL, 4)).tolist()
    cards = [" ".join(f"{number:04}" for number in numbers) for numbers in digits]
    return pa.array([f"{first} {last}" for first in _FIRST for last in _LAST]), pa.array(emails), pa.array(cards)


@cache
def _channels() -> tuple[pa.Array, pa.Array]:
    """Channels and their URLs, the hot ones first. Of the others a tenth have no id in the URL."""
    names = [*_HOT_CHANNELS, *(f"channel-{number}" for number in range(_CHANNELS))]
    ids = ["" if place < 4 or place % 10 == 0 else f"&channel_id={place}" for place in range(len(names))]
    paths = [f"{word[:5]}/{word[5:10]}/{word[10:]}" for word in _words(len(names), 15)]
    urls = [f"https://www.nexmark.com/{path}/item.htm?query=1{id}" for path, id in zip(paths, ids, strict=True)]
    return pa.array(names), pa.array(urls)


def _any(random: np.random.Generator, pool: pa.Array, count: int) -> pa.Array:
    return pool.take(pa.array(random.integers(0, len(pool), count)))


def _words(count: int, length: int) -> list[str]:
    letters = np.random.default_rng(0).integers(97, 123, count * length, dtype=np.uint8).tobytes().decode()
    return [letters[start : start + length] for start in range(0, count * length, length)]


def _texts(random: np.random.Generator, count: int, length: int) -> pa.Array:
    """Random letters, `length` of them on average, in Arrow's own layout: no Python object a row."""
    lengths = random.integers(length // 2, length + length // 2 + 1, count, dtype=np.int32)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    letters = random.integers(97, 123, int(offsets[-1]), dtype=np.uint8)
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])
