"""Every store behaves as the independent model does, whatever is asked of it in whatever order."""

import os
from collections.abc import Callable
from unittest import TestCase

from hypothesis import HealthCheck, settings

from headrace.testing.driver import StoreKind
from headrace.testing.machine import StoreMachine, machine_for
from headrace.testing.stores import STORES
from headrace.testing.topic_machine import topic_machine_for

# Nightly runs set more; the default keeps the whole within half a minute a store.
EXAMPLES = int(os.environ.get("HEADRACE_MACHINE_EXAMPLES", "60"))


def machine_case(
    name: str, make: Callable[[StoreKind], type[StoreMachine]] = machine_for, examples: int = EXAMPLES
) -> type[TestCase]:
    (kind,) = [kind for kind in STORES if kind.name == name]
    case = make(kind).TestCase
    case.settings = settings(
        max_examples=examples,
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


class TestMemoryTopics(machine_case("memory", topic_machine_for, EXAMPLES // 2)):  # type: ignore[misc]  # see above
    pass


class TestSqliteTopics(machine_case("sqlite", topic_machine_for, EXAMPLES // 2)):  # type: ignore[misc]  # see above
    pass
