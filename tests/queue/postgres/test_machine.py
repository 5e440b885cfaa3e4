"""Queues on PostgreSQL behave as the independent model does: on one node, and on three that take turns and die."""

from __future__ import annotations

import pytest

from headrace.testing.machine import machine_for
from headrace.testing.postgres import find_programs
from headrace.testing.stores import POSTGRES
from tests.queue.postgres.several import EXAMPLES, SEVERAL, case_of

pytestmark = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later on this machine")


class TestOneNode(case_of(machine_for(POSTGRES), EXAMPLES // 5)):  # type: ignore[misc]  # hypothesis makes the class at run time
    pass


class TestThreeNodes(case_of(machine_for(SEVERAL), EXAMPLES // 8)):  # type: ignore[misc]  # see above
    pass
