"""A store that decides in memory and keeps on a disk of its own: SQLite, or memory for tests.

`store.py` runs requests and commits; `state.py` and `head.py` are what it remembers; the other files plan operations,
by subject: they ask the rules, change the state, and note rows for the commit.
"""
