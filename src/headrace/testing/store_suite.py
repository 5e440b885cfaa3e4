"""The public conformance suite: what every store promises, one test a promise.

To run it against a store, import it into a test module and say by a fixture which store:

    from headrace.testing.store_suite import *

    @pytest.fixture
    def kind() -> StoreKind:
        return StoreKind("mine", open_my_store, durable=True, in_files=True)

Tests of restarts run where the kind is `durable`, tests of crashes where it is also `in_files`.
"""

# ruff: noqa: E402 - assertions are rewritten (so that failures show values) only in modules named before their import

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("headrace.testing.suite")

from headrace.testing.suite.claims import TestClaims, TestFifoClaims
from headrace.testing.suite.dedup import TestContentDeduplication, TestDeduplication
from headrace.testing.suite.durability import TestCrashes, TestRestarts
from headrace.testing.suite.fairness import TestFairQueues, TestInFlight
from headrace.testing.suite.fifo import (
    TestFifoAttempts,
    TestFifoOrder,
    TestFifoReceipts,
    TestFifoSendChecks,
    TestFifoTurns,
    TestFifoVisibility,
)
from headrace.testing.suite.moves import TestMoveTasks
from headrace.testing.suite.queues import TestCooldowns, TestDeletion, TestPurging, TestQueueDirectory
from headrace.testing.suite.receipts import TestChangingVisibility, TestDeleting, TestForgedReceipts
from headrace.testing.suite.redrive import TestDeadLetters, TestFifoDeadLetters, TestRedrivePolicies
from headrace.testing.suite.standard import (
    TestCounts,
    TestDelays,
    TestPeeking,
    TestRetention,
    TestSendAndReceive,
    TestSendChecks,
    TestVisibility,
)
from headrace.testing.suite.taking import TestFifoTaking, TestReceivingAny, TestTaking
from headrace.testing.suite.topic_inboxes import TestInboxes
from headrace.testing.suite.topic_logs import TestCatchingUp, TestLogs
from headrace.testing.suite.topics import TestFifoTopics, TestFilters, TestPublishing, TestTopicDirectory
from headrace.testing.suite.transactions import TestExpectations, TestFences, TestState, TestTransactions

__all__ = [
    "TestCatchingUp",
    "TestChangingVisibility",
    "TestClaims",
    "TestContentDeduplication",
    "TestCooldowns",
    "TestCounts",
    "TestCrashes",
    "TestDeadLetters",
    "TestDeduplication",
    "TestDelays",
    "TestDeleting",
    "TestDeletion",
    "TestExpectations",
    "TestFairQueues",
    "TestFences",
    "TestFifoAttempts",
    "TestFifoClaims",
    "TestFifoDeadLetters",
    "TestFifoOrder",
    "TestFifoReceipts",
    "TestFifoSendChecks",
    "TestFifoTaking",
    "TestFifoTopics",
    "TestFifoTurns",
    "TestFifoVisibility",
    "TestFilters",
    "TestForgedReceipts",
    "TestInFlight",
    "TestInboxes",
    "TestLogs",
    "TestMoveTasks",
    "TestPeeking",
    "TestPublishing",
    "TestPurging",
    "TestQueueDirectory",
    "TestReceivingAny",
    "TestRedrivePolicies",
    "TestRestarts",
    "TestRetention",
    "TestSendAndReceive",
    "TestSendChecks",
    "TestState",
    "TestTaking",
    "TestTopicDirectory",
    "TestTransactions",
    "TestVisibility",
]
