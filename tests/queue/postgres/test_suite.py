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
from headrace.testing.suite.transactions import TestExpectations, TestFences, TestState
from headrace.testing.suite.transactions import TestTransactions as SuiteOfTransactions


class TestTransactions(SuiteOfTransactions):
    test_duplicate_in_a_transaction_is_told_and_not_stored = None  # type: ignore[assignment]  # no deduplication yet


__all__ = [
    "TestChangingVisibility",
    "TestCounts",
    "TestDelays",
    "TestDeleting",
    "TestDeletion",
    "TestExpectations",
    "TestFences",
    "TestPeeking",
    "TestQueueDirectory",
    "TestRetention",
    "TestSendChecks",
    "TestState",
    "TestTransactions",
    "TestVisibility",
]
