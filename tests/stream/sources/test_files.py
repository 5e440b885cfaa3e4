"""Files of lines and folders of files as sources."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pyarrow as pa
import pytest

from headrace.stream import limits
from headrace.stream.errors import SourceFailed
from headrace.stream.plan import FileSource
from headrace.stream.schema import ORIGIN, Schema
from headrace.stream.sources.base import Chunk, FileRows
from headrace.stream.sources.file_listing import format_of, list_files
from headrace.stream.sources.files import FileReader
from headrace.stream.sources.lines import LineFile
from tests.patience import PATIENCE_S

Form = Literal["parquet", "csv", "jsonl", "access_log"]


_readers: list[FileReader] = []


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A followed file is looked at again at once; readers are closed at the end."""
    monkeypatch.setattr(limits, "LIST_EVERY_S", 0.0)
    yield
    while _readers:
        _readers.pop().close()


def lines(numbers: Iterable[int]) -> bytes:
    return b"".join(b'{"n":%d}\n' % number for number in numbers)


def opened(
    path: Path | str, form: Form = "jsonl", *, position: bytes | None = None, follow: bool = False
) -> FileReader:
    return opened_source(FileSource("files", str(path), form, Schema.of("n bigint"), follow=follow), position)


def opened_source(source: FileSource, position: bytes | None = None) -> FileReader:
    reader = FileReader(source)
    _readers.append(reader)
    reader.open(position)
    return reader


def read_all(reader: FileReader, rows_max: int = 10) -> list[Chunk]:
    """What is there now."""
    chunks = []
    while (chunk := reader.read(rows_max, 0.001)) is not None:
        chunks.append(chunk)
    return chunks


def values(chunks: Iterable[Chunk]) -> list[int]:
    return [number for chunk in chunks for number in chunk.rows.column("n").to_pylist()]


def test_a_folder_is_read_by_name_and_hidden_and_unfinished_files_are_not(tmp_path: Path) -> None:
    for name, numbers in {"b.jsonl": [3], "a/z.jsonl": [1, 2], "c.ndjson": [4]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines(numbers))
    for name in (".hidden.jsonl", "_x.jsonl", "x.jsonl.tmp", "x.csv", ".git/x.jsonl", "x.jsonl~"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines([99]))
    reader = opened(tmp_path)
    assert values(read_all(reader)) == [1, 2, 3, 4]
    assert reader.finished and reader.progress().lag == 0 and reader.progress().done == 4 * len(lines([1]))


def test_a_suffix_tells_the_format_also_in_front_of_that_of_a_compression_or_in_a_folder(tmp_path: Path) -> None:
    assert [format_of(Path(name)) for name in ("x.json.gz", "X.CSV", "*.pq", "x.log", "x.gz")] == [
        "jsonl", "csv", "parquet", None, None,
    ]  # fmt: skip
    (tmp_path / "_SUCCESS").touch()
    assert format_of(tmp_path) is None
    (tmp_path / "x.csv.zst").touch()
    assert format_of(tmp_path) == "csv"


def test_a_glob_takes_what_it_says(tmp_path: Path) -> None:
    for name in ("a/1.log", "b/2.log", "b/3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines([int(name[2])]))
    assert [file.name for file in list_files(f"{tmp_path}/*/*.log", "jsonl")] == ["a/1.log", "b/2.log"]
    assert values(read_all(opened(f"{tmp_path}/**/*.txt"))) == [3]


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="no such file"):
        opened(tmp_path / "x.jsonl")


@pytest.mark.parametrize("rows_max", [1, 2, 3, 100])
def test_every_position_goes_on_behind_its_chunk(tmp_path: Path, rows_max: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(range(5)) + b"\n" + lines([5]))
    (tmp_path / "b.jsonl").write_bytes(lines([6, 7]).rstrip())
    chunks = read_all(opened(tmp_path), rows_max)
    assert values(chunks) == list(range(8))
    for number, chunk in enumerate(chunks):
        rest = read_all(opened(tmp_path, position=chunk.position), rows_max)
        assert values(rest) == values(chunks[number + 1 :])


def test_small_files_fill_a_batch_together_and_each_row_is_known_by_its_own(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jsonl").write_bytes(lines([2 * number, 2 * number + 1]))
    chunks = read_all(opened(tmp_path), 3)
    assert [values([chunk]) for chunk in chunks] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    origins = chunks[1].rows.column(ORIGIN).to_pylist()
    assert chunks[1].origins.dead(origins[2], "", "").message_id == f"{tmp_path / '2.jsonl'}:2"


def test_what_is_added_to_the_last_file_between_two_runs_is_read(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").write_bytes(lines([0]))
    (tmp_path / "1.jsonl").write_bytes(lines([1]))
    (chunk,) = read_all(opened(tmp_path))
    with (tmp_path / "1.jsonl").open("ab") as more:
        more.write(lines([2]))
    assert values(read_all(opened(tmp_path, position=chunk.position))) == [2]


def test_a_bad_line_is_dead_with_path_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([1]) + b"\nx\n" + lines([2]) + b'{"n":"3"}')
    (chunk,) = read_all(opened(path))
    assert [(dead.body, dead.message_id) for dead in chunk.dead] == [(b"x", f"{path}:3"), (b'{"n":"3"}', f"{path}:5")]
    assert values([chunk]) == [1, 2]
    assert chunk.origins.dead(2, "why", "step").message_id == f"{path}:4"


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
def test_packed_lines_are_unpacked_and_can_be_gone_on_with(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    name = "a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst"
    (tmp_path / name).write_bytes(pack(lines(range(25))))
    chunks = read_all(opened(tmp_path))
    assert values(chunks) == list(range(25))
    assert values(read_all(opened(tmp_path, position=chunks[0].position))) == list(range(10, 25))


def test_a_damaged_packed_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(range(1_000)))[:-200] + b"x" * 200)
    with pytest.raises(SourceFailed, match=r"a\.jsonl\.gz"):
        read_all(opened(tmp_path))


def test_csv_has_a_header_in_each_file_and_breaks_within_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'x,n\r\n"a\nb\n""c",1\r\nq,2\r\n')
    (tmp_path / "b.csv").write_bytes(b'n,x\n3,"open\n')
    source = FileSource("files", str(tmp_path), "csv", Schema.of("n bigint, x string"))
    for rows_max in (1, 2, 10):
        chunks = read_all(opened_source(source), rows_max)
        rows = [(row["n"], row["x"]) for chunk in chunks for row in chunk.rows.to_pylist()]
        assert rows == [(1, 'a\nb\n"c'), (2, "q")]
        assert [dead.message_id for chunk in chunks for dead in chunk.dead] == [f"{tmp_path}/b.csv:2"]
        assert values(read_all(opened_source(source, chunks[0].position))) == values(chunks[1:])


def test_a_csv_header_without_a_column_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"m\n1\n")
    with pytest.raises(SourceFailed, match=r"a\.csv.*'n' is not there"):
        read_all(opened(tmp_path, "csv"))


def test_an_access_log_is_lines(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b'{"ts":"2013-01-01T00:00:00Z","status":200}\njunk\n')
    (chunk,) = read_all(opened_source(FileSource("log", str(path), "access_log", Schema.of("status int"))))
    assert (chunk.rows.column("status").to_pylist(), [dead.message_id for dead in chunk.dead]) == ([200], [f"{path}:2"])


# ---------------------------------------------------------------------------------------------------------- changes


def test_a_file_that_changed_behind_the_position_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(range(20)))
    (position, *_) = (chunk.position for chunk in read_all(opened(path)))
    for other in (lines(range(1, 21)), lines([0])):
        path.write_bytes(other)
        with pytest.raises(SourceFailed, match="truncated or rewritten"):
            opened(path, position=position)


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(lines(range(20)))
    chunk = opened(tmp_path).read(10, 0)
    assert chunk is not None
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(SourceFailed, match="gone"):
        opened(tmp_path, position=chunk.position)


def test_a_file_that_comes_in_front_of_the_position_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(lines([1]))
    reader = opened(tmp_path, follow=True)
    (chunk,) = read_all(reader)
    (tmp_path / "a.jsonl").write_bytes(lines([0]))
    with pytest.raises(SourceFailed, match="in front of"):
        read_all(reader)
    with pytest.raises(SourceFailed, match="in front of"):
        opened(tmp_path, position=chunk.position, follow=True)


# ------------------------------------------------------------------------------------------------------------ follow


def leave_alone(path: Path) -> None:
    """Make it as old as if nobody had written to it for a while."""
    os.utime(path, (time.time() - limits.SETTLED_S - 1,) * 2)


def hold(path: Path) -> None:
    """Make it as new as if somebody wrote to it just now, for as long as the test takes."""
    os.utime(path, (time.time() + 3_600,) * 2)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_appended_lines_are_read_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    reader = opened(tmp_path, follow=True)
    assert read_all(reader) == []
    append(path, lines([1]) + b'{"n":')
    assert values(read_all(reader)) == [1]
    append(path, b"2}\n")
    chunks = read_all(reader)
    assert values(chunks) == [2] and not reader.finished
    append(path, lines([3]))
    assert values(read_all(opened(tmp_path, position=chunks[-1].position, follow=True))) == [3]


def test_a_csv_record_that_grows_is_read_when_its_quote_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'n,x\n1,"a\n')
    reader = opened(path, "csv", follow=True)
    assert read_all(reader) == []
    append(path, b'b"\n2,\n')
    assert values(read_all(reader)) == [1, 2]


def test_new_files_are_read_and_end_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([1]) + b'{"n":2}')
    reader = opened(tmp_path, follow=True)
    assert values(read_all(reader)) == [1]
    (tmp_path / "b.jsonl").write_bytes(lines([3]))
    leave_alone(tmp_path / "a.jsonl")
    assert values(read_all(reader)) == [2, 3]
    (tmp_path / "c.jsonl").write_bytes(lines([4]))
    leave_alone(tmp_path / "b.jsonl")
    assert values(read_all(reader)) == [4]


def test_lines_that_come_to_a_file_after_the_next_one_was_begun_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([1]))
    reader = opened(tmp_path, follow=True)
    assert values(read_all(reader)) == [1]
    (tmp_path / "b.jsonl").write_bytes(lines([3]))
    hold(tmp_path / "a.jsonl")
    assert values(read_all(reader)) == []
    append(tmp_path / "a.jsonl", lines([2]))
    hold(tmp_path / "a.jsonl")
    assert values(read_all(reader)) == [2]
    leave_alone(tmp_path / "a.jsonl")
    assert values(read_all(reader)) == [3]


def test_a_log_that_is_renamed_is_read_to_its_end_and_the_new_one_behind_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(lines([1]))
    reader = opened(path, follow=True)
    (chunk,) = read_all(reader)
    append(path, lines([2]))
    path.rename(tmp_path / "access.log.1")
    again = opened(path, position=chunk.position, follow=True)
    assert values(read_all(reader)) == [2]
    path.write_bytes(lines([3]))
    caplog.clear()  # opened behind the position, `again` has told of it, too
    with caplog.at_level("INFO", logger="headrace.stream"):
        assert values(read_all(reader)) == [3]
    assert [getattr(record, "action", "") for record in caplog.records] == ["stream.file.rotated"]
    assert values(read_all(again)) == [2, 3]
    assert values(read_all(opened(path, position=chunk.position, follow=True))) == [2, 3]
    append(path, lines([4]))
    assert values(read_all(again)) == [4]


def test_a_csv_log_that_was_renamed_while_nobody_read_has_its_own_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"x,n\nq,1\n")
    (chunk,) = read_all(opened(path, "csv", follow=True))
    append(path, b"q,2\n")
    path.rename(tmp_path / "log.csv.1")
    reader = opened(path, "csv", position=chunk.position, follow=True)
    assert values(read_all(reader)) == [2]
    path.write_bytes(b"n,x\n3,q\n")
    assert values(read_all(reader)) == [3]


def test_a_log_that_is_cut_to_nothing_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(lines(range(5)))
    reader = opened(path, follow=True)
    read_all(reader)
    path.write_bytes(lines([9]))
    assert values(read_all(reader)) == [9]


def test_a_log_that_was_rotated_away_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(lines(range(5)))
    (chunk,) = read_all(opened(path, follow=True))
    path.write_bytes(lines([7, 8, 9]))
    with pytest.raises(SourceFailed, match="rotated away"):
        opened(path, position=chunk.position, follow=True)


def test_a_read_that_comes_late_to_its_look_looks_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([1]))
    reader = opened(tmp_path, follow=True)
    read_all(reader)
    (tmp_path / "b.jsonl").write_bytes(lines([2]))
    leave_alone(tmp_path / "a.jsonl")
    late_s = itertools.count(step=60)
    slow = SimpleNamespace(monotonic=lambda: next(late_s), time=time.time)
    monkeypatch.setattr("headrace.stream.sources.files.time", slow)
    chunk = reader.read(10, 1)
    assert chunk is not None and values([chunk]) == [2]


def test_a_closed_reader_ends_its_wait(tmp_path: Path) -> None:
    reader = opened(tmp_path, follow=True)
    reader.close()
    assert reader.read(10, 60) is None


def test_a_line_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINE_BYTES_MAX", 100)
    (tmp_path / "a.jsonl").write_bytes(lines([1]) + b"x" * 200)
    with pytest.raises(SourceFailed, match="line 2 is longer"):
        read_all(opened(tmp_path))


def test_positions_are_small_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(range(5)))
    (chunk,) = read_all(opened(tmp_path))
    position: dict[str, Any] = json.loads(chunk.position)
    assert (position["file"], position["at"]["offset"], position["at"]["line"]) == ("a.jsonl", len(lines(range(5))), 6)


def test_progress_can_be_asked_while_files_are_opened_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(range(10))))
    part = LineFile(FileSource("files", str(path), "jsonl", Schema.of("n bigint")), path, {})
    part.read(100, whole=True)
    part.close()
    assert part.done_bytes == path.stat().st_size, "by another thread, just when the file has been left"


def test_close_waits_for_a_read_in_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(range(10)))
    reader = opened(path)
    begun, go_on, order = threading.Event(), threading.Event(), []

    class Slow(LineFile):
        def read(self, rows_max: int, *, whole: bool) -> FileRows | None:
            begun.set()
            assert go_on.wait(PATIENCE_S)
            order.append("read")
            return super().read(rows_max, whole=whole)

        def close(self) -> None:
            order.append("closed")
            super().close()

    reader.read(1, 0)
    reader._close_part()
    reader._part = Slow(FileSource("files", str(path), "jsonl", Schema.of("n bigint")), path, {})
    threads = [threading.Thread(target=reader.read, args=(10, 0)), threading.Thread(target=reader.close)]
    threads[0].start()
    assert begun.wait(PATIENCE_S)
    threads[1].start()
    threads[1].join(0.02)
    go_on.set()
    for thread in threads:
        thread.join()
    assert order == ["read", "closed"]
