"""The answers in `semantics.txt` are Spark's: a live one is asked again, in one query."""

import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stream.sql.semantics import ERROR, cases, sparks

pyspark = pytest.importorskip("pyspark.sql")

if shutil.which("java") is None and not os.environ.get("CI"):
    pytest.skip("no Java", allow_module_level=True)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"  # PySpark makes datetimes in the process's zone
    time.tzset()
    builder = pyspark.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    yield builder.config("spark.sql.shuffle.partitions", "1").getOrCreate()
    if zone is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = zone
    time.tzset()


def test_the_answers_are_sparks(session: Any) -> None:
    expected = {expression: answer for _, expression, answer in cases() if answer != ERROR}
    assert sparks(session, expected) == expected


def test_spark_raises_for_a_cast_that_cannot_be(session: Any) -> None:
    assert sparks(session, ["cast('x' AS int)"]) == {"cast('x' AS int)": ERROR}
