"""Every store keeps every promise of the public suite."""

import pytest

from headrace.testing.driver import StoreKind
from headrace.testing.store_suite import *  # noqa: F403 - the suite's classes are this module's tests
from headrace.testing.stores import STORES


@pytest.fixture(params=STORES, ids=[kind.name for kind in STORES])
def kind(request: pytest.FixtureRequest) -> StoreKind:
    assert isinstance(request.param, StoreKind)
    return request.param
