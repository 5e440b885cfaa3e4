"""A broker process for real clients, and boto3 clients of it in both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.broker_process import BrokerProcess, broker
from tests.sqs.query_model import write_query_model

ONE_TRY = Config(retries={"total_max_attempts": 1}, read_timeout=30)


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker without cool-downs. Its tests share it, so each takes queues of its own."""
    with broker(tmp_path_factory.mktemp("broker") / "data", "--cooldowns", "off") as running:
        yield running


@pytest.fixture(scope="session")
def endpoint(shared_broker: BrokerProcess) -> str:
    return shared_broker.url


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker for one test, as it comes: with AWS's cool-downs."""
    with broker(tmp_path / "data") as running:
        yield running


def client_of(url: str, *, models: Path | None = None, **options: Any) -> Any:
    """A boto3 client of the broker at `url`; `models`: service models to prefer to botocore's."""
    session = boto3.session.Session()
    if models is not None:
        session._loader.search_paths.insert(0, str(models))
    settings = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return session.client("sqs", endpoint_url=url, **{**settings, "config": ONE_TRY, **options})


@pytest.fixture(scope="session", params=["json", "query"])
def sqs(request: pytest.FixtureRequest, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    models = write_query_model(tmp_path_factory.mktemp("models")) if request.param == "query" else None
    client = client_of(endpoint, models=models)
    yield client
    client.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A queue's name that no other test has."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:70]
