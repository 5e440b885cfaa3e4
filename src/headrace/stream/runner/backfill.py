"""Old rows first: files are read to their end, then the source itself, as one source."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from headrace.stream import plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.sources.base import Chunk, Progress, Reader
from headrace.stream.sources.listing import FORMATS, format_of

TOPIC: Final = "topic"
"""What `backfill` says to have a topic's log read from its beginning, instead of files."""


class BackfillPosition(msgspec.Struct, frozen=True):
    """Where the reader is: in the files, or (`live`) in the source."""

    live: bool
    position: bytes


class Backfill(Reader):
    """See Reader. `files` to its end, then `source`."""

    def __init__(self, files: Reader, source: Reader) -> None:
        self._files = files
        self._source = source
        self._live = False

    def open(self, position: bytes | None) -> None:
        at = msgspec.json.decode(position, type=BackfillPosition) if position else BackfillPosition(False, b"")
        self._live = at.live
        if not self._live:
            self._files.open(at.position or None)
        self._source.open(at.position or None if at.live else None)

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        if not self._live:
            chunk = self._files.read(rows_max, wait_s)
            if chunk is not None:
                return self._placed(chunk)
            self._live = self._files.finished
            if not self._live:
                return None
        chunk = self._source.read(rows_max, wait_s)
        return None if chunk is None else self._placed(chunk)

    @property
    def behind(self) -> bool:
        return self._source.behind

    @property
    def finished(self) -> bool:
        return self._live and self._source.finished

    def progress(self) -> Progress:
        return (self._source if self._live else self._files).progress()

    def close(self) -> None:
        self._files.close()
        self._source.close()

    def _placed(self, chunk: Chunk) -> Chunk:
        chunk.position = msgspec.json.encode(BackfillPosition(self._live, chunk.position))
        return chunk


def files_of(source: plan.Source, path: str) -> plan.FileSource:
    """The files as a source with the same name, columns and event time.

    Raises UnsupportedQuery: their names do not tell the format.
    """
    metadata = getattr(source, "metadata", ())
    if metadata:
        raise UnsupportedQuery(
            f"backfill {path!r}", f"source {source.name!r} has {', '.join(metadata)}, which files have not"
        )
    form = format_of(Path(path))
    if form is None:
        raise UnsupportedQuery(f"backfill {path!r}", f"its format cannot be told by names; known: {', '.join(FORMATS)}")
    return plan.FileSource(source.name, path, form, source.schema, source.time)


def source_to_backfill(sources: tuple[plan.Source, ...]) -> plan.Source:
    """The source that `backfill` means: the only one that is a queue or topic.

    Raises UnsupportedQuery: there is none, or there are several.
    """
    live = [source for source in sources if isinstance(source, plan.QueueSource | plan.TopicSource)]
    if len(live) != 1:
        names = ", ".join(source.name for source in live) or "none"
        raise UnsupportedQuery("backfill", f"it needs exactly one source that is a queue or topic; there are: {names}")
    return live[0]
