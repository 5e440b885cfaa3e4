"""What a queue's settings may be."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidParameter, InvalidSetting, QueueExists, UnknownSetting
from headrace.queue import limits, settings
from headrace.queue.model import QueueInfo, QueueSettings, Redrive, RedriveAllow, arn_of
from tests.queue.rules.messages import NOW

TARGET = arn_of("dead")


def refused(**given: Any) -> InvalidSetting:
    with pytest.raises(InvalidSetting) as error:
        settings.create(given, {})
    return error.value


class TestNames:
    @pytest.mark.parametrize("name", ["a", "A-Z_09", "x" * 80])
    def test_name_of_a_standard_queue_is_taken(self, name: str) -> None:
        settings.check_arn(arn_of(name), fifo=False)

    @pytest.mark.parametrize("name", ["a.fifo", "x" * 75 + ".fifo"])
    def test_name_of_a_fifo_queue_ends_in_fifo(self, name: str) -> None:
        settings.check_arn(arn_of(name), fifo=True)
        with pytest.raises(InvalidParameter):
            settings.check_arn(arn_of(name), fifo=False)

    @pytest.mark.parametrize("name", ["", "x" * 81, "a b", "é", "a.b", "a/b", "a\n", "x" * 76 + ".fifo", ".fifo"])
    def test_other_names_are_refused(self, name: str) -> None:
        with pytest.raises(InvalidParameter) as error:
            settings.check_arn(arn_of(name), fifo=name.endswith(".fifo"))
        assert (error.value.parameter, error.value.value) == ("QueueName", name)

    def test_fifo_queue_needs_the_suffix(self) -> None:
        with pytest.raises(InvalidParameter, match=r"ends in \.fifo"):
            settings.check_arn(arn_of("plain"), fifo=True)

    @pytest.mark.parametrize(
        "arn",
        [
            arn_of("q", region="EU"),
            arn_of("q", account="12345"),
            "arn:aws:sns:us-east-1:000000000000:q",
            "arn:aws:sqs:us-east-1:000000000000:q:r",
            "q",
        ],
    )
    def test_arn_of_another_form_is_refused(self, arn: str) -> None:
        with pytest.raises(InvalidParameter):
            settings.check_arn(arn, fifo=False)

    def test_arn_of_another_partition_is_taken(self) -> None:
        settings.check_arn("arn:aws-cn:sqs:cn-north-1:000000000000:q", fifo=False)


class TestRanges:
    @pytest.mark.parametrize("name", settings.RANGES)
    def test_both_ends_are_allowed_and_nothing_beyond(self, name: str) -> None:
        least, most = settings.RANGES[name]
        for value in (least, most):
            assert getattr(settings.create({name: value}, {}), name) == value
        for value in (least - 1, most + 1):
            error = refused(**{name: value})
            assert (error.setting, error.value) == (name, str(value))

    @pytest.mark.parametrize("name", settings.CHOICES)
    def test_choice_outside_the_list_is_refused(self, name: str) -> None:
        assert refused(fifo=True, **{name: "nonsense"}).setting == name

    @pytest.mark.parametrize("value", ["30", 1.5, True, None, [1]])
    def test_value_of_another_type_is_refused_by_name(self, value: object) -> None:
        error = refused(visibility_ms=value)
        assert (error.setting, error.value) == ("visibility_ms", str(value))

    def test_stored_attribute_of_another_type_is_refused(self) -> None:
        with pytest.raises(InvalidSetting) as error:
            settings.create({}, {"Policy": 5})  # type: ignore[dict-item]  # as a client may send it
        assert error.value.setting == "stored"

    def test_setting_whose_name_begins_with_anothers_is_told_apart(self) -> None:
        assert refused(redrive=None, redrive_allow={"permission": 5}).setting == "redrive_allow"

    @pytest.mark.parametrize("receives_max", [1, limits.RECEIVES_MAX])
    def test_redrive_bound_is_taken(self, receives_max: int) -> None:
        made = settings.create({"redrive": {"target": TARGET, "receives_max": receives_max}}, {})
        assert made.redrive == Redrive(TARGET, receives_max)

    @pytest.mark.parametrize("receives_max", [0, limits.RECEIVES_MAX + 1])
    def test_redrive_bound_out_of_range_is_refused(self, receives_max: int) -> None:
        error = refused(redrive={"target": TARGET, "receives_max": receives_max})
        assert (error.setting, error.value) == ("redrive", str(receives_max))


class TestRedriveAllow:
    @pytest.mark.parametrize(
        "policy",
        [{"permission": "allowAll"}, {"permission": "denyAll"}, {"permission": "byQueue", "sources": ["a"] * 10}],
    )
    def test_policy_is_taken(self, policy: dict[str, Any]) -> None:
        made = settings.create({"redrive_allow": policy}, {}).redrive_allow
        assert made == RedriveAllow(policy["permission"], tuple(policy.get("sources", ())))

    @pytest.mark.parametrize(
        ("policy", "reason"),
        [
            ({"permission": "some"}, "redrivePermission"),
            ({"permission": "byQueue"}, "1 to 10"),
            ({"permission": "byQueue", "sources": ["a"] * 11}, "1 to 10"),
            ({"permission": "allowAll", "sources": ["a"]}, "byQueue only"),
            ({"permission": "denyAll", "sources": ["a"]}, "byQueue only"),
        ],
    )
    def test_other_policies_are_refused(self, policy: dict[str, Any], reason: str) -> None:
        error = refused(redrive_allow=policy)
        assert error.setting == "redrive_allow"
        assert reason in error.reason


class TestChange:
    def test_change_keeps_what_is_not_given(self) -> None:
        before = settings.create({"delay_ms": 1_000, "wait_ms": 2_000}, {"Policy": "p"})
        after = settings.change(before, {"delay_ms": 3_000}, {})
        assert (after.delay_ms, after.wait_ms, after.stored) == (3_000, 2_000, {"Policy": "p"})

    def test_change_keeps_nested_policies(self) -> None:
        before = settings.create(
            {"redrive": {"target": TARGET, "receives_max": 5}, "redrive_allow": {"permission": "denyAll"}}, {}
        )
        after = settings.change(before, {"delay_ms": 1}, {})
        assert (after.redrive, after.redrive_allow) == (before.redrive, before.redrive_allow)

    def test_redrive_is_taken_off_by_none(self) -> None:
        before = settings.create({"redrive": {"target": TARGET, "receives_max": 5}}, {})
        assert settings.change(before, {"redrive": None}, {}).redrive is None

    def test_stored_attribute_is_replaced_and_removed_by_none(self) -> None:
        before = settings.create({}, {"Policy": "p", "KmsMasterKeyId": "k"})
        assert settings.change(before, {}, {"Policy": None, "KmsMasterKeyId": "l"}).stored == {"KmsMasterKeyId": "l"}

    @pytest.mark.parametrize("name", ["nonsense", "stored", "arn"])
    def test_unknown_setting_is_named(self, name: str) -> None:
        with pytest.raises(UnknownSetting) as error:
            settings.change(QueueSettings(), {name: 1}, {})
        assert error.value.setting == name

    @pytest.mark.parametrize("name", settings.FIFO_ONLY)
    def test_fifo_setting_does_not_exist_on_a_standard_queue(self, name: str) -> None:
        with pytest.raises(UnknownSetting) as error:
            settings.change(QueueSettings(), {name: "x"}, {})
        assert error.value.setting == name

    def test_group_throughput_needs_group_scope(self) -> None:
        assert refused(fifo=True, throughput_limit="perMessageGroupId").setting == "throughput_limit"
        made = settings.create(
            {"fifo": True, "throughput_limit": "perMessageGroupId", "dedup_scope": "messageGroup"}, {}
        )
        assert made.throughput_limit == "perMessageGroupId"

    @pytest.mark.parametrize(("before", "given"), [(True, False), (False, True), (False, "true")])
    def test_kind_is_fixed_at_creation(self, before: bool, given: object) -> None:
        with pytest.raises(InvalidSetting) as error:
            settings.change(QueueSettings(fifo=before), {"fifo": given}, {})
        assert error.value.setting == "fifo"


class TestSame:
    INFO = QueueInfo(arn_of("q"), settings.create({"delay_ms": 1_000}, {"Policy": "p"}), {}, NOW, NOW)

    @pytest.mark.parametrize("given", [{}, {"delay_ms": 1_000}, {"fifo": False}, {"visibility_ms": 30_000}])
    def test_equal_settings_are_the_same_queue(self, given: dict[str, Any]) -> None:
        settings.check_same(self.INFO, given, {"Policy": "p"} if given else {})

    @pytest.mark.parametrize(
        ("given", "stored", "setting"),
        [
            ({"delay_ms": 2_000}, {}, "delay_ms"),
            ({"fifo": True}, {}, "fifo"),
            ({}, {"Policy": "other"}, "Policy"),
            ({}, {"KmsMasterKeyId": "k"}, "KmsMasterKeyId"),
        ],
    )
    def test_difference_is_named(self, given: dict[str, Any], stored: dict[str, str], setting: str) -> None:
        with pytest.raises(QueueExists) as error:
            settings.check_same(self.INFO, given, stored)
        assert (error.value.queue, error.value.setting) == (arn_of("q"), setting)

    def test_invalid_value_is_told_as_invalid(self) -> None:
        with pytest.raises(InvalidSetting):
            settings.check_same(self.INFO, {"delay_ms": -1}, {})
