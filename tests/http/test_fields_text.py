"""Header fields that an application gives as text mean what they mean as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.http.fields import FieldInvalid, Fields

NAMES = st.sampled_from(
    [
        "Content-Type",
        "content-length",
        "Date",
        "SERVER",
        "Connection",
        "Transfer-Encoding",
        "X-\u00e9",
        "X y",
        "",
        "X-A\r",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "text/plain",
            "5",
            "05",
            "close",
            "a\tb",
            "caf\u00e9",
            "\x80",
            "\u20ac",
            "a\r\nb",
            "\x7f",
            "",
            "\x00",
            "\u0665",
        ]
    ),
    st.text(max_size=5),
)


def said(make: object, pairs: object) -> object:
    try:
        fields = make(pairs)  # type: ignore[operator]  # one of two constructors
    except (FieldInvalid, UnicodeEncodeError):
        return "refused"
    return fields.block, fields.length, fields.dated, fields.served, fields.close


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_text_is_treated_as_its_bytes(pairs: list[tuple[str, str]]) -> None:
    as_bytes = said(lambda pairs: Fields.of([(n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs]), pairs)
    assert said(Fields.of_text, pairs) == as_bytes


@pytest.mark.parametrize(
    "pair", [("X", 5), ("X", b"5"), ("X", None), (b"X", "5"), (5, "5"), ("X", "a\r\nSet-Cookie: b"), ("X", "\n")]
)
def test_what_is_no_text_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(FieldInvalid):
        Fields.of_text([pair])
