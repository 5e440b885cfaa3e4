"""A receipt names one receive of one message of one store, and nothing else passes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ReceiptInvalid
from headrace.queue.receipts import SIZE_BYTES, Receipts

KEYS = st.integers(0, 2**64 - 1)
COUNTS = st.integers(0, 2**32 - 1)

receipts = Receipts(bytes(32))


@given(KEYS, COUNTS)
def test_receipt_reads_as_it_was_minted(key: int, receives: int) -> None:
    receipt = receipts.mint(key, receives)
    assert len(receipt) == SIZE_BYTES
    assert receipts.read(receipt) == (key, receives)


@given(KEYS, COUNTS)
def test_receipt_is_the_same_on_every_node_and_after_a_restart(key: int, receives: int) -> None:
    assert Receipts(bytes(32)).mint(key, receives) == receipts.mint(key, receives)


@given(KEYS, COUNTS)
def test_another_stores_receipt_is_invalid(key: int, receives: int) -> None:
    with pytest.raises(ReceiptInvalid):
        receipts.read(Receipts(b"\1" * 32).mint(key, receives))


@given(KEYS, COUNTS, st.integers(0, SIZE_BYTES - 1), st.integers(1, 255))
def test_receipt_with_any_byte_changed_is_invalid(key: int, receives: int, place: int, change: int) -> None:
    forged = bytearray(receipts.mint(key, receives))
    forged[place] ^= change
    with pytest.raises(ReceiptInvalid):
        receipts.read(bytes(forged))


@given(st.tuples(KEYS, COUNTS), st.tuples(KEYS, COUNTS))
def test_receipt_with_anothers_mac_is_invalid(one: tuple[int, int], other: tuple[int, int]) -> None:
    mixed = receipts.mint(*one)[:12] + receipts.mint(*other)[12:]
    if one == other:
        assert receipts.read(mixed) == one
    else:
        with pytest.raises(ReceiptInvalid):
            receipts.read(mixed)


@given(st.binary(max_size=2 * SIZE_BYTES))
def test_other_bytes_are_invalid(junk: bytes) -> None:
    with pytest.raises(ReceiptInvalid):
        receipts.read(junk)


@given(KEYS, COUNTS, st.binary(min_size=1, max_size=8))
def test_receipt_cut_or_lengthened_is_invalid(key: int, receives: int, more: bytes) -> None:
    receipt = receipts.mint(key, receives)
    for wrong in (receipt[:-1], receipt[1:], receipt + more, more + receipt):
        with pytest.raises(ReceiptInvalid):
            receipts.read(wrong)


@given(KEYS, COUNTS)
def test_key_can_be_read_before_the_receipt_is_verified(key: int, receives: int) -> None:
    assert receipts.seen(receipts.mint(key, receives)) == key


@given(st.binary(max_size=2 * SIZE_BYTES).filter(lambda junk: len(junk) != SIZE_BYTES))
def test_what_cannot_be_a_receipt_names_no_message(junk: bytes) -> None:
    assert receipts.seen(junk) == 0
