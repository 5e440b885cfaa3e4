"""A broker in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace


@pytest.fixture
def client(tmp_path: Path) -> Iterator[headrace.Client]:
    with headrace.connect(tmp_path / "broker", cooldowns=False) as client:
        yield client
