"""Connections as applications have them: SQLAlchemy's and Django's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import django
import pytest
import sqlalchemy
from django.conf import settings
from django.db import ConnectionHandler, transaction
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from headrace import postgres
from headrace.errors import InvalidParameter
from tests.postgres.conftest import Shop

INSERT = sqlalchemy.text("INSERT INTO orders VALUES ('Emma')")


@pytest.fixture
def engine(shop: Shop) -> Iterator[sqlalchemy.Engine]:
    made = sqlalchemy.create_engine(shop.url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    made.dispose()


def test_sqlalchemy_connection_commits_a_message_alone(shop: Shop, engine: sqlalchemy.Engine) -> None:
    with engine.connect() as connection:
        postgres.send(connection, "packing", "a")
        connection.commit()
        postgres.send(connection, "packing", "b")
    assert shop.bodies("packing") == [b"a"]


def test_sqlalchemy_block_commits_all(shop: Shop, engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT)
        postgres.send(connection, "packing", "a")
    assert (shop.orders(), shop.bodies("packing")) == (["Emma"], [b"a"])


@pytest.mark.parametrize("make", [Session, lambda engine: scoped_session(sessionmaker(engine))])
def test_sqlalchemy_session_commits_or_rolls_back_all(shop: Shop, engine: sqlalchemy.Engine, make: Any) -> None:
    session = make(engine)
    postgres.send(session, "packing", "a")
    session.execute(INSERT)
    session.commit()
    postgres.send(session, "packing", "b")
    session.rollback()
    session.close()
    assert (shop.orders(), shop.bodies("packing")) == (["Emma"], [b"a"])


def test_sqlalchemy_raw_connection_commits_a_message(shop: Shop, engine: sqlalchemy.Engine) -> None:
    raw = engine.raw_connection()
    postgres.send(raw, "packing", "a")
    raw.commit()
    raw.close()
    assert shop.bodies("packing") == [b"a"]


def test_sqlalchemy_autocommit_is_refused(shop: Shop, engine: sqlalchemy.Engine) -> None:
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(InvalidParameter, match="begin a transaction"),
    ):
        postgres.send(connection, "packing", "a")
    assert shop.receive("packing") == []


def test_sqlalchemy_async_session_and_connection(shop: Shop) -> None:
    async def main() -> None:
        engine = create_async_engine(shop.url.replace("postgresql://", "postgresql+psycopg://"))
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(INSERT)
            await postgres.send_async(session, "packing", "a")
        async with engine.connect() as connection:
            await postgres.send_async(connection, "packing", "b")
            await connection.commit()
            await postgres.send_async(connection, "packing", "c")
        await engine.dispose()

    asyncio.run(main())
    assert (shop.orders(), shop.bodies("packing")) == (["Emma"], [b"a", b"b"])


@pytest.fixture
def connections(shop: Shop) -> Iterator[Any]:
    """Django's `connections`, of this database alone."""
    if not settings.configured:
        settings.configure()
        django.setup()
    known = conninfo_to_dict(shop.url)
    database = {
        "ENGINE": "django.db.backends.postgresql", "NAME": known["dbname"], "USER": known["user"],
        "HOST": known["host"], "PORT": known["port"],
    }  # fmt: skip
    handler = ConnectionHandler({"default": database})
    yield handler
    handler["default"].close()


def test_django_connection_outside_of_atomic_is_refused(shop: Shop, connections: Any) -> None:
    with pytest.raises(InvalidParameter, match=r"atomic\(\)"):
        postgres.send(connections["default"], "packing", "a")


def test_django_block_commits_or_rolls_back_all(shop: Shop, connections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "connections", connections)
    connection = connections["default"]
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES ('Emma')")
        postgres.send(connection, "packing", "a")
    with transaction.atomic():
        postgres.send(connection, "packing", "b")
        transaction.set_rollback(True)
    assert (shop.orders(), shop.bodies("packing")) == (["Emma"], [b"a"])
