"""Queues themselves: create, change, tag, list, purge, delete; and the cool-downs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import (
    CallerError,
    InvalidSetting,
    PurgeInProgress,
    QueueDeletedRecently,
    QueueExists,
    QueueNotFound,
    UnknownSetting,
)
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.testing.driver import StoreDriver, StoreKind, bodies, entry
from headrace.testing.suite.base import DAY, MINUTE, SECOND, SuitePart


class TestQueueDirectory(SuitePart):
    def test_create_is_idempotent(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=5 * SECOND)
        driver.send(queue, "x")
        again = driver.run(ops.CreateQueue(queue, {"visibility_ms": 5 * SECOND}))
        assert again.arn == queue
        driver.run(ops.CreateQueue(queue))
        assert bodies(driver.receive(queue)) == ["x"]

    def test_create_with_another_value_is_refused_and_names_the_setting(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=5 * SECOND)
        outcome = driver.outcome(ops.CreateQueue(queue, {"visibility_ms": 6 * SECOND}))
        assert isinstance(outcome, QueueExists)
        assert (outcome.queue, outcome.setting) == (queue, "visibility_ms")

    def test_defaults_are_those_of_sqs(self, driver: StoreDriver) -> None:
        settings = driver.run(ops.GetQueue(driver.create("q"))).info.settings
        assert (settings.delay_ms, settings.wait_ms, settings.visibility_ms) == (0, 0, 30 * SECOND)
        assert (settings.retention_ms, settings.max_message_bytes) == (4 * DAY, 1_048_576)
        assert (settings.fifo, settings.redrive) == (False, None)

    @pytest.mark.parametrize(
        ("name", "least", "most"),
        [
            ("delay_ms", 0, limits.DELAY_MAX_MS),
            ("max_message_bytes", limits.MESSAGE_BYTES_MIN, limits.MESSAGE_BYTES_MAX),
            ("retention_ms", limits.RETENTION_MIN_MS, limits.RETENTION_MAX_MS),
            ("wait_ms", 0, limits.WAIT_MAX_MS),
            ("visibility_ms", 0, limits.VISIBILITY_MAX_MS),
        ],
    )
    def test_settings_have_ranges(self, driver: StoreDriver, name: str, least: int, most: int) -> None:
        queue = driver.create("q")
        for value in (least, most):
            driver.change_settings(queue, **{name: value})
        for value in (least - 1, most + 1):
            outcome = driver.outcome(ops.ChangeSettings(queue, {name: value}))
            assert isinstance(outcome, InvalidSetting)
            assert outcome.setting == name
        assert getattr(driver.run(ops.GetQueue(queue)).info.settings, name) == most

    def test_unknown_setting_is_named(self, driver: StoreDriver) -> None:
        outcome = driver.outcome(ops.CreateQueue(arn_of("q"), {"colour": "blue"}))
        assert isinstance(outcome, UnknownSetting)
        assert outcome.setting == "colour"

    def test_fifo_settings_are_refused_on_a_standard_queue(self, driver: StoreDriver) -> None:
        for name, value in (("content_dedup", True), ("dedup_scope", "queue"), ("throughput_limit", "perQueue")):
            assert isinstance(driver.outcome(ops.CreateQueue(arn_of("q"), {name: value})), UnknownSetting), name

    def test_group_throughput_needs_group_scope(self, driver: StoreDriver) -> None:
        settings = {"fifo": True, "throughput_limit": "perMessageGroupId"}
        assert isinstance(driver.outcome(ops.CreateQueue(arn_of("q.fifo"), settings)), InvalidSetting)

    def test_type_is_fixed_at_creation(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        assert isinstance(driver.outcome(ops.ChangeSettings(queue, {"fifo": True})), CallerError)

    @pytest.mark.parametrize("name", ["", "a" * 81, "a b", "a/b", "é", "a.b", "x.fifo"])
    def test_bad_name_of_a_standard_queue_is_refused(self, driver: StoreDriver, name: str) -> None:
        assert isinstance(driver.outcome(ops.CreateQueue(arn_of(name))), CallerError)

    def test_name_of_a_fifo_queue_ends_in_fifo(self, driver: StoreDriver) -> None:
        assert isinstance(driver.outcome(ops.CreateQueue(arn_of("q"), {"fifo": True})), CallerError)
        driver.create("a" * 75 + ".fifo")

    def test_names_are_case_sensitive(self, driver: StoreDriver) -> None:
        driver.send(driver.create("Q"), "x")
        assert driver.receive(driver.create("q")) == []

    def test_change_holds_at_once_and_is_dated(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        created_ms = driver.clock()
        driver.pass_time(MINUTE)
        info = driver.run(ops.ChangeSettings(queue, {"visibility_ms": 7 * SECOND}))
        assert (info.settings.visibility_ms, info.created_ms, info.modified_ms) == (
            7 * SECOND,
            created_ms,
            driver.clock(),
        )
        assert driver.store.find(queue) == info

    def test_stored_attributes_are_kept_and_removed(self, driver: StoreDriver) -> None:
        queue = arn_of("q")
        driver.run(ops.CreateQueue(queue, stored={"Policy": "{}", "KmsMasterKeyId": "k"}))
        driver.run(ops.ChangeSettings(queue, stored={"Policy": None}))
        assert driver.run(ops.GetQueue(queue)).info.settings.stored == {"KmsMasterKeyId": "k"}

    def test_tags_are_set_and_removed(self, driver: StoreDriver) -> None:
        queue = arn_of("q")
        driver.run(ops.CreateQueue(queue, tags={"a": "1", "b": "2"}))
        info = driver.run(ops.TagQueue(queue, tags={"c": "3", "a": "4"}, remove=["b", "none"]))
        assert info.tags == {"a": "4", "c": "3"}

    def test_find_knows_what_get_tells(self, driver: StoreDriver) -> None:
        queue = driver.create("q", delay_ms=SECOND)
        assert driver.store.find(queue) == driver.run(ops.GetQueue(queue)).info
        assert driver.store.find(arn_of("none")) is None

    def test_list_is_sorted_and_paged(self, driver: StoreDriver) -> None:
        arns = sorted(driver.create(f"q{number}") for number in (3, 1, 2))
        driver.create("other")
        prefix = arn_of("q")
        assert [one.info.arn for one in driver.run(ops.ListQueues(prefix))] == arns
        assert [one.info.arn for one in driver.run(ops.ListQueues(prefix, limit=2))] == arns[:2]
        assert [one.info.arn for one in driver.run(ops.ListQueues(prefix, after=arns[1]))] == arns[2:]

    def test_everything_about_a_queue_survives_a_restart(self, durable: StoreDriver) -> None:
        queue = arn_of("q.fifo")
        settings: dict[str, Any] = {"fifo": True, "delay_ms": SECOND, "dedup_scope": "messageGroup"}
        durable.run(ops.CreateQueue(queue, settings, stored={"Policy": "{}"}, tags={"a": "1"}))
        durable.pass_time(SECOND)
        durable.change_settings(queue, visibility_ms=7 * SECOND)
        before = durable.run(ops.GetQueue(queue)).info
        durable.reopen()
        assert durable.run(ops.GetQueue(queue)).info == before


class TestDeletion(SuitePart):
    def test_deleted_queue_is_gone(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send(queue, "x")
        assert driver.run(ops.DeleteQueue(queue)) is None
        assert isinstance(driver.outcome(ops.Receive(queue)), QueueNotFound)
        assert driver.store.find(queue) is None
        assert driver.run(ops.ListQueues()) == []

    def test_recreated_queue_is_empty(self, driver: StoreDriver) -> None:
        queue = driver.create("q", visibility_ms=SECOND)
        driver.send_all(queue, [entry("x")] * 3 + [entry("y", delay_ms=SECOND)])
        driver.receive(queue, 1)
        driver.run(ops.DeleteQueue(queue))
        driver.create("q")
        driver.pass_time(MINUTE)
        counts = driver.counts(queue)
        assert (counts.visible, counts.in_flight, counts.delayed, counts.oldest_ms) == (0, 0, 0, None)
        assert driver.receive(queue) == []

    def test_deleted_queue_stays_gone_after_a_restart(self, durable: StoreDriver) -> None:
        queue, other = durable.create("q"), durable.create("other")
        durable.send(queue, "x")
        durable.send(other, "y")
        durable.run(ops.DeleteQueue(queue))
        durable.reopen()
        assert durable.store.find(queue) is None
        durable.create("q")
        assert durable.receive(queue) == []
        assert bodies(durable.receive(other)) == ["y"]

    def test_deleting_a_missing_queue_is_refused(self, driver: StoreDriver) -> None:
        assert isinstance(driver.outcome(ops.DeleteQueue(arn_of("none"))), QueueNotFound)


class TestPurging(SuitePart):
    def test_purge_deletes_messages_in_every_state(self, driver: StoreDriver) -> None:
        queue, other = driver.create("q", visibility_ms=SECOND), driver.create("other")
        driver.send(other, "kept")
        driver.send(queue, "leased")
        driver.receive_one(queue)
        driver.send(queue, "delayed", delay_ms=SECOND)
        driver.send(queue, "visible")
        assert driver.run(ops.Purge(queue)) == 3
        driver.pass_time(MINUTE)
        counts = driver.counts(queue)
        assert (counts.visible, counts.in_flight, counts.delayed, counts.oldest_ms) == (0, 0, 0, None)
        assert driver.peek(queue) == []
        assert driver.receive(queue) == []
        assert bodies(driver.receive(other)) == ["kept"]

    def test_message_sent_after_a_purge_stays(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.send_all(queue, [entry("old")] * 2_000)
        driver.run(ops.Purge(queue))
        driver.send(queue, "new")
        driver.pass_time(MINUTE)
        assert bodies(driver.receive(queue)) == ["new"]
        assert driver.counts(queue).in_flight == 1

    def test_purge_survives_a_restart(self, durable: StoreDriver) -> None:
        queue = durable.create("q")
        durable.send_all(queue, [entry("old")] * 2_000)
        durable.receive(queue, 10)
        durable.run(ops.Purge(queue))
        durable.send(queue, "new")
        durable.reopen()
        assert [one.message.body for one in durable.peek(queue)] == [b"new"]
        assert bodies(durable.receive(queue)) == ["new"]

    def test_purge_holds_in_a_crash(self, crashable: StoreDriver) -> None:
        queue = crashable.create("q")
        crashable.send_all(queue, [entry("old")] * 2_000)
        crashable.run(ops.Purge(queue))
        crashable.crash()
        assert crashable.receive(queue) == []
        assert crashable.counts(queue).visible == 0


class TestCooldowns(SuitePart):
    @pytest.fixture
    def cooled(self, kind: StoreKind, tmp_path: Path) -> Iterator[StoreDriver]:
        """A fresh store whose cool-downs hold."""
        folder = tmp_path / "cooled"
        folder.mkdir()
        driver = StoreDriver(kind, folder, cooldowns=True)
        yield driver
        driver.close()

    def test_deleted_queue_cannot_be_created_again_for_a_minute(self, cooled: StoreDriver) -> None:
        queue = cooled.create("q")
        cooled.run(ops.DeleteQueue(queue))
        cooled.pass_time(MINUTE - 1)
        assert isinstance(cooled.outcome(ops.CreateQueue(queue)), QueueDeletedRecently)
        cooled.create("other")
        cooled.pass_time(1)
        cooled.create("q")

    def test_purged_queue_cannot_be_purged_again_for_a_minute(self, cooled: StoreDriver) -> None:
        queue, other = cooled.create("q"), cooled.create("other")
        cooled.run(ops.Purge(queue))
        cooled.pass_time(MINUTE - 1)
        assert isinstance(cooled.outcome(ops.Purge(queue)), PurgeInProgress)
        cooled.run(ops.Purge(other))
        cooled.pass_time(1)
        cooled.run(ops.Purge(queue))

    def test_cooldowns_survive_a_restart(self, cooled: StoreDriver) -> None:
        if not cooled.kind.durable:
            pytest.skip(f"the {cooled.kind.name} store does not promise to survive a restart")
        queue, gone = cooled.create("q"), cooled.create("gone")
        cooled.run(ops.Purge(queue))
        cooled.run(ops.DeleteQueue(gone))
        cooled.reopen()
        assert isinstance(cooled.outcome(ops.Purge(queue)), PurgeInProgress)
        assert isinstance(cooled.outcome(ops.CreateQueue(gone)), QueueDeletedRecently)

    def test_without_cooldowns_both_go_on_at_once(self, driver: StoreDriver) -> None:
        queue = driver.create("q")
        driver.run(ops.Purge(queue))
        driver.run(ops.Purge(queue))
        driver.run(ops.DeleteQueue(queue))
        driver.create("q")
