"""Sources: readers of queues, topics, files and rows in memory, and of static tables.

In: a source of the plan and a position. Out: chunks of rows (Arrow), with the origin of each row, dead letters, claims and the
position behind them. `open.py` chooses the reader; open `base.py` first: the contracts.
"""
