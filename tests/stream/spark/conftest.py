"""Fixtures: a broker in this process, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from tests.native.served import ServedBroker


@pytest.fixture
def client(tmp_path: Path) -> Iterator[headrace.Client]:
    broker = ServedBroker(tmp_path)
    with headrace.connect(broker.url, patience=0) as client:
        yield client
    broker.stop()
