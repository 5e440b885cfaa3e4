"""The public test kit: a store driven by hand, the conformance suite, an independent model, a hand-moved clock.

StoreDriver          runs operations against a store; moves its clock; restarts and crashes it
StoreKind, STORES    which stores there are
store_suite          what every store promises, one test a promise (needs pytest)
machine, model       random operations compared with a list model (needs hypothesis)
"""

from headrace.clock import ManualClock
from headrace.testing.driver import StoreDriver, StoreKind, bodies, entry
from headrace.testing.stores import STORES

__all__ = ["STORES", "ManualClock", "StoreDriver", "StoreKind", "bodies", "entry"]
