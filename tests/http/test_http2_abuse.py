"""HTTP/2 clients that want to cost more than they pay: bounded in time and memory, and the others go on."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TypeAlias

import pytest

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.h2_budget import CONTROL_FRAMES_MAX, CUT_STREAMS_MAX, UPDATES_MAX, Budget
from headrace.http.h2_frames import Code
from headrace.http.h2_protocol import STREAMS_MAX
from headrace.http.limits import Limits
from tests.http import h2_frames as frames
from tests.http.h2_frames import frame
from tests.http.h2_support import PLAIN, Pair, RawClient, request_head
from tests.http.support import on_loop

Flood: TypeAlias = Callable[[RawClient, int], bytes]
UPLOAD = request_head(b"POST", b"/up")


def hello(exchange: Exchange) -> None:
    exchange.respond(200, PLAIN, b"hello")


def ended(client: RawClient) -> bool:
    return client.transport.eof_written or client.transport.closed


def flood(client: RawClient, build: Flood, *, most: int) -> int:
    """Send what `build` makes of 0, 1, … until the server has enough; returns how many it took."""
    for number in range(most):
        if ended(client):
            return number
        client.connection.data_received(build(client, number))
    return most


CONTROL: list[tuple[str, Flood]] = [
    ("ping", lambda c, n: frame(frames.PING, 0, 0, bytes(8))),
    ("ping acknowledgements", lambda c, n: frame(frames.PING, frames.ACK, 0, bytes(8))),
    ("settings", lambda c, n: frames.settings({4: 65_535 + n})),
    ("empty settings", lambda c, n: frames.settings({})),
    ("settings acknowledgements", lambda c, n: frames.SETTINGS_ACK),
    ("priority", lambda c, n: frame(frames.PRIORITY, 0, 2 * n + 1, bytes(5))),
    ("unknown frames", lambda c, n: frame(0xEE, 0, n, b"x")),
    ("empty data", lambda c, n: frame(frames.DATA, 0, 1)),
    ("empty padded data", lambda c, n: frame(frames.DATA, frames.PADDED, 1, b"\x01\x00")),
    ("resets of a closed stream", lambda c, n: frames.reset(3, Code.CANCEL)),
    ("goaway", lambda c, n: frames.goaway(0, Code.NO_ERROR)),
]


@pytest.mark.parametrize("build", [case[1] for case in CONTROL], ids=[case[0] for case in CONTROL])
@on_loop
async def test_flood_of_frames_that_ask_for_nothing_is_ended(build: Flood) -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False) + client.head(3) + frames.reset(3, Code.CANCEL))
    taken = flood(client, build, most=5 * CONTROL_FRAMES_MAX)
    assert CONTROL_FRAMES_MAX - 10 < taken < CONTROL_FRAMES_MAX + 10
    assert client.goaway() is Code.ENHANCE_YOUR_CALM
    assert client.exchanges[0].gone


@pytest.mark.parametrize("build", [case[1] for case in CONTROL], ids=[case[0] for case in CONTROL])
@on_loop
async def test_flood_in_one_packet_is_ended_where_the_budget_ends(build: Flood) -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False) + client.head(3) + frames.reset(3, Code.CANCEL))
    client.feed(b"".join([build(client, number) for number in range(10 * CONTROL_FRAMES_MAX)]))
    assert client.goaway() is Code.ENHANCE_YOUR_CALM
    assert len(client.received) < CONTROL_FRAMES_MAX + 20


@on_loop
async def test_moderate_pings_are_answered_for_ever() -> None:
    client = RawClient()
    for _ in range(20):
        client.feed(frame(frames.PING, 0, 0, bytes(8)) * 150)
        client.advance(1)
        client.feed(client.head(2 * client.service.requests + 1))
    assert not ended(client)


@on_loop
async def test_flood_of_window_updates_is_ended() -> None:
    client = RawClient()
    client.feed(client.head(1))
    taken = flood(client, lambda c, n: frames.window_update(1, 1), most=2 * UPDATES_MAX)
    assert taken == UPDATES_MAX + 1 and client.goaway() is Code.ENHANCE_YOUR_CALM


# Streams that are opened to be thrown away


@on_loop
async def test_rapid_reset_reaches_nobody_and_is_ended() -> None:
    client = RawClient()
    taken = flood(client, lambda c, n: c.head(2 * n + 1) + frames.reset(2 * n + 1, Code.CANCEL), most=5_000)
    assert taken == CUT_STREAMS_MAX + 1 and client.goaway() is Code.ENHANCE_YOUR_CALM
    assert client.exchanges == [], "cancelled in the same packet"


@on_loop
async def test_rapid_reset_in_packets_of_its_own_is_ended() -> None:
    client = RawClient()

    def build(client: RawClient, number: int) -> bytes:
        client.connection.data_received(client.head(2 * number + 1))
        return frames.reset(2 * number + 1, Code.CANCEL)

    taken = flood(client, build, most=5_000)
    assert taken == CUT_STREAMS_MAX + 1 and client.goaway() is Code.ENHANCE_YOUR_CALM
    assert all(exchange.gone for exchange in client.exchanges)


MADE_YOU_RESET: list[tuple[str, Flood]] = [
    ("window overflow", lambda c, n: c.head(2 * n + 1) + frames.window_update(2 * n + 1, 2**31 - 1)),
    ("data after the end", lambda c, n: c.head(2 * n + 1) + frame(frames.DATA, 1, 2 * n + 1, b"x")),
    ("headers after the end", lambda c, n: c.head(2 * n + 1) + c.head(2 * n + 1)),
    ("malformed", lambda c, n: c.head(2 * n + 1, [*request_head(), (b"A", b"b")])),
]


@pytest.mark.parametrize("build", [case[1] for case in MADE_YOU_RESET], ids=[case[0] for case in MADE_YOU_RESET])
@on_loop
async def test_made_you_reset_is_ended(build: Flood) -> None:
    client = RawClient()
    taken = flood(client, build, most=5_000)
    assert taken <= CUT_STREAMS_MAX + 1 and client.goaway() is Code.ENHANCE_YOUR_CALM
    assert client.connection.streams == {}


@on_loop
async def test_too_many_streams_are_refused_then_ended() -> None:
    client = RawClient()
    taken = flood(client, lambda c, n: c.head(2 * n + 1), most=5_000)
    assert taken == STREAMS_MAX + CUT_STREAMS_MAX + 1 and client.goaway() is Code.ENHANCE_YOUR_CALM
    assert len(client.exchanges) == STREAMS_MAX


@on_loop
async def test_data_on_closed_streams_is_ended_and_remembered_streams_are_few() -> None:
    client = RawClient(hello)
    for number in range(500):
        client.feed(client.head(2 * number + 1))
    taken = flood(client, lambda c, n: frame(frames.DATA, 0, 1, b"x"), most=5_000)
    assert taken <= CONTROL_FRAMES_MAX and ended(client)
    assert len(client.connection._h2._closed_streams) <= 256


# Header blocks


@on_loop
async def test_continuations_without_end_are_ended() -> None:
    client = RawClient()
    client.feed(frame(frames.HEADERS, 0, 1, bytes(16_000)))
    taken = flood(client, lambda c, n: frame(frames.CONTINUATION, 0, 1, bytes(16_000)), most=100)
    assert taken < 6 and client.goaway() is Code.ENHANCE_YOUR_CALM


@on_loop
async def test_empty_continuations_without_end_are_ended() -> None:
    client = RawClient()
    client.feed(frame(frames.HEADERS, 0, 1, b"\x82"))
    taken = flood(client, lambda c, n: frame(frames.CONTINUATION, 0, 1), most=5_000)
    assert taken < 100 and client.goaway() is Code.PROTOCOL_ERROR


@on_loop
async def test_hpack_bomb_is_ended_before_it_unfolds() -> None:
    client = RawClient()
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4_000  # into the table: 4,000 bytes under the name a
    client.feed(frame(frames.HEADERS, 5, 1, client.encoder.encode(request_head(), huffman=False) + entry))
    assert client.goaway() is None
    client.feed(frame(frames.HEADERS, 5, 3, b"\xbe" * 16_000))  # 16,000 times that entry: 64 MB
    assert client.goaway() is Code.ENHANCE_YOUR_CALM
    assert len(client.exchanges) == 1


@on_loop
async def test_bomb_within_what_is_decoded_is_431_for_its_stream() -> None:
    client = RawClient(hello)
    big: list[Pair] = [(b"a", b"x" * 3_000)]
    client.feed(client.head(1, [*request_head(), *big * 12]))
    assert client.statuses == {1: 431} and client.alive()


@on_loop
async def test_cookie_crumbs_are_counted() -> None:
    client = RawClient(hello)
    client.feed(client.head(1, [*request_head(), *[(b"cookie", b"a=b")] * 3_000][:200]))
    assert client.statuses == {1: 431} and client.alive()


@on_loop
async def test_encoders_table_is_bounded_however_large_the_client_wants_it() -> None:
    names = Fields.of([(b"x-request-id", os.urandom(16).hex().encode())])
    client = RawClient(lambda exchange: exchange.respond(200, names, b"x"))
    client.decoder.max_allowed_table_size = 2**32 - 1
    client.feed(frames.settings({frames.SETTING_HEADER_TABLE_SIZE: 2**32 - 1}))
    for number in range(200):
        client.feed(client.head(2 * number + 1))
    assert len(client.statuses) == 200 and client.decoder.header_table_size == 4_096
    assert client.connection._h2.encoder.header_table_size == 4_096


# Windows


@on_loop
async def test_windows_held_shut_cost_a_bounded_answer_and_a_bounded_time() -> None:
    produced: list[int] = [0]

    def stream(exchange: Exchange) -> None:
        def go() -> None:
            while exchange.writable and not exchange.gone:
                exchange.send(bytes(16_384))
                produced[0] += 16_384

        exchange.start(200, PLAIN)
        exchange.notify = go
        go()

    client = RawClient(stream)
    client.feed(frames.settings({4: 0}))
    client.feed(b"".join([client.head(2 * number + 1) for number in range(30)]))
    await client.turn()
    assert produced[0] <= 30 * 81_920
    client.advance(25)
    await client.turn()
    assert client.connection.streams == {}
    assert client.reset(1) is Code.CANCEL


@on_loop
async def test_window_opened_a_byte_at_a_time_is_too_slow() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, bytes(100_000)))
    client.feed(frames.settings({4: 1}) + client.head(1))
    for _ in range(25):
        client.advance(1)
        if client.connection.streams:
            client.feed(frames.window_update(1, 1))
        await client.turn()
    assert client.reset(1) is Code.CANCEL
    assert len(client.body(1)) < 50


@on_loop
async def test_streams_reset_while_the_connections_window_is_shut_are_forgotten() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, bytes(70_000)))
    for number in range(300):
        client.feed(client.head(2 * number + 1))
        await client.turn()
        client.feed(frames.reset(2 * number + 1, Code.CANCEL))
    await client.turn()
    sender = client.connection.sender
    assert client.connection.streams == {} and not sender._starved and not sender._ready


@on_loop
async def test_initial_window_changed_back_and_forth_is_bounded_and_exact() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, bytes(100_000)))
    client.feed(frames.settings({4: 0}) + client.head(1))
    for _ in range(100):
        client.feed(frames.settings({4: 1_000}) + frames.settings({4: 0}))
        await client.turn()
    assert len(client.body(1)) <= 1_000


# What is buffered


@on_loop
async def test_bodies_that_nobody_takes_are_bounded_by_the_windows() -> None:
    client = RawClient(limits=Limits(body_bytes=1 << 30))
    client.feed(b"".join([client.head(2 * number + 1, UPLOAD, end=False) for number in range(20)]))
    await client.turn()
    taken = flood(client, lambda c, n: frame(frames.DATA, 0, 2 * (n % 20) + 1, bytes(16_384)), most=1_000)
    assert taken <= 65 and client.goaway() is Code.FLOW_CONTROL_ERROR


@on_loop
async def test_one_byte_frames_do_not_multiply_in_memory() -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False))
    client.feed(frame(frames.DATA, 0, 1, b"x") * 10_000)
    exchange = client.exchanges[0]
    assert len(exchange.take()) == 10_000 and client.alive()


@on_loop
async def test_random_frames_end_in_nothing_but_declared_faults() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        client = RawClient(hello)
        for _ in range(40):
            if ended(client):
                break
            payload = chance.choice(
                [b"", client.encoder.encode(request_head()), chance.randbytes(chance.randrange(40))]
            )
            stream = chance.choice([0, 1, 1, 2, 3, 5, 7, 9, 2**31 - 1])
            client.connection.data_received(
                frame(chance.randrange(12), chance.choice([0, 1, 4, 5, 8, 0x20, 0xFF]), stream, payload)
            )
        client.collect()
        client.connection.connection_lost(None)
        assert client.connection.streams == {}, seed


def conversation(client: RawClient, chance: random.Random) -> bytearray:
    """A client's side of a lively connection, with a few bytes of it changed."""
    sent = frames.PREFACE + frames.settings({4: chance.choice([0, 1, 65_535, 2**31 - 1])})
    for number in range(chance.randrange(1, 12)):
        stream = chance.choice([1, 3, 5])
        length = [(b"content-length", b"5")] if chance.random() < 0.3 else []
        method = chance.choice([b"GET", b"POST", b"HEAD"])
        sent += chance.choice(
            [
                client.head(2 * number + 1, request_head(method, b"/x", *length), end=chance.random() < 0.5),
                frame(frames.DATA, chance.choice([0, 1, 8]), stream, chance.randbytes(chance.choice([0, 5, 300]))),
                frames.window_update(chance.choice([0, stream]), chance.choice([1, 100_000])),
                frames.reset(stream, Code.CANCEL),
                client.head(stream, [(b"t", b"v")]),
                frames.goaway(0, Code.NO_ERROR),
            ]
        )
    changed = bytearray(sent)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        changed[chance.randrange(24, len(changed))] = chance.randrange(256)
    return changed


@on_loop
async def test_changed_conversations_end_clean_however_they_are_cut() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        client = RawClient(lambda exchange: exchange.respond(200, PLAIN, b"x" * 70_000), greet=False)
        sent = conversation(client, chance)
        while sent and not client.transport.closed:
            size = chance.choice([1, 9, 50, 5_000])
            client.connection.data_received(bytes(sent[:size]))
            del sent[:size]
        await client.turn()
        client.advance(chance.choice([0, 30]))
        await client.turn()
        client.connection.connection_lost(None)
        assert client.connection.streams == {}, seed


@on_loop
async def test_noise_after_the_preface_is_survived() -> None:
    for seed in range(100):
        client = RawClient(hello)
        client.feed(random.Random(seed).randbytes(2_000))
        client.connection.connection_lost(None)
        assert client.connection.streams == {}, seed


@on_loop
async def test_after_a_fault_nothing_has_an_effect() -> None:
    client = RawClient()
    client.feed(frame(frames.DATA, 0, 0, b"x") + client.head(1))
    client.feed(client.head(3))
    assert client.exchanges == [] and client.connection.dropped_input


def test_budget_refills_to_its_most() -> None:
    budget = Budget(2, 1.0, now_s=0.0)
    assert [budget.spend(0.0) for _ in range(3)] == [True, True, False]
    assert [budget.spend(100.0) for _ in range(3)] == [True, True, False]
