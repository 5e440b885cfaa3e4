"""Streams: Nexmark from files against Spark and DuckDB, pipelines on a durable queue, latencies, the Spark data source."""
