"""One broker and one console for all tests of a file: each test has queues of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import headrace
from headrace.native.client import Client
from tests.broker_process import BrokerProcess, broker
from tests.console.holding import leave
from tests.console.serving import Browser, Served, serving


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with broker(tmp_path_factory.mktemp("broker") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def client(node: BrokerProcess) -> Iterator[Client]:
    with headrace.connect(node.url) as one:
        yield one


@pytest.fixture(scope="module")
def served(node: BrokerProcess) -> Iterator[Served]:
    with serving(broker=node.url) as one:
        yield one


@pytest.fixture(autouse=True)
def nobody_stays() -> Iterator[None]:
    yield
    leave()


@pytest.fixture
def browser(served: Served) -> Browser:
    return served.browser()
