"""Pipelines on Apache Spark: the same plan as Structured Streaming, and headrace as a data source of Spark."""

from importlib.util import find_spec

from headrace.stream.errors import ExtraMissing

if find_spec("pyspark") is None:
    raise ExtraMissing("pyspark", "spark")
