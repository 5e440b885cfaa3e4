from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.testing import StoreDriver
from headrace.testing.stores import MEMORY, SQLITE
from tests.queue.local.hands import Hands


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    """A memory store whose commits the test refuses or holds back."""
    hands = Hands(tmp_path)
    yield hands
    hands.let_go()
    hands.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[StoreDriver]:
    driver = StoreDriver(MEMORY, tmp_path)
    yield driver
    driver.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[StoreDriver]:
    driver = StoreDriver(SQLITE, tmp_path)
    yield driver
    driver.close()
