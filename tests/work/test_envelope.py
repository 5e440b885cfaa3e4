"""The envelope: readable JSON, that says no more than it must, and takes what a newer sender adds."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.work import envelope as envelopes
from headrace.work import limits
from headrace.work.envelope import Envelope, Unique, decode, encode, new_id
from headrace.work.errors import EnvelopeInvalid
from headrace.work.outcome import ErrorInfo

PLAIN = Envelope("shop.mail.send", "0193", msgspec.Raw(b'{"to":"a@b.c"}'))


def test_an_envelope_says_only_what_differs_from_the_defaults() -> None:
    assert json.loads(encode(PLAIN)) == {"task": "shop.mail.send", "id": "0193", "args": {"to": "a@b.c"}}


def test_an_envelope_comes_back_as_it_was_written() -> None:
    rich = msgspec.structs.replace(PLAIN, attempt=2, unique=Unique("k"), expires_ms=7, result_ttl_s=1.5, group="g")
    rich = rich.with_failure(ErrorInfo("ValueError", "no", "Traceback"), at_ms=5, worker="w")
    back = decode(encode(rich))
    assert bytes(back.args) == bytes(rich.args)
    assert msgspec.structs.replace(back, args=rich.args) == rich


def test_fields_of_a_newer_sender_are_ignored() -> None:
    assert decode(b'{"task":"t","id":"1","args":{},"colour":"red"}').task == "t"


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b'{"task":"t"}', b'{"task":1,"id":"1","args":{}}', b"\xff"])
def test_another_body_is_no_envelope(body: bytes) -> None:
    with pytest.raises(EnvelopeInvalid, match="the message is not a task"):
        decode(body)


@given(st.binary())
def test_only_its_own_error_escapes_from_any_bytes(body: bytes) -> None:
    try:
        decode(body)
    except EnvelopeInvalid:
        return


def test_history_keeps_the_newest_attempts() -> None:
    envelope = PLAIN
    for number in range(25):
        envelope = envelope.with_failure(ErrorInfo("E", str(number)), at_ms=number)
    assert envelope.attempt == 25
    assert [entry.attempt for entry in envelope.history] == list(range(16, 26))
    assert len(envelope.history) == limits.HISTORY_MAX


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_id(now_ms) for now_ms in range(1_000_000, 1_000_300)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 300
    assert {len(one) for one in ids} == {32}
    assert len({new_id(5) for _ in range(1_000)}) == 1_000


def test_an_envelope_that_grew_too_long_gives_up_its_tracebacks_then_its_history() -> None:
    long = PLAIN
    for number in range(10):
        long = long.with_failure(ErrorInfo("E", "m" * 1_000, "t" * 4_096), at_ms=number)
    room = msgspec.structs.replace(long, args=msgspec.Raw(b'{"x":"' + b"x" * (envelopes.BYTES_MAX - 30_000) + b'"}'))
    full = msgspec.structs.replace(long, args=msgspec.Raw(b'{"x":"' + b"x" * (envelopes.BYTES_MAX - 5_000) + b'"}'))
    assert [entry.traceback for entry in decode(encode(room)).history] == [""] * 10
    assert decode(encode(full)).history == ()
    assert decode(encode(full)).attempt == 10
