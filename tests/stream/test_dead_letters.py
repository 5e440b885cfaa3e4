from __future__ import annotations

import base64
import json

import pytest

from headrace.queue.limits import MESSAGE_BYTES_MAX
from headrace.stream.dead_letters import BODY_BYTES_MAX, dead_letter
from headrace.stream.sources.base import Dead


def letter(body: bytes) -> dict[str, object]:
    entry = dead_letter(Dead(body, "no JSON", "m-1", "flights", "clean"), pipeline="delays")
    assert len(entry.body) <= MESSAGE_BYTES_MAX
    found: dict[str, object] = json.loads(entry.body)
    return found


def test_letter_tells_what_why_and_where() -> None:
    assert letter("é{".encode()) == {
        "pipeline": "delays",
        "source": "flights",
        "step": "clean",
        "reason": "no JSON",
        "message_id": "m-1",
        "body": "é{",
    }


def test_body_that_is_no_text_is_base64() -> None:
    assert base64.b64decode(str(letter(b"\xff\x00")["body_base64"])) == b"\xff\x00"


@pytest.mark.parametrize("byte", [b"x", b"\xff", b"\x01", b'"'])
def test_longest_body_fits_into_a_message(byte: bytes) -> None:
    found = letter(byte * MESSAGE_BYTES_MAX)
    assert found["body_size_bytes"] == MESSAGE_BYTES_MAX
    text = found.get("body") or base64.b64decode(str(found["body_base64"])).decode("latin-1")
    assert len(str(text)) == BODY_BYTES_MAX


def test_cut_through_a_letter_is_no_error() -> None:
    assert "body_base64" in letter(b"x" + "é".encode() * BODY_BYTES_MAX)
