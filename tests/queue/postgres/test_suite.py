"""The PostgreSQL store keeps the promises of the public suite."""

from headrace.testing.store_suite import (  # not from its parts: this tells pytest to explain their asserts
    TestChangingVisibility,
    TestClaims,
    TestCooldowns,
    TestCounts,
    TestDeadLetters,
    TestDelays,
    TestDeleting,
    TestDeletion,
    TestExpectations,
    TestFences,
    TestPeeking,
    TestPurging,
    TestRetention,
    TestSendChecks,
    TestState,
    TestVisibility,
)
from headrace.testing.store_suite import TestInFlight as SuiteOfInFlight
from headrace.testing.store_suite import TestQueueDirectory as SuiteOfQueueDirectory
from headrace.testing.store_suite import TestReceivingAny as SuiteOfReceivingAny
from headrace.testing.store_suite import TestRedrivePolicies as SuiteOfRedrivePolicies
from headrace.testing.store_suite import TestTaking as SuiteOfTaking
from headrace.testing.store_suite import TestTransactions as SuiteOfTransactions


class TestQueueDirectory(SuiteOfQueueDirectory):  # FIFO queues are refused
    test_name_of_a_fifo_queue_ends_in_fifo = None  # type: ignore[assignment]
    test_everything_about_a_queue_survives_a_restart = None  # type: ignore[assignment]


class TestTransactions(SuiteOfTransactions):  # FIFO queues are not there yet
    test_refused_transaction_does_not_take_dedup_ids = None  # type: ignore[assignment]
    test_acknowledgement_sends_and_state_happen_together = None  # type: ignore[assignment]
    test_acknowledgement_frees_a_fifo_group = None  # type: ignore[assignment]
    test_duplicate_in_a_transaction_is_told_and_not_stored = None  # type: ignore[assignment]  # no deduplication yet


class TestReceivingAny(SuiteOfReceivingAny):  # FIFO queues are not there yet
    test_fifo_and_standard_queues_mix = None  # type: ignore[assignment]


class TestInFlight(SuiteOfInFlight):  # FIFO queues are not there yet
    test_fifo_queue_gives_no_more_and_no_error = None  # type: ignore[assignment]


class TestRedrivePolicies(SuiteOfRedrivePolicies):  # as above
    test_target_of_another_type_is_refused = None  # type: ignore[assignment]


class TestTaking(SuiteOfTaking):  # what is not there yet: fairness
    test_message_of_a_noisy_tenant_that_stands_back_is_taken = None  # type: ignore[assignment]


__all__ = [
    "TestChangingVisibility",
    "TestClaims",
    "TestCooldowns",
    "TestCounts",
    "TestDeadLetters",
    "TestDelays",
    "TestDeleting",
    "TestDeletion",
    "TestExpectations",
    "TestFences",
    "TestInFlight",
    "TestPeeking",
    "TestPurging",
    "TestQueueDirectory",
    "TestReceivingAny",
    "TestRedrivePolicies",
    "TestRetention",
    "TestSendChecks",
    "TestState",
    "TestTaking",
    "TestTransactions",
    "TestVisibility",
]
