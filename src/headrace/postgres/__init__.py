"""Sending and acknowledging in a transaction of your own PostgreSQL database, in which the queues are, too.

    import psycopg
    from headrace import postgres

    with psycopg.connect("postgresql://shop@db.example.com/shop") as connection:
        connection.execute("INSERT INTO orders (book) VALUES (%s)", ["Emma"])
        postgres.send(connection, "packing", {"book": "Emma"})

The message exists if and only if the transaction commits. Brokers run on the same database (`headrace broker --store`); none is
asked here. A connection is one of psycopg 3, of SQLAlchemy (also a session; driver `postgresql+psycopg`) or of Django, in a
transaction. Needs the extra `postgres`.
"""

try:
    from headrace.postgres.aio import acknowledge_async as acknowledge_async
    from headrace.postgres.aio import send_async as send_async
    from headrace.postgres.aio import send_many_async as send_many_async
    from headrace.postgres.outbox import acknowledge as acknowledge
    from headrace.postgres.outbox import send as send
    from headrace.postgres.outbox import send_many as send_many
except ModuleNotFoundError as error:
    if error.name == "psycopg":
        raise ModuleNotFoundError(
            "psycopg is not installed; pip install 'headrace[postgres]'", name=error.name
        ) from None
    raise

__all__ = ["acknowledge", "acknowledge_async", "send", "send_async", "send_many", "send_many_async"]
