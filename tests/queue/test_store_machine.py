"""Every store behaves as the independent model does, whatever is asked of it in whatever order."""

import os
from unittest import TestCase

from hypothesis import HealthCheck, settings

from headrace.testing.machine import machine_for
from headrace.testing.stores import STORES

# Nightly runs set more; the default keeps the whole within half a minute a store.
EXAMPLES = int(os.environ.get("HEADRACE_MACHINE_EXAMPLES", "60"))


def machine_case(name: str) -> type[TestCase]:
    (kind,) = [kind for kind in STORES if kind.name == name]
    case = machine_for(kind).TestCase
    case.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=40,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    return case


class TestMemoryStore(machine_case("memory")):  # type: ignore[misc]  # hypothesis makes the class at run time
    pass


class TestSqliteStore(machine_case("sqlite")):  # type: ignore[misc]  # see above
    pass
