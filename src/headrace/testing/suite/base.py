"""What the suite's parts share: fixtures and a few words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from headrace.queue import limits
from headrace.testing.driver import StoreDriver, StoreKind

SECOND: Final = limits.SECOND_MS
MINUTE: Final = limits.MINUTE_MS
HOUR: Final = limits.HOUR_MS
DAY: Final = limits.DAY_MS


class SuitePart:
    """Tests of one subject. A subclass of `StoreSuite` says which store by the fixture `kind`."""

    @pytest.fixture
    def driver(self, kind: StoreKind, tmp_path: Path) -> Iterator[StoreDriver]:
        """A fresh store without cool-downs."""
        driver = StoreDriver(kind, tmp_path)
        yield driver
        driver.close()

    @pytest.fixture
    def durable(self, driver: StoreDriver) -> StoreDriver:
        """A fresh store, if this kind survives a restart."""
        if not driver.kind.durable:
            pytest.skip(f"the {driver.kind.name} store does not promise to survive a restart")
        return driver

    @pytest.fixture
    def crashable(self, durable: StoreDriver) -> StoreDriver:
        """A fresh store, if this kind can be crashed by copying its files."""
        if not durable.kind.in_files:
            pytest.skip(f"the {durable.kind.name} store does not live in files")
        return durable
