"""Nexmark: an auction house's events, and the queries that stream processors are compared by.

The benchmark is that of github.com/nexmark/nexmark. `generator` makes the events, `queries` says the queries as headrace's
pipelines, `references` says them once more as plain SQL for DuckDB over all rows, for comparison.
"""
