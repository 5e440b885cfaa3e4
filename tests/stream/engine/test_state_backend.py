from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream import limits
from headrace.stream.engine.shards import shard_of
from headrace.stream.engine.state import OperatorState, part_key, read_part_key
from headrace.stream.engine.state_backend import DurableOperatorState, DurableStateBackend, MemoryStateBackend

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.string())])


def rows(*pairs: tuple[int | None, str]) -> pa.Table:
    return pa.table({"k": [k for k, _ in pairs], "v": [v for _, v in pairs]}, schema=SCHEMA)


def texts(table: pa.Table) -> list[str]:
    found: list[str] = table["v"].to_pylist()
    return found


class Disk:
    """What a store would have, and how often it was asked."""

    def __init__(self, shards: int = 4, memory_bytes: int = 2**30) -> None:
        self.values: dict[bytes, bytes] = {}
        self.fetched: list[bytes] = []
        self.shards, self.memory_bytes = shards, memory_bytes
        self.store = self.opened()

    def opened(self, owned: set[int] | None = None) -> DurableStateBackend:
        self.store = DurableStateBackend(self.fetch, shards=self.shards, owned=owned, memory_bytes=self.memory_bytes)
        return self.store

    def parts(self) -> DurableOperatorState:
        return self.store.open("op-1", ("k",), SCHEMA)

    def commit(self) -> None:
        for key, value in self.store.take_changes().items():
            if value is None:
                del self.values[key]
            else:
                self.values[key] = value

    def fetch(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        self.fetched.append(prefix)
        return sorted(item for item in self.values.items() if item[0].startswith(prefix))


def test_key_names_its_part_and_sorts_by_bucket() -> None:
    keys = [part_key("join-1/left", 255, bucket, 7) for bucket in (-(2**62), -1, 0, 2**62)]
    assert keys == sorted(keys)
    assert read_part_key(keys[0]) == ("join-1/left", 255, -(2**62), 7)


@pytest.mark.parametrize("make", [lambda: MemoryStateBackend().open("op-1", ("k",), SCHEMA), lambda: Disk().parts()])
def test_parts_keep_order_within_a_bucket(make: Callable[[], OperatorState]) -> None:
    parts = make()
    parts.append(5, rows((1, "a"), (1, "b")))
    parts.append(5, rows((1, "c")))
    parts.append(-3, rows((1, "d")))
    parts.append(9, rows())
    assert texts(parts.read()) == ["d", "a", "b", "c"]
    assert texts(parts.read([5, 77])) == ["a", "b", "c"]
    assert parts.buckets() == [-3, 5]
    assert parts.rows() == 4
    parts.replace(5, rows((1, "e")))
    parts.drop(-3)
    parts.drop(-3)
    assert texts(parts.read()) == ["e"]
    assert parts.read([]).schema == SCHEMA


def test_what_is_dropped_in_the_same_step_is_never_written() -> None:
    disk = Disk()
    disk.parts().append(1, rows((1, "a")))
    disk.parts().drop(1)
    assert disk.store.take_changes() == {}


def test_number_of_parts_grows_by_the_commit_and_starts_anew_after_a_replacement() -> None:
    disk = Disk()
    for text in "abc":
        disk.parts().append(1, rows((1, text)))
        disk.commit()
    assert disk.parts().count(1) == len(disk.values) == 3
    disk.parts().replace(1, rows((1, "d")))
    assert disk.parts().count(1) == 1
    disk.commit()
    assert len(disk.values) == 1
    assert texts(disk.opened().open("op-1", ("k",), SCHEMA).read()) == ["d"]


def test_rows_of_a_part_are_of_its_shard_and_owners_see_only_theirs() -> None:
    disk = Disk()
    given = rows(*((number, str(number)) for number in range(100)))
    disk.parts().append(1, given)
    disk.commit()
    assert {read_part_key(key).shard for key in disk.values} == {0, 1, 2, 3}
    seen = []
    for shard in range(4):
        mine = disk.opened(owned={shard}).open("op-1", ("k",), SCHEMA).read()
        assert set(shard_of(mine, ["k"], 4).to_pylist()) == {shard}
        seen += texts(mine)
    assert sorted(seen) == sorted(texts(given))


def test_large_parts_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATE_PART_BYTES_MAX", 4_000)
    disk = Disk(shards=1)
    disk.parts().append(1, rows(*((number, "x" * 100) for number in range(200))))
    disk.parts().append(2, rows((1, "x" * 10_000)))
    disk.commit()
    sizes = [len(value) for key, value in disk.values.items() if read_part_key(key).bucket == 1]
    assert len(sizes) > 1
    assert max(sizes) < 4_500  # the limit, and what Arrow puts around it
    assert disk.opened().open("op-1", ("k",), SCHEMA).rows() == 201


def test_parts_beyond_the_memory_are_fetched_again_but_never_those_whose_commit_may_be_on_its_way() -> None:
    disk = Disk(shards=1, memory_bytes=0)
    for number in range(4):
        disk.parts().append(number, rows((1, str(number))))
        disk.commit()
    assert texts(disk.parts().read([3])) == ["3"]
    assert disk.fetched == [b"p/op-1/"], "when it was opened"
    assert texts(disk.parts().read([0, 1])) == ["0", "1"]
    assert len(disk.fetched) == 3
    assert disk.store.size_bytes() == sum(len(value) for value in disk.values.values())
    assert disk.parts().rows() == 4


def test_state_larger_than_memory_is_opened_a_part_at_a_time() -> None:
    disk = Disk(shards=2)
    for number in range(50):
        disk.parts().append(number, rows((number, "x" * 1_000)))
    disk.commit()
    kept: list[int] = []

    def read(prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for item in disk.fetch(prefix):
            yield item
            kept.append(store._memory._bytes)

    store = DurableStateBackend(read, shards=2, memory_bytes=5_000)
    parts = store.open("op-1", ("k",), SCHEMA)
    assert len(kept) == 50 and max(kept) <= 5_000
    assert parts.rows() == 50 and len(texts(parts.read())) == 50


def test_a_part_keeps_nothing_in_memory_but_itself() -> None:
    """Not the table that it was cut from: one row of a far window would keep a whole batch."""
    disk = Disk()
    given = rows(*((1, "x" * 100) for _ in range(1_000)))
    disk.parts().append(1, given.slice(0, 999))
    disk.parts().append(2, given.slice(999))
    disk.commit()
    assert 100 <= disk.parts().read([2]).get_total_buffer_size() < 1_000


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "replace", "drop", "commit", "reopen", "read"]),
        st.integers(-2, 2),
        st.lists(st.tuples(st.none() | st.integers(0, 5), st.text(max_size=3)), max_size=4),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS, shards=st.sampled_from([1, 3]), memory_bytes=st.sampled_from([0, 500, 2**30]))
def test_durable_parts_are_what_parts_in_memory_are(
    operations: list[tuple[str, int, list[tuple[int | None, str]]]], shards: int, memory_bytes: int
) -> None:
    disk, model = Disk(shards, memory_bytes), MemoryStateBackend().open("op-1", ("k",), SCHEMA)
    for what, bucket, pairs in operations:
        if what in {"append", "replace"}:
            getattr(disk.parts(), what)(bucket, rows(*pairs))
            getattr(model, what)(bucket, rows(*pairs))
        elif what == "drop":
            disk.parts().drop(bucket)
            model.drop(bucket)
        elif what == "commit":
            disk.commit()
        elif what == "reopen":
            disk.commit()
            disk.opened()
        for key in {key for key, _ in pairs}:
            of_key = [
                [row["v"] for row in parts.read([bucket]).to_pylist() if row["k"] == key]
                for parts in (disk.parts(), model)
            ]
            assert of_key[0] == of_key[1]
        assert disk.parts().buckets() == model.buckets()
        assert disk.parts().buckets(bucket, bucket + 1) == [n for n in model.buckets() if n in {bucket, bucket + 1}]
        assert disk.parts().buckets(last=bucket) == [number for number in model.buckets() if number <= bucket]
        assert disk.parts().rows() == model.rows()
