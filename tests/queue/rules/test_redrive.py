"""When a message is a dead letter, and which queue may take it."""

from __future__ import annotations

import pytest

from headrace.errors import RedriveRefused
from headrace.queue import redrive
from headrace.queue.model import QueueInfo, QueueSettings, Redrive, RedriveAllow, arn_of
from headrace.queue.redrive import Verdict, judge
from tests.queue.rules.messages import NOW, message

SOURCE, TARGET = arn_of("source"), arn_of("target")


def info(*, fifo: bool = False, allow: RedriveAllow | None = None) -> QueueInfo:
    return QueueInfo(TARGET, QueueSettings(fifo=fifo, redrive_allow=allow or RedriveAllow()), {}, NOW, NOW)


class TestJudge:
    SETTINGS = QueueSettings(retention_ms=60_000, redrive=Redrive(TARGET, 3))

    @pytest.mark.parametrize(("receives", "verdict"), [(0, "DELIVER"), (2, "DELIVER"), (3, "DEAD_LETTER")])
    def test_message_is_dead_when_one_more_receive_would_exceed_the_bound(self, receives: int, verdict: str) -> None:
        assert judge(message(1), receives, self.SETTINGS, NOW) is Verdict[verdict]

    def test_without_a_policy_no_message_is_dead(self) -> None:
        assert judge(message(1), 1_000_000, QueueSettings(), NOW) is Verdict.DELIVER

    def test_count_from_another_queue_does_not_matter(self) -> None:
        assert judge(message(1, receives=50), 0, self.SETTINGS, NOW) is Verdict.DELIVER

    @pytest.mark.parametrize(("age_ms", "verdict"), [(59_999, "DELIVER"), (60_000, "EXPIRE")])
    def test_message_expires_at_its_retention(self, age_ms: int, verdict: str) -> None:
        assert judge(message(1, sent_ms=NOW - age_ms), 0, self.SETTINGS, NOW) is Verdict[verdict]

    def test_expired_message_is_not_a_dead_letter(self) -> None:
        assert judge(message(1, sent_ms=NOW - 60_000), 3, self.SETTINGS, NOW) is Verdict.EXPIRE


class TestTarget:
    def refusal(self, target: QueueInfo | None, *, fifo: bool = False, target_arn: str = TARGET) -> str:
        with pytest.raises(RedriveRefused) as refused:
            redrive.check_target(SOURCE, fifo=fifo, target_arn=target_arn, target=target)
        assert (refused.value.source, refused.value.target) == (SOURCE, target_arn)
        return refused.value.reason

    def test_existing_queue_of_the_same_kind_is_taken(self) -> None:
        redrive.check_target(SOURCE, fifo=False, target_arn=TARGET, target=info())
        redrive.check_target(SOURCE, fifo=True, target_arn=TARGET, target=info(fifo=True))

    def test_missing_queue_is_refused(self) -> None:
        assert "does not exist" in self.refusal(None)

    @pytest.mark.parametrize("fifo", [True, False])
    def test_queue_of_the_other_kind_is_refused(self, fifo: bool) -> None:
        assert "FIFO" in self.refusal(info(fifo=not fifo), fifo=fifo)

    @pytest.mark.parametrize("target", [arn_of("target", account="111122223333"), arn_of("target", region="eu-west-1")])
    def test_queue_of_another_account_or_region_is_refused_even_if_it_exists(self, target: str) -> None:
        assert "account and region" in self.refusal(info(), target_arn=target)

    @pytest.mark.parametrize(
        ("policy", "allowed"),
        [
            (RedriveAllow(), True),
            (RedriveAllow("denyAll"), False),
            (RedriveAllow("byQueue", (SOURCE,)), True),
            (RedriveAllow("byQueue", (arn_of("other"),)), False),
        ],
    )
    def test_target_says_whose_dead_letters_it_takes(self, policy: RedriveAllow, allowed: bool) -> None:
        if allowed:
            redrive.check_target(SOURCE, fifo=False, target_arn=TARGET, target=info(allow=policy))
        else:
            assert "RedriveAllowPolicy" in self.refusal(info(allow=policy))
