"""Every store keeps every promise of the public suite."""

import os

import pytest

from headrace.testing.driver import StoreKind
from headrace.testing.postgres import find_programs
from headrace.testing.store_suite import *  # noqa: F403 - the suite's classes are this module's tests
from headrace.testing.stores import POSTGRES, STORES


@pytest.fixture(params=STORES, ids=[kind.name for kind in STORES])
def kind(request: pytest.FixtureRequest) -> StoreKind:
    assert isinstance(request.param, StoreKind)
    if request.param is POSTGRES and not os.environ.get("CI") and find_programs() is None:
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    return request.param
