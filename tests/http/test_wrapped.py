"""A wrapper is the exchange that it wraps."""

from __future__ import annotations

from headrace.http.exchange import ANSWERING, Exchange
from headrace.http.fields import Fields
from headrace.http.wrapped import Wrapped
from tests.http.fake_exchange import FakeExchange


def test_wrapper_has_no_state_of_its_own() -> None:
    inner = FakeExchange("/path?q", {b"host": b"h"})
    outer = Wrapped(Wrapped(inner))
    for name in Exchange.__slots__:
        if name != "on_done":
            assert getattr(outer, name) == getattr(inner, name)
    outer.route, outer.priority, outer.waited_s = "r", 2, 1.5
    assert (inner.route, inner.priority, inner.waited_s) == ("r", 2, 1.5)
    inner.received = b"body"
    assert outer.take() == b"body" and outer.ended
    outer.inform(103, Fields())
    assert inner.informed == [103]
    outer.start(200, Fields())
    outer.send(b"12345")
    assert (inner.stage, inner.sent_bytes, inner.body) == (ANSWERING, 5, b"12345")
    told: list[int] = []
    outer.notify = lambda: told.append(1)
    inner.lost()
    assert outer.gone and told == [1] and outer.writable
    outer.send(b"more")
    outer.finish()
    outer.abort()
    assert inner.body == b"12345" and not inner.done


def test_wrapper_aborts_and_tunnels_through() -> None:
    inner = FakeExchange("/")
    inner.upgrade = b"websocket"
    done: list[Exchange] = []
    outer = Wrapped(inner)
    outer.on_done = done.append
    outer.tunnel(Fields())
    outer.send(b"raw")
    assert inner.status == 101 and inner.body == b"raw"
    outer.abort()
    assert inner.gone and done == [inner]
