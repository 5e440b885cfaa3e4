"""`headrace store`: prepare a PostgreSQL database for brokers, and look whether it is fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.broker_about import without_password
from headrace.broker_settings import BrokerSettings, databases_of
from headrace.cli.options import output_option
from headrace.cli.output import chosen, print_rows
from headrace.cli.progress import stage_progress
from headrace.cli.queue import OrderedGroup
from headrace.errors import StoreUnusable
from headrace.settings import resolve

if TYPE_CHECKING:
    from headrace.doctor.lines import Line
    from headrace.queue.store.copying import Source, Target
    from headrace.queue.store.postgres.connecting import Connection

URL = click.argument("url", envvar="HEADRACE_BROKER__STORE")
_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}
OUTBOX_ROLE = click.option(
    "--outbox-role",
    help="A role of an application that sends and acknowledges in its own transactions (headrace.postgres).",
)


@click.group(cls=OrderedGroup)
def store() -> None:
    """Prepare a PostgreSQL database (15 or later) for brokers.

    \b
      headrace store init postgresql://owner@db.example.com/queues
      headrace broker --store postgresql://headrace@db.example.com/queues

    The URL is libpq's; without it HEADRACE_BROKER__STORE is read. Passwords belong into ~/.pgpass or PGPASSWORD, where no
    process list shows them.
    """  # noqa: D301 (click's mark for lines that are not to be filled)


@store.command()
@URL
@click.option("--role", help="A role that brokers connect as: it is given what they need, and no more.")
@OUTBOX_ROLE
def init(url: str, role: str | None, outbox_role: str | None) -> None:
    """Make the tables, in a schema of their own, `headrace`. Idempotent.

    Run it as the owner of the database. Brokers may run as another role, which needs to own nothing: --role grants it.
    """
    with _connected(url) as connection:
        from headrace.queue.store.postgres import schema  # noqa: PLC0415 - an extra

        before, after = schema.migrate(connection)
        _grant(connection, role, outbox_role)
    click.echo(f"the tables are there already (format {after})" if before == after else f"tables made (format {after})")


@store.command()
@URL
@click.option("--role", help="As in init: the role is given what new tables need.")
@OUTBOX_ROLE
def migrate(url: str, role: str | None, outbox_role: str | None) -> None:
    """Bring the tables to this headrace's format: whole, or not at all. Idempotent.

    Stop brokers of the version before first; they refuse tables that are newer than they are.
    """
    with _connected(url) as connection:
        from headrace.queue.store.postgres import schema  # noqa: PLC0415 - an extra

        if schema.version_of(connection) == 0:
            raise StoreUnusable(without_password(url), "there is no store in this database: run `headrace store init`")
        before, after = schema.migrate(connection)
        _grant(connection, role, outbox_role)
    click.echo(f"format {after} already" if before == after else f"format {before} → {after}")


@store.command()
@click.argument("urls", metavar="[URL]...", nargs=-1)
@output_option
def check(urls: tuple[str, ...], output: str | None) -> int:
    """Look whether brokers can run on these databases: version, format, rights, settings that lose or slow down, old
    snapshots, dead rows, transaction ids, connections, TLS. Exit codes: 0 they can, 1 they cannot.

    Without a URL: on all that the broker's settings name, `store` and `store_of` (HEADRACE_BROKER__STORE, headrace.toml).
    """
    from headrace.doctor.store import look_at_database  # noqa: PLC0415 - loaded when used

    found = {without_password(url): list(look_at_database(url)) for url in urls or _databases()}
    if chosen(output) != "table":
        rows = [{"database": place, **msgspec.to_builtins(line)} for place, lines in found.items() for line in lines]
        print_rows(rows, output, (), none="")
    else:
        for place, lines in found.items():
            _print(lines, f"{place}\n" if len(found) > 1 else "")
    return 1 if any(line.level == "problem" for lines in found.values() for line in lines) else 0


def _databases() -> list[str]:
    found = resolve(BrokerSettings, "broker", flags={}, environ=os.environ, folder=Path.cwd()).settings
    urls = [url for _, url in databases_of(found)]
    if not urls:
        raise click.UsageError(
            "Name a database, postgresql://USER@HOST/DATABASE, here or as `store` of the broker's settings."
        )
    return urls


def _print(lines: list[Line], heading: str) -> None:
    click.echo(heading, nl=False)
    for line in lines:
        advice = f"\n   → {line.advice}" if line.advice else ""
        click.echo(f"{_MARKS[line.level]}  {line.subject}: {line.fact}{advice}")


@store.command("copy")
@click.argument("source")
@click.argument("target")
def copy_(source: str, target: str) -> None:
    """Copy a whole store, SOURCE, into a new one, TARGET: a data folder into PostgreSQL, or back.

    \b
      headrace store init postgresql://owner@db.example.com/queues --role headrace
      headrace store copy ./data postgresql://owner@db.example.com/queues

    Each is a folder or a postgresql:// URL; no broker may run on either. Killed at any moment, the same command goes on. Both
    are compared at the end; before that no broker opens TARGET. Receipts from before are not valid after: what is leased is
    received again when its lease ends.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    from headrace.queue.store.copying import copy  # noqa: PLC0415 - loaded when used

    database = next((place for place in (source, target) if is_url(place)), None)
    with (
        _errors(database) if database is not None else nullcontext(),
        closing(_source(source)) as read,
        closing(_target(target)) as made,
        stage_progress() as progress,
    ):
        copied = copy(read, made, progress=progress)
    click.echo(
        f"{copied.queues} queues, {copied.topics} topics, {copied.messages:,} messages: in {made.place} as in {read.place}"
    )


def _grant(connection: Connection, role: str | None, outbox_role: str | None) -> None:
    from headrace.queue.store.postgres import schema  # noqa: PLC0415 - an extra

    if role is not None:
        schema.grant(connection, role)
    if outbox_role is not None:
        schema.grant_outbox(connection, outbox_role)


def _source(place: str) -> Source:
    if is_url(place):
        from headrace.queue.store.postgres.copying import PostgresSource  # noqa: PLC0415 - an extra

        return PostgresSource(place)
    from headrace.queue.store.sqlite_copy import SqliteSource  # noqa: PLC0415 - loaded when used

    return SqliteSource(Path(place))


def _target(place: str) -> Target:
    if is_url(place):
        from headrace.queue.store.postgres.copy_target import PostgresTarget  # noqa: PLC0415 - an extra

        return PostgresTarget(place)
    from headrace.queue.store.sqlite_copy import SqliteTarget  # noqa: PLC0415 - loaded when used

    return SqliteTarget(Path(place))


def is_url(place: str) -> bool:
    return place.startswith(("postgresql://", "postgres://"))


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """A connection; errors of the database in one line."""
    if not is_url(url):
        raise click.UsageError(f"{url}: a database is named as postgresql://USER@HOST/DATABASE")
    with _errors(url):
        from headrace.queue.store.postgres.connecting import connect  # noqa: PLC0415 - an extra

        with connect(url) as connection:
            yield connection


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Errors of the database at a URL in one line."""
    try:
        import psycopg  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise StoreUnusable(without_password(url), "install the extra: pip install 'headrace[postgres]'") from None
    try:
        yield
    except psycopg.Error as error:
        raise StoreUnusable(without_password(url), " ".join(str(error).split())) from None
