"""Queues on PostgreSQL behave as the independent model does: on one node, and on three that take turns and die."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from headrace.testing.driver import StoreKind
from headrace.testing.machine import machine_for
from headrace.testing.postgres import find_programs
from headrace.testing.stores import POSTGRES
from tests.queue.postgres.several import SEVERAL

pytestmark = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later on this machine")

# A step is some ten round trips to a database, to each node. Nightly runs set more.
EXAMPLES = int(os.environ.get("HEADRACE_MACHINE_EXAMPLES", "60"))


def case_of(kind: StoreKind, examples: int) -> type:
    case = machine_for(kind).TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    return case


class TestOneNode(case_of(POSTGRES, EXAMPLES // 5)):  # type: ignore[misc]  # hypothesis makes the class at run time
    pass


class TestThreeNodes(case_of(SEVERAL, EXAMPLES // 8)):  # type: ignore[misc]  # see above
    pass
