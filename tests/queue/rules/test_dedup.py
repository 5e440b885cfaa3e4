"""A dedup id is stored once in five minutes."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.queue import limits
from headrace.queue.dedup import DedupWindow, content_id, dedup_key
from headrace.queue.model import QueueSettings, Sent
from tests.queue.rules.messages import NOW

FIRST = Sent(bytes(16), 1)


class TestKey:
    def test_id_given_is_the_key_in_the_whole_queue(self) -> None:
        settings = QueueSettings(fifo=True)
        keys = {dedup_key(settings, group=group, dedup_id="id", body=b"x") for group in ("a", "b")}
        assert keys == {"id"}

    def test_group_scope_tells_groups_apart(self) -> None:
        settings = QueueSettings(fifo=True, dedup_scope="messageGroup")
        keys = {dedup_key(settings, group=group, dedup_id="id", body=b"x") for group in ("a", "b")}
        assert len(keys) == 2

    def test_group_and_id_do_not_run_together(self) -> None:
        settings = QueueSettings(fifo=True, dedup_scope="messageGroup")
        assert dedup_key(settings, group="a", dedup_id="bc", body=b"") != dedup_key(
            settings, group="ab", dedup_id="c", body=b""
        )

    def test_without_an_id_there_is_no_key(self) -> None:
        assert dedup_key(QueueSettings(fifo=True), group="g", dedup_id=None, body=b"x") is None

    def test_content_makes_the_id_where_the_queue_says_so(self) -> None:
        settings = QueueSettings(fifo=True, content_dedup=True)
        assert dedup_key(settings, group="g", dedup_id=None, body=b"x") == sha256(b"x").hexdigest()

    def test_id_given_goes_before_content_and_may_equal_it(self) -> None:
        settings = QueueSettings(fifo=True, content_dedup=True)
        assert dedup_key(settings, group="g", dedup_id="id", body=b"x") == "id"
        by_hand = dedup_key(settings, group="g", dedup_id=content_id(b"x"), body=b"y")
        assert by_hand == dedup_key(settings, group="g", dedup_id=None, body=b"x")


class TestWindow:
    def test_key_is_found_until_its_time_is_over(self) -> None:
        window = DedupWindow()
        window.add("k", FIRST, NOW + limits.DEDUP_MS)
        assert window.find("k", NOW) == FIRST
        assert window.find("k", NOW + limits.DEDUP_MS - 1) == FIRST
        assert window.find("k", NOW + limits.DEDUP_MS) is None
        assert window.find("other", NOW) is None

    def test_key_that_comes_again_later_names_the_newer_message(self) -> None:
        window = DedupWindow()
        window.add("k", FIRST, NOW)
        again = Sent(bytes(16), 2)
        window.add("k", again, NOW + limits.DEDUP_MS)
        assert window.find("k", NOW) == again

    def test_key_of_a_message_that_was_not_stored_is_forgotten(self) -> None:
        window = DedupWindow()
        window.add("k", FIRST, NOW + 1)
        window.remove("k")
        window.remove("k")
        assert window.find("k", NOW) is None
        assert len(window) == 0

    @pytest.mark.parametrize("expires_ms", [NOW, NOW + 1, NOW + limits.MINUTE_MS - 1])
    def test_memory_is_given_back_within_a_minute(self, expires_ms: int) -> None:
        window = DedupWindow()
        window.add("k", FIRST, expires_ms)
        window.expire(expires_ms + limits.MINUTE_MS)
        assert len(window) == 0

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["add", "find", "expire", "remove"]), st.sampled_from("abc"), st.integers(0, 90_000)
            )
        )
    )
    def test_window_remembers_exactly_five_minutes(self, steps: list[tuple[str, str, int]]) -> None:
        window, model, now = DedupWindow(), dict[str, tuple[int, Sent]](), NOW
        for seq, (step, key, passed_ms) in enumerate(steps):
            now += passed_ms
            expected = model[key][1] if key in model and model[key][0] > now else None
            if step == "expire":
                window.expire(now)
            elif step == "remove":
                window.remove(key)
                model.pop(key, None)
                expected = None
            elif step == "add" and window.find(key, now) is None:
                assert expected is None
                expected = Sent(bytes(16), seq)
                window.add(key, expected, now + limits.DEDUP_MS)
                model[key] = now + limits.DEDUP_MS, expected
            assert window.find(key, now) == expected
