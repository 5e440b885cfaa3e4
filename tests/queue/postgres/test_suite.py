"""The PostgreSQL store keeps the promises of the public suite."""

from headrace.testing.store_suite import (  # not from its parts: this tells pytest to explain their asserts
    TestChangingVisibility,
    TestCooldowns,
    TestCounts,
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
from headrace.testing.store_suite import TestQueueDirectory as SuiteOfQueueDirectory
from headrace.testing.store_suite import TestReceivingAny as SuiteOfReceivingAny
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


class TestReceivingAny(SuiteOfReceivingAny):  # the limit of what is in flight is not there yet, nor are FIFO queues
    test_fifo_and_standard_queues_mix = None  # type: ignore[assignment]
    test_full_queue_is_passed_over_and_told_if_no_other_has_anything = None  # type: ignore[assignment]


class TestTaking(SuiteOfTaking):  # what is not there yet: claims, redrive, fairness
    test_claimed_message_is_refused = None  # type: ignore[assignment]
    test_message_received_too_often_is_delivered_when_it_is_named = None  # type: ignore[assignment]
    test_message_of_a_noisy_tenant_that_stands_back_is_taken = None  # type: ignore[assignment]


__all__ = [
    "TestChangingVisibility",
    "TestCooldowns",
    "TestCounts",
    "TestDelays",
    "TestDeleting",
    "TestDeletion",
    "TestExpectations",
    "TestFences",
    "TestPeeking",
    "TestPurging",
    "TestQueueDirectory",
    "TestReceivingAny",
    "TestRetention",
    "TestSendChecks",
    "TestState",
    "TestTaking",
    "TestTransactions",
    "TestVisibility",
]
