"""What holds for all tests: Hypothesis without its bounds of time, and how processes share the tests out.

Of the bounds: how long an example takes, or to make one, says more of the machine than of the code.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")

LONG: Final = (
    "tests/stream/spark/",
    "tests/benchmarks/",
    "tests/queue/test_planted_bugs.py",
    "tests/queue/postgres/",
    "tests/queue/test_store_suite.py",
    "tests/demo/test_demo.py",
    "tests/faults/",
    "tests/acceptance/web/",
    "tests/web/server/test_serve_faults.py",
    "tests/web/apps/test_asgi_live.py",
    "tests/test_tutorial.py",
    "tests/cli/",
    "tests/work/pool/",
    "tests/up/",
)
"""What takes longest begins first: else one process would work at it alone at the end."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc] # xdist ships no types
    """Gives a process all tests of a file, whose fixtures are then made once, and one process all of Spark's.

    xdist's own `loadgroup` does not group with pytest 9.2, and says nothing: three processes had a JVM each.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What runs in one process, of a test: its file, or all that needs a Spark session, which takes long to start."""
    file = nodeid.partition("::")[0]
    return "spark" if "spark" in file else file


def rank_of(nodeid: str) -> int:
    """When a test begins: a smaller number is earlier."""
    file = nodeid.partition("::")[0]
    return next((rank for rank, long in enumerate(LONG) if file.startswith(long)), len(LONG))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank_of(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    config.option.loadscopereorder = False  # the order is ours: the number of tests says nothing of how long they take
    return ByFile(config, log)
