from __future__ import annotations

from collections.abc import Sequence

import pytest

import headrace
from headrace.queue import operations as ops
from headrace.stream import limits
from headrace.stream.runner.store import scan


@pytest.mark.parametrize("size_bytes", [0, 10, 5_000])
def test_state_is_read_in_pages_of_about_so_many_bytes(
    client: headrace.Client, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    monkeypatch.setattr(limits, "SCAN_BYTES", 20_000)
    stored: list[tuple[bytes, bytes]] = [(b"a%04d" % number, b"x" * size_bytes) for number in range(100)]
    with client.transact("s") as tx:
        for key, value in [*stored, (b"b", b"")]:
            tx.put(key, value)
    pages: list[Sequence[tuple[bytes, bytes]]] = []

    def call(operation: ops.GetState) -> Sequence[tuple[bytes, bytes]]:
        pages.append(client.call(operation))
        return pages[-1]

    assert list(scan(call, "s", b"a")) == stored
    assert all(sum(len(value) for _, value in page) <= 20_000 for page in pages[1:])
    assert len(pages) <= 26
