"""The statements of a transaction: sent together, answered together.

psycopg's own pipeline looks after each statement what the server takes and gives: two system calls, at each of which the thread
gives the interpreter away, and waits to have it back. Here nothing leaves before somebody wants an answer: then all that has
gathered leaves in one piece, and all its answers are waited for at once. A transaction costs a node a third of what it did.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import fetch_many, send
from psycopg.pq import ConnStatus, ExecStatus, Format

_PLACE: Final = re.compile(r"%(?:%|s|\((\w+)\)s)")
_FINE: Final = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC)

Kind: TypeAlias = tuple[str, tuple[int, ...]]
"""What a prepared statement is known by: its text, the types of its parameters."""


class Reply:
    """What a statement gives, at most once."""

    __slots__ = ("_statements", "result")

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self.result: psycopg.pq.abc.PGresult | None = None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Its rows. Waits for the answers of all that was sent; raises the first error among them."""
        return self._statements.rows_of(self)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Its first row."""
        return next(iter(self.fetchall()), None)


class Statements:
    """Of one connection; each is prepared when it is first sent. Not thread-safe."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._transformer = Transformer(connection)
        self._names: dict[Kind, bytes] = {}  # of what is prepared
        self._made = 0
        self._sent: deque[Reply | Kind | None] = deque()  # what answers are due of; None: an end

    @contextmanager
    def together(self) -> Iterator[None]:
        """Statements may be sent until the end of this, which waits for the answers of all. Raises the first error."""
        self._pgconn.enter_pipeline_mode()
        try:
            with self._to_the_end():
                yield
        finally:
            if self._pgconn.status != ConnStatus.BAD:
                self._pgconn.exit_pipeline_mode()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within `together`: an error of these is theirs only."""
        self._end()
        with self._to_the_end():
            yield

    def execute(self, sql: LiteralString, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Reply:
        """Send a statement, with %s or %(name)s for its parameters."""
        text, names = _numbered(sql)
        values = [parameters[name] for name in names] if isinstance(parameters, Mapping) else parameters
        dumped = self._transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        kind = (sql, self._transformer.types or ())
        formats = self._transformer.formats
        self._pgconn.send_query_prepared(self._name(kind, text), dumped, formats, Format.BINARY)
        reply = Reply(self)
        self._sent.append(reply)
        return reply

    def rows_of(self, reply: Reply) -> list[tuple[Any, ...]]:
        if reply.result is None:
            self._pgconn.send_flush_request()
            self._receive()
        assert reply.result is not None
        if reply.result.status not in _FINE:  # an error that another one was told of, or a statement behind it
            raise error_from_result(reply.result)
        self._transformer.set_pgresult(reply.result)
        return self._transformer.load_rows(0, reply.result.ntuples, tuple)

    def _name(self, kind: Kind, text: bytes) -> bytes:
        name = self._names.get(kind)
        if name is None:
            self._made += 1
            name = self._names[kind] = b"h%d" % self._made
            self._pgconn.send_prepare(name, text, kind[1])
            self._sent.append(kind)
        return name

    # --- answers ---

    @contextmanager
    def _to_the_end(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._clear()
            raise
        self._end()

    def _end(self) -> None:
        self._pgconn.pipeline_sync()
        self._sent.append(None)
        self._receive()

    def _clear(self) -> None:
        """Something went wrong, and is being told: what the server answers to the rest is of no use."""
        try:
            if self._pgconn.status != ConnStatus.BAD:
                self._end()
        except psycopg.Error:
            if self._sent:
                self._connection.close()  # it is past answering

    def _receive(self) -> None:
        error = self._connection.wait(self._take())
        if error is not None:
            raise error

    def _take(self) -> Generator[Any, Any, psycopg.Error | None]:
        """Take the answers of all that was sent. Returns the first error."""
        error: psycopg.Error | None = None
        yield from send(self._pgconn)
        while self._sent:
            results = yield from fetch_many(self._pgconn)
            one, result = self._sent.popleft(), results[-1]
            if isinstance(one, Reply):
                one.result = result
            if result.status not in _FINE:
                error = error or error_from_result(result)
                if isinstance(one, tuple):
                    del self._names[one]
        return error


@functools.cache
def _numbered(sql: str) -> tuple[bytes, list[str]]:
    """A statement with its places numbered, and whose they are, if they have names."""
    names: list[str] = []
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        if found[0] == "%%":
            return "%"
        if found[1] is None:
            count += 1
            return f"${count}"
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    return _PLACE.sub(place, sql).encode(), names
