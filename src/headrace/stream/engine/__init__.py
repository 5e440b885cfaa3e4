"""The embedded engine: operators over Arrow tables, their SQL by DuckDB, their state in parts.

`engine.py` runs a physical plan batch by batch. It does no I/O but DuckDB's spilling: sources, the store and sinks are
the runner's. The same input in the same batches gives the same output.
"""
