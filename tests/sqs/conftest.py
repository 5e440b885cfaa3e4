"""Fixtures of the SQS tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sqs.harness import Boto3, Harness
from tests.sqs.query_model import write_query_model


@pytest.fixture
def harness() -> Iterator[Harness]:
    """The service, without cool-downs."""
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture(scope="session")
def query_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of service models in which SQS is spoken in the Query protocol."""
    return write_query_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session", params=["json", "query"])
def boto3_clients(request: pytest.FixtureRequest, query_models: Path) -> Boto3:
    return Boto3(models=query_models if request.param == "query" else None)


@pytest.fixture
def sqs(boto3_clients: Boto3, harness: Harness) -> Any:
    """A boto3 client of `harness`, in each protocol."""
    boto3_clients.harness = harness
    return boto3_clients.client
