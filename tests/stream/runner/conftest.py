from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from headrace.testing.driver import fast_folder


@pytest.fixture
def client() -> Iterator[headrace.Client]:
    """A broker of its own in this process, on a folder in memory."""
    with fast_folder("headrace-stream-") as folder, headrace.connect(Path(folder)) as client:
        yield client
