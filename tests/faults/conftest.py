"""Fixtures of the fault tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.testing.driver import fast_folder


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder for simulated disks: in memory, where thousands of stores open in a minute."""
    with fast_folder("headrace-faults-") as folder:
        yield Path(folder)
