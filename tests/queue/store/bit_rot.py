"""A store to damage, and what is expected of it afterwards: which messages each page of its files holds."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headrace.errors import HeadraceError, StoreDamaged
from headrace.queue import operations as ops
from headrace.queue.model import Message, arn_of
from headrace.queue.store import rows
from headrace.queue.store.pages import TABLE_LEAF, BadPage, Pages, chain, columns, payload, tree_page
from headrace.queue.store.remains import Remains
from headrace.queue.store.wal import PAGE_BYTES
from headrace.queue.store.wal_format import FRAME_HEADER_BYTES, HEADER_BYTES, scan
from headrace.testing.driver import StoreDriver, entry
from headrace.testing.stores import SQLITE

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
FRAME_BYTES: Final = FRAME_HEADER_BYTES + PAGE_BYTES
PLAIN: Final = arn_of("plain")
LATER: Final = arn_of("later")
FIFO: Final = arn_of("q.fifo")
QUEUES: Final = (PLAIN, LATER, FIFO)


@dataclass
class Sample:
    """A stopped or killed store.

    `alive`: body -> the message and its queue. `deleted`: bodies that are gone. `locked`: groups with a message in flight
    for an hour. `pages`: which messages lie on a page of the database.
    """

    folder: Path
    now_ms: int
    alive: dict[bytes, tuple[str, Message]]
    deleted: set[bytes]
    locked: set[str | None]
    pages: dict[int, set[bytes]] = field(default_factory=dict)
    commit_log_page: int = 0


def _body(chance: random.Random, number: int) -> bytes:
    size = chance.choice([20, 200, 200, 200, 900, 6_000])
    return b"%d:" % number + chance.randbytes(size)


def make_sample(root: Path, *, messages: int, killed: bool) -> Sample:
    """Three queues: with messages deleted from the front and out of the middle, delayed ones, and groups in flight."""
    root.mkdir()
    chance = random.Random(messages)
    driver = StoreDriver(SQLITE, root)
    for name in ("plain", "later", "q.fifo"):
        driver.create(name)
    numbers = iter(range(10 * messages))
    for _ in range(messages // 20):
        driver.send_all(PLAIN, [entry(_body(chance, next(numbers)), attributes=b"\x80", group="t") for _ in range(10)])
        driver.send_all(
            LATER, [entry(_body(chance, next(numbers)), delay_ms=number % 2 * 600_000) for number in range(5)]
        )
        driver.send_all(
            FIFO,
            [entry(_body(chance, number), group=f"g{number % 17}", dedup_id=str(number))
             for number in (next(numbers) for _ in range(5))],
        )  # fmt: skip
    deleted = set()
    for _ in range(messages // 100):
        taken = driver.receive(PLAIN, 10, visibility_ms=HOUR_MS)
        gone = taken[:2] if chance.random() < 0.3 else taken
        driver.delete(PLAIN, *[one.receipt for one in gone])
        deleted |= {one.message.body for one in gone}
    locked = {driver.receive(FIFO, 1, visibility_ms=HOUR_MS)[0].message.group for _ in range(3)}
    for _ in range(5):
        driver.receive(LATER, 2, visibility_ms=HOUR_MS)
    alive = {one.message.body: (queue, one.message) for queue in QUEUES for one in driver.peek(queue)}
    if not killed:
        driver.close()
    shutil.copytree(driver.folder, root / "sample", ignore=shutil.ignore_patterns("*-shm", "reserve"))
    driver.close()
    sample = Sample(root / "sample", driver.clock(), alive, deleted, locked)
    _map_pages(sample)
    return sample


def _map_pages(sample: Sample) -> None:
    """Which messages lie on which pages, in any version of the page that the files hold."""
    database = sample.folder / "headrace.db"
    wal_file = database.with_name("headrace.db-wal")
    wal = scan(bytearray(wal_file.read_bytes())) if wal_file.exists() else None
    newer: dict[int, bytes | memoryview] = {}
    for index, frame in enumerate(wal.frames if wal is not None else ()):
        assert wal is not None
        newer[frame.page] = wal.content(index)
    found: dict[int, set[bytes]] = defaultdict(set)
    with closing(Pages(database, PAGE_BYTES, newer)) as pages:
        for number in set(range(1, pages.count + 1)) - Remains(pages)._free_pages():
            for places, body in _bodies(pages, number):
                for place in places:
                    found[place].add(body)
            if _is_commit_log(pages, number):
                sample.commit_log_page = sample.commit_log_page or number
    sample.pages = {number: bodies & sample.alive.keys() for number, bodies in found.items()}


def _bodies(pages: Pages, number: int) -> Iterator[tuple[list[int], bytes]]:
    try:
        tree = tree_page(pages.page(number), number)
    except BadPage:
        return
    for cell in tree.cells if tree.kind == TABLE_LEAF else ():
        assert cell is not None
        try:
            values = columns(payload(pages, cell))
        except BadPage:  # a page of the free list, whose chain is no more
            continue
        if len(values) == 15:
            _, message = rows.from_row((cell.key, *values[1:-1]))
            if message is not None:
                yield [number, *[page for page, _ in chain(pages, cell)]], message.body


def _is_commit_log(pages: Pages, number: int) -> bool:
    try:
        tree = tree_page(pages.page(number), number)
    except BadPage:
        return False
    if tree.kind != TABLE_LEAF or len(tree.cells) != 1 or tree.cells[0] is None:
        return False
    values = columns(payload(pages, tree.cells[0]))
    return len(values) == 3 and isinstance(values[2], int) and values[2] > 1_600_000_000_000


@dataclass(frozen=True)
class Damage:
    """Bytes of one file overwritten."""

    name: str
    offset: int
    data: bytes

    def apply(self, folder: Path) -> None:
        path = folder / self.name
        content = bytearray(path.read_bytes())
        content[self.offset : self.offset + len(self.data)] = self.data
        path.write_bytes(content)

    def hit_pages(self, sample: Sample) -> set[int]:
        """The database's pages that these bytes are of."""
        first, last = self.offset, self.offset + len(self.data) - 1
        if self.name == "headrace.db":
            return set(range(first // PAGE_BYTES + 1, last // PAGE_BYTES + 2))
        if self.name != "headrace.db-wal" or last < HEADER_BYTES:
            return set()
        content = bytearray((sample.folder / self.name).read_bytes())
        wal = scan(content)
        assert wal is not None
        frames = range(max(0, first - HEADER_BYTES) // FRAME_BYTES, (last - HEADER_BYTES) // FRAME_BYTES + 1)
        return {wal.frames[index].page for index in frames if index < len(wal.frames)}


def random_damage(sample: Sample, name: str, chance: random.Random) -> Damage:
    """A flipped bit, a wrong byte, or a sector of 512 bytes of zeros or noise."""
    content = (sample.folder / name).read_bytes()
    kind = chance.choice(["bit", "bit", "byte", "zeros", "noise"])
    offset = chance.randrange(len(content))
    if kind == "bit":
        return Damage(name, offset, bytes([content[offset] ^ 1 << chance.randrange(8)]))
    if kind == "byte":
        return Damage(name, offset, bytes([content[offset] ^ chance.randrange(1, 256)]))
    offset -= offset % 512
    size = min(512, len(content) - offset)
    return Damage(name, offset, bytes(size) if kind == "zeros" else chance.randbytes(size))


@dataclass
class Verdict:
    """What became of a damaged store. `wrong`: what must not happen."""

    refused: str = ""
    missing: int = 0
    reported: int = 0
    wrong: list[str] = field(default_factory=list)


def judge(sample: Sample, damage: Damage, place: Path) -> Verdict:
    """Open a damaged copy, take everything out, compare."""
    place.mkdir()

    def prepare(folder: Path) -> None:
        shutil.copytree(sample.folder, folder, dirs_exist_ok=True)
        damage.apply(folder)

    try:
        driver = StoreDriver(SQLITE, place, now_ms=sample.now_ms, prepare=prepare)
    except StoreDamaged as error:
        return Verdict(refused=str(error))
    try:
        verdict = _take_out(sample, damage, driver)
    finally:
        driver.close()
        shutil.rmtree(place)
    return verdict


def _take_out(sample: Sample, damage: Damage, driver: StoreDriver) -> Verdict:
    verdict = Verdict()
    wrong = verdict.wrong
    arns = {one.info.arn for one in driver.run(ops.ListQueues())}
    if arns != set(QUEUES):
        wrong.append(f"queues {arns}")
        return verdict
    owners = {one.message.group for one in driver.receive(FIFO, 5, visibility_ms=0)} & sample.locked
    wrong += [f"two owners of {owners}"] if owners else []
    driver.pass_time(13 * HOUR_MS)
    got: list[tuple[str, Message]] = []
    for queue in QUEUES:
        got += [(queue, message) for message in _drain(driver, queue, wrong)]
    verdict.missing, verdict.reported = len(sample.alive) - len(got), driver.store.statistics().damaged
    _compare(sample, damage, got, verdict)
    driver.send(PLAIN, "fresh")
    wrong += (
        [] if [one.message.body for one in driver.receive(PLAIN)] == [b"fresh"] else ["a fresh message is not received"]
    )
    return verdict


def _drain(driver: StoreDriver, queue: str, wrong: list[str]) -> Iterator[Message]:
    while deliveries := driver.receive(queue, 500):
        yield from [one.message for one in deliveries]
        outcomes = driver.delete(queue, *[one.receipt for one in deliveries])
        wrong += [f"delete: {one}" for one in outcomes if isinstance(one, HeadraceError)]
    counts = driver.counts(queue)
    if (counts.visible, counts.in_flight, counts.delayed) != (0, 0, 0):
        wrong.append(f"counts of {queue} when it is empty: {counts}")


def _compare(sample: Sample, damage: Damage, got: list[tuple[str, Message]], verdict: Verdict) -> None:
    wrong = verdict.wrong
    for queue, message in got:
        if message.body in sample.deleted:
            wrong.append(f"deleted before: {message.body[:8]!r}")
        elif sample.alive.get(message.body) != (queue, message):
            wrong.append(f"delivered damaged: {message.body[:8]!r}")
    bodies = [message.body for _, message in got]
    wrong += [f"delivered twice: {len(bodies) - len(set(bodies))}"] if len(bodies) != len(set(bodies)) else []
    missing = sample.alive.keys() - set(bodies)
    hit = damage.hit_pages(sample)
    allowed = set().union(*[sample.pages.get(number, set()) for number in hit])
    wrong += [f"lost without being hit: {len(missing - allowed)}"] if missing - allowed else []
    wrong += [f"{len(missing)} missing, {verdict.reported} reported"] if len(missing) > verdict.reported else []
    order: dict[str | None, int] = {}
    for queue, message in got:
        if queue == FIFO:
            wrong += [f"order of {message.group}"] if order.get(message.group, 0) > message.seq else []
            order[message.group] = message.seq
