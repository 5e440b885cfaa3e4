"""Pipelines on Apache Spark: the same plan as Structured Streaming, and headrace as a data source of Spark.

A newcomer opens `run.py` for pipelines, `source.py` and `sink.py` for the data source; why each row comes out once stands in
`claims.py` and `stages.py`. Importing this package raises ExtraMissing without PySpark.
"""

from __future__ import annotations

from importlib.util import find_spec

from headrace.stream.errors import ExtraMissing

if find_spec("pyspark") is None:
    raise ExtraMissing("pyspark", "spark")
