"""Pipelines on a broker of two nodes do what they do on one, whichever node each of their calls goes to."""

from tests.stream.runner.test_runner import test_pipeline_goes_on_where_it_was
from tests.stream.runner.test_runner_topics import (
    test_backfill_reads_the_log_then_goes_on_live,
    test_each_pipeline_gets_every_message,
    test_reset_reads_the_log_again,
)
from tests.stream.runner.test_shuffle import (
    test_purge_of_claimed_messages_holds_nobody_up,
    test_reset_gives_back_what_every_slot_has_claimed,
    test_what_a_member_had_goes_to_the_others,
    test_whoever_comes_and_goes,
    test_zombie_changes_nothing,
)

__all__ = [
    "test_backfill_reads_the_log_then_goes_on_live",
    "test_each_pipeline_gets_every_message",
    "test_pipeline_goes_on_where_it_was",
    "test_purge_of_claimed_messages_holds_nobody_up",
    "test_reset_gives_back_what_every_slot_has_claimed",
    "test_reset_reads_the_log_again",
    "test_what_a_member_had_goes_to_the_others",
    "test_whoever_comes_and_goes",
    "test_zombie_changes_nothing",
]
