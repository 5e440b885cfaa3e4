"""SQL databases beside the store: SQLite (of the standard library) and PostgreSQL (psycopg, an extra), as little of them
as tables that are read and sinks need.

URLs: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`, `postgresql://user@host/name`; where a table is read,
with `?table=NAME` behind.
"""

from __future__ import annotations

import contextlib
import importlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import pyarrow as pa

from headrace.stream.errors import ExtraMissing, UnsupportedQuery

Row: TypeAlias = tuple[Any, ...]

_SQLITE: Final = "sqlite:///"
_BUSY_S: Final = 30.0  # another writer of the file may take so long


class DatabaseFailed(Exception):
    """An error of the database."""


class Database(ABC):
    """A connection; one thread at a time. Every method raises DatabaseFailed."""

    mark: ClassVar[str]
    """Where a parameter stands in SQL."""
    types: ClassVar[dict[str, str]]
    """Spark's name of a type → the column's type; others are `other`."""
    other: ClassVar[str]

    @abstractmethod
    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of one statement; none if it gives none."""

    @abstractmethod
    def run_many(self, sql: str, rows: Iterable[Row]) -> None: ...

    @abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """All in the block, or nothing if it raises."""

    @abstractmethod
    def close(self) -> None: ...

    def quoted(self, name: str) -> str:
        """An identifier; of `schema.table` each part for itself is quoted by `quoted_table`."""
        if "\0" in name or not name:
            raise UnsupportedQuery(f"name {name!r}", "no table or column can be called so")
        return '"' + name.replace('"', '""') + '"'

    def quoted_table(self, name: str) -> str:
        return ".".join(map(self.quoted, name.split(".")))

    def type_of(self, kind: pa.DataType, name: str) -> str:
        """The column type for a type of a stream, whose name is `name`."""
        del kind
        return self.types.get(name, self.other)


class Sqlite(Database):
    """A file."""

    mark = "?"
    types: ClassVar = {
        **dict.fromkeys(("boolean", "tinyint", "smallint", "int", "bigint"), "INTEGER"),
        **dict.fromkeys(("float", "double"), "REAL"),
        "binary": "BLOB",
    }
    other = "TEXT"

    def __init__(self, path: str) -> None:
        with _told(sqlite3.Error):
            self._connection = sqlite3.connect(path, _BUSY_S, isolation_level=None, check_same_thread=False)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with _told(sqlite3.Error):
            return self._connection.execute(sql, parameters).fetchall()

    def run_many(self, sql: str, rows: Iterable[Row]) -> None:
        with _told(sqlite3.Error):
            self._connection.executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self.run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK")
            raise
        self.run("COMMIT")

    def close(self) -> None:
        self._connection.close()


class Postgres(Database):
    """A server's database."""

    mark = "%s"
    types: ClassVar = {
        "boolean": "boolean", "tinyint": "smallint", "smallint": "smallint", "int": "integer", "bigint": "bigint",
        "float": "real", "double": "double precision", "string": "text", "binary": "bytea", "date": "date",
        "timestamp": "timestamptz",
    }  # fmt: skip
    other = "jsonb"

    def __init__(self, url: str) -> None:
        """Raises ExtraMissing."""
        try:
            psycopg = importlib.import_module("psycopg")
        except ImportError:
            raise ExtraMissing("psycopg", "postgres") from None
        self._error: type[Exception] = psycopg.Error
        with _told(self._error):
            self._connection = psycopg.connect(url, autocommit=True, options="-c TimeZone=UTC")

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with _told(self._error):
            cursor = self._connection.execute(sql, parameters)
            rows: list[Row] = cursor.fetchall() if cursor.description is not None else []
            return rows

    def run_many(self, sql: str, rows: Iterable[Row]) -> None:
        with _told(self._error), self._connection.cursor() as cursor:
            cursor.executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with _told(self._error), self._connection.transaction():
            yield

    def close(self) -> None:
        self._connection.close()

    def quoted(self, name: str) -> str:
        return super().quoted(name).replace("%", "%%")  # psycopg reads % as the beginning of a parameter

    def type_of(self, kind: pa.DataType, name: str) -> str:
        if pa.types.is_decimal(kind):
            return f"numeric({kind.precision},{kind.scale})"
        return super().type_of(kind, name)


def open_database(url: str) -> Database:
    """The database at a URL.

    Raises:
        UnsupportedQuery: neither kind of URL.
        ExtraMissing: psycopg is not installed.
        DatabaseFailed: it cannot be opened or reached.
    """
    if url.startswith(_SQLITE):
        return Sqlite(unquote(url.removeprefix(_SQLITE)))
    if url.startswith(("postgresql://", "postgres://")):
        return Postgres(url)
    raise UnsupportedQuery(f"table at {url!r}", "no such kind of database", "sqlite:///PATH or postgresql://…")


def split_table(url: str) -> tuple[str, str]:
    """(the URL without it, the value of `?table=`). Raises UnsupportedQuery: there is none."""
    parts = urlsplit(url)
    values = dict(parse_qsl(parts.query))
    table = values.pop("table", "")
    if not table:
        raise UnsupportedQuery(f"table at {url!r}", "it does not say which", "?table=NAME at its end")
    bare = urlunsplit(parts._replace(query=urlencode(values)))
    return _SQLITE + unquote(parts.path.removeprefix("/")) if parts.scheme == "sqlite" else bare, table


@contextlib.contextmanager
def _told(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (kind, OverflowError) as error:
        raise DatabaseFailed(str(error).strip()) from None
