from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.web.server import control
from headrace.web.server.control import (
    BlockingControlChannel,
    ControlChannel,
    MalformedMessage,
    Message,
    MessageDecoder,
    encode,
)

MESSAGES: tuple[Message, ...] = (
    control.Hello("worker", 12, 3, 1),
    control.Ready("wsgi"),
    control.Failed("no module shop"),
    control.Serving(),
    control.Exited(3, -9),
    control.Report(1, 2, 3, b"\x00\xff"),
    control.Retire("old"),
    control.RequestTimedOut(12),
    control.Applied(),
    control.Boot(b"{}", ["a:app"], [["/x"]], [3, 4], 2, shared=True),
    control.Serve(),
    control.Fork(3, 0),
    control.Kill(3),
    control.Leave(2.5),
    control.Apply(b"{}", ["a:app"], [["/x"]], switch=True),
    control.ShuttingDown(),
    control.Reopen(),
)


@given(st.lists(st.sampled_from(MESSAGES)), st.data())
def test_messages_survive_any_cut(messages: list[Message], data: st.DataObject) -> None:
    stream, whole = MessageDecoder(), b"".join(map(encode, messages))
    found: list[Message] = []
    while whole:
        cut = data.draw(st.integers(1, len(whole)))
        found += stream.feed(whole[:cut])
        whole = whole[cut:]
    assert found == messages


@given(st.binary(max_size=64))
@example(b"\x81\xa4type\xa5Ser\xffe")  # a text that is none
def test_what_is_no_message_is_malformed(data: bytes) -> None:
    try:
        for message in MessageDecoder().feed(struct.pack("<I", len(data)) + data):
            assert isinstance(message, msgspec.Struct)
    except MalformedMessage:
        return


def test_a_message_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedMessage, match="4294967295 bytes"):
        list(MessageDecoder().feed(b"\xff\xff\xff\xff"))


def test_both_kinds_of_ends_understand_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[Message | None] = asyncio.Queue()

        def answer(channel: ControlChannel, message: Message) -> None:
            heard.put_nowait(message)
            channel.send(control.Serve())

        def make() -> ControlChannel:
            return ControlChannel(on_message=answer, on_lost=lambda _: heard.put_nowait(None))

        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(make, str(tmp_path / "c"))
        other = await loop.run_in_executor(None, BlockingControlChannel, tmp_path / "c")
        other.send(control.Hello("fork_server", 1, 1))
        assert await heard.get() == control.Hello("fork_server", 1, 1)
        assert await loop.run_in_executor(None, other.receive) == control.Serve()
        other.close()
        assert await heard.get() is None
        server.close()

    asyncio.run(scenario())


def test_an_end_learns_that_the_other_is_gone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "c"))
        listening.listen()
        channel = BlockingControlChannel(tmp_path / "c")
        other, _ = listening.accept()
        other.close()
        assert channel.read() is None
        assert channel.lost
        channel.send(control.Serving())
        channel.close()
