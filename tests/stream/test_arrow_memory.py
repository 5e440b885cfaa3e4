"""Which allocator Arrow has."""

from __future__ import annotations

import pyarrow as pa
import pytest

from headrace.stream.arrow_memory import CHOSEN, pool_of


def test_what_somebody_has_chosen_stays() -> None:
    assert pool_of({CHOSEN: "system"}) is None


@pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="this build of Arrow has no jemalloc")
def test_else_it_is_jemalloc() -> None:
    pool = pool_of({})
    assert pool is not None
    assert pool.backend_name == "jemalloc"


def test_a_build_without_it_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> pa.MemoryPool:
        raise NotImplementedError

    monkeypatch.setattr(pa, "jemalloc_memory_pool", absent)
    assert pool_of({}) is None
