"""The embedded engine: it runs a physical plan, batch by batch, over Arrow tables.

In: the rows of the sources and their watermarks. Out: the rows of the output, late and dead rows, and what changed in the
state, as key-value pairs for the step's commit. It does no I/O. SQL runs in DuckDB, or in pyarrow kernels where these mean
the same.

Open `engine.py` first, then `operator.py` and `state.py` (the contracts), then one operator, such as `aggregate.py`.
"""
