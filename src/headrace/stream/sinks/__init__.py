"""Sinks: queues and topics, Parquet folders, SQL tables, HTTP, the terminal, Python callbacks.

In: the rows of a batch and its number. Out: messages for the pipeline's own commit (`TransactionalSink`), or a delivery after the commit
that may be repeated (`Outbox`). `open.py` chooses the sink; open `base.py` first: the contracts.
"""
