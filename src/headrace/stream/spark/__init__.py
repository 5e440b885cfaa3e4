"""Pipelines on Apache Spark: the same plan as Structured Streaming, and headrace as a data source of Spark."""
