"""The PostgreSQL store keeps the promises of the public suite."""

from headrace.testing.suite.queues import TestDeletion, TestQueueDirectory
from headrace.testing.suite.receipts import TestChangingVisibility, TestDeleting
from headrace.testing.suite.standard import (
    TestCounts,
    TestDelays,
    TestPeeking,
    TestRetention,
    TestSendChecks,
    TestVisibility,
)

__all__ = [
    "TestChangingVisibility",
    "TestCounts",
    "TestDelays",
    "TestDeleting",
    "TestDeletion",
    "TestPeeking",
    "TestQueueDirectory",
    "TestRetention",
    "TestSendChecks",
    "TestVisibility",
]
