"""The Spark session of a pipeline: what must be set so that both engines agree, and executors find headrace."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from pyspark.sql import SparkSession

from headrace import _version
from headrace.stream.spark.source import HeadraceSource

_SOURCES: Final = str(Path(_version.__file__).parent.parent)

CONFIGURATION: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "false",  # a timestamp without zone is UTC, and one type in pipelines
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
}
"""What a session must have that runs pipelines. All of it can be set while the session runs."""


def session(name: str, master: str | None = None) -> SparkSession:
    """A session for a pipeline: that which runs already (spark-submit, a notebook), or a new one at `master`."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(name)
    active = SparkSession.getActiveSession()
    if active is None:
        for key, value in _at_start().items():
            builder = builder.config(key, value)
        if master is not None:
            builder = builder.master(master)
    return prepare(builder.getOrCreate())


def prepare(spark: SparkSession) -> SparkSession:
    """Set what pipelines need, and register the data source. Returns the session."""
    for key, value in CONFIGURATION.items():
        spark.conf.set(key, value)
    spark.dataSource.register(HeadraceSource)
    return spark


def _at_start() -> dict[str, str]:
    """What only a new session takes."""
    path = os.environ.get("PYTHONPATH")
    return {
        "spark.ui.showConsoleProgress": "false",
        "spark.executorEnv.PYSPARK_PYTHON": sys.executable,  # else executors take the first python3 of their PATH
        "spark.executorEnv.PYTHONPATH": os.pathsep.join([_SOURCES, *([path] if path else [])]),
        "spark.executorEnv.TZ": "UTC",
    }
