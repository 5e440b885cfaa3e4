"""Fixtures of the native tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from tests.native.served import ServedBroker


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedBroker]:
    broker = ServedBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def client(served: ServedBroker) -> Iterator[headrace.Client]:
    with headrace.connect(served.url, patience=0) as client:
        yield client
