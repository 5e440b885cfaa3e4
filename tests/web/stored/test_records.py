from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.web.settings import RESPOND_ASYNC_RULE, DurableSettings
from headrace.web.stored import limits, records
from headrace.web.stored.records import DurableRules, RequestRecord, Response, StoredRequest


def request(**changes: object) -> StoredRequest:
    values: dict[str, object] = {
        "id": "a" * 24,
        "method": "POST",
        "target": "/hooks/1",
        "headers": {b"host": b"x"},
        "version": "1.1",
        "secure": False,
        "peer": "192.0.2.1",
        "peer_port": 1,
        "server": ("127.0.0.1", 80),
        "body": b"{}",
        "key": "",
        "attempts_max": 3,
        "retry_s": 1.0,
        "keep_s": 60.0,
    }
    return StoredRequest(**{**values, **changes})  # type: ignore[arg-type]


def test_request_and_record_survive_their_encoding() -> None:
    stored = request(body=None, headers={b"a": b"\xff"})
    assert records.decode_request(records.encode(stored)) == stored
    record = records.new_record(stored, now_ms=5)
    answered = records.ended(record, now_ms=6, keep_s=1, response=Response(200, b"A: b\r\n", b"x", 1))
    assert records.decode_record(records.encode(answered)) == answered


@pytest.mark.parametrize(
    ("method", "path", "asked", "found"),
    [
        ("POST", "/hooks", False, "/hooks"),
        ("POST", "/hooks/x", False, "/hooks"),
        ("POST", "/hooks/slow", False, None),
        ("POST", "/hooks/slow", True, "/hooks/slow"),
        ("POST", "/hookses", False, None),
        ("GET", "/hooks", False, None),
        ("GET", "/hooks", True, "/"),
        ("POST", "/other", True, "/"),
        ("POST", "/other", False, None),
    ],
)
def test_longest_rule_decides(method: str, path: str, asked: bool, found: str | None) -> None:
    rules = DurableRules(
        [DurableSettings(path="/hooks"), DurableSettings(path="/hooks/slow/", always=False), RESPOND_ASYNC_RULE]
    )
    rule = rules.find(method, path, asked=asked)
    assert (rule.path.rstrip("/") or "/" if rule else None) == found


def test_a_rule_without_a_path_is_refused() -> None:
    with pytest.raises(ValueError, match="'hooks' is not a path"):
        DurableRules([DurableSettings(path="hooks")])


@pytest.mark.parametrize(
    ("prefer", "asked", "wait_s"),
    [
        (None, False, 0),
        (b"", False, 0),
        (b"respond-async", True, 0),
        (b"Respond-Async, wait=5", True, 5),
        (b"wait=10, respond-async", True, 10),
        (b"respond-async; wait=99999", True, limits.WAIT_MAX_S),
        (b"respond-asynchronous", False, 0),
        (b"return=minimal, respond-async;x=1", True, 0),
        (b"await=3, respond-async", True, 0),
    ],
)
def test_preferences_are_read(prefer: bytes | None, asked: bool, wait_s: float) -> None:
    assert records.prefers_async(prefer) is asked
    assert records.preferred_wait_s(prefer) == wait_s


@pytest.mark.parametrize(("value", "key"), [(None, None), (b"abc", b"abc"), (b'"a-b"', b"a-b"), (b'"', b'"')])
def test_keys_are_read(value: bytes | None, key: bytes | None) -> None:
    assert records.read_idempotency_key(value) == key


@pytest.mark.parametrize("value", [b"", b'""', b"a b", b"a\tb", "ä".encode(), b"x" * 256])
def test_unfit_keys_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        records.read_idempotency_key(value)


def test_scope_tells_parts_apart() -> None:
    one = records.scope_of(b"k", method="POST", host=b"h", path="/ab", authorization=b"c")
    assert one != records.scope_of(b"k", method="POST", host=b"h", path="/a", authorization=b"bc")
    assert one != records.scope_of(b"k", method="PUT", host=b"h", path="/ab", authorization=b"c")
    assert one != records.scope_of(b"k", method="POST", host=b"other", path="/ab", authorization=b"c")
    assert one == records.scope_of(b"k", method="POST", host=b"h", path="/ab", authorization=b"c")


def test_a_failed_request_that_comes_again_has_all_attempts_anew() -> None:
    record = records.started(records.new_record(request(), now_ms=0), now_ms=1)
    again = records.started(records.to_retry(record, "no", now_ms=2), now_ms=3)
    assert (again.attempts, again.status, again.error) == (2, "running", "")
    failed = records.ended(again, now_ms=4, keep_s=1, response=None, error="no")
    assert failed.status == "failed"
    assert records.started(failed, now_ms=5).attempts == 1


def test_a_refused_run_is_no_attempt() -> None:
    record = records.started(records.new_record(request(), now_ms=0), now_ms=1)
    assert records.not_run(record, now_ms=2).attempts == 0


def test_failed_requests_are_kept_as_long_as_they_can_be_redriven() -> None:
    record = records.new_record(request(), now_ms=0)
    assert records.ended(record, now_ms=0, keep_s=1, response=None).expires_ms == 1000
    failed = records.ended(record, now_ms=0, keep_s=1, response=None, error="x")
    assert failed.expires_ms == limits.QUEUED_KEEP_S * 1000


def test_delays_double_up_to_the_longest() -> None:
    assert [records.retry_delay_s(n, 0.5) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert records.retry_delay_s(1000, 1) == limits.RETRY_MAX_S


@given(st.lists(st.integers(0, 2**50), max_size=20), st.integers(0, 2**50))
def test_expiry_keys_sort_by_time(times: list[int], now: int) -> None:
    keys = sorted(
        records.expiry_key(RequestRecord(f"id-{n}", "done", "GET", "/", 1, 0, 0, when)) for n, when in enumerate(times)
    )
    assert [records.expiry_of(key)[0] for key in keys] == sorted(times)
    assert len(records.due(keys, now_ms=now)) == sum(when <= now for when in times)


def test_binary_answers_are_shown_as_base64_and_cut_ones_not_at_all() -> None:
    record = records.new_record(request(), now_ms=0)
    binary = records.ended(record, now_ms=1, keep_s=1, response=Response(200, b"", b"\xff", 1))
    assert records.view(binary)["response"]["body_base64"] == "/w=="
    cut = records.ended(record, now_ms=1, keep_s=1, response=Response(200, b"", b"", 10**7))
    assert "body" not in records.view(cut)["response"]
    assert "10000000 bytes" in records.view(cut)["response"]["body_too_long"]
