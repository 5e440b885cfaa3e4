"""A PostgreSQL database of a broker: whether it can be reached, and what `checking` finds in it."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.broker_about import without_password
from headrace.doctor.lines import Line, problem


def look_at_store(name: str, url: str) -> Iterator[Line]:
    """As the doctor says it, whose other lines are of other things. `name`: of the database."""
    for line in look_at_database(url):
        yield Line(line.level, f"{name}, {line.subject}", line.fact, line.advice)


def look_at_database(url: str) -> Iterator[Line]:
    place = without_password(url)
    try:
        import psycopg  # noqa: PLC0415 - an extra

        from headrace.errors import StoreUnusable  # noqa: PLC0415 - with it
        from headrace.queue.store.postgres import checking, connecting  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        yield problem("connection", f"{place} needs the extra `postgres`", "pip install 'headrace[postgres]'")
        return
    try:
        with connecting.connect(url) as connection:
            found = checking.findings(connection)
    except (psycopg.Error, StoreUnusable) as error:
        yield problem(
            "connection", f"{place}: {' '.join(str(error).split())}", "see that it runs, and what the URL says"
        )
        return
    for one in found:
        yield Line(one.level, one.subject, one.fact, one.advice)
