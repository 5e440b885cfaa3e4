"""Fixtures: a broker in this process, a client of it, and the one Spark session of all tests (it takes long to start)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import headrace
from headrace.stream.spark.run import session
from tests.native.served import ServedBroker
from tests.stream.spark.lean import FEW_FILES, LEAN


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedBroker]:
    broker = ServedBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def client(served: ServedBroker) -> Iterator[headrace.Client]:
    with headrace.connect(served.url, patience=0) as client:
        yield client


@pytest.fixture(scope="session")
def java() -> None:
    if shutil.which("java") is None and not os.environ.get("CI"):
        pytest.skip("no Java here: apt-get install default-jre-headless")


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fails in the second process that wants a session: tests/conftest.py gives one process all of Spark's tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        (tmp_path_factory.getbasetemp().parent / "spark").touch(exist_ok=False)


@pytest.fixture(scope="session")
def spark(java: None, alone: None) -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", f"{FEW_FILES} {LEAN}")
        found = session("tests", "local[2]")
    found.sparkContext.setLogLevel("OFF")  # failures that tests cause on purpose fill pages
    yield found
    found.stop()
