"""The table of operations is whole: none is left without a planner, and no kind names what is not there."""

from __future__ import annotations

from typing import get_args

from headrace.queue import operations as ops
from headrace.queue.store.local.planners import FREES, LEASES, PLANNERS, READS


def test_every_operation_has_a_planner() -> None:
    assert PLANNERS.keys() == set(get_args(ops.AnyOperation)) - {ops.Hold, ops.ListHolders}  # the broker's own


def test_kinds_are_operations_and_exclude_each_other() -> None:
    assert PLANNERS.keys() >= READS | FREES and LEASES <= READS
    assert not READS & FREES
