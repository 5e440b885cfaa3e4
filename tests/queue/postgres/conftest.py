"""A PostgreSQL of this test process; without its programs the tests are skipped, and say so."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")

from headrace.clock import ManualClock
from headrace.testing.driver import StoreKind
from headrace.testing.postgres import find_programs
from headrace.testing.stores import POSTGRES


@pytest.fixture(scope="session")
def kind() -> StoreKind:
    if find_programs() is None and not os.environ.get("CI"):
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    return POSTGRES


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
