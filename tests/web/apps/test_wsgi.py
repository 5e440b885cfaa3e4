"""A WSGI application and its answers, on a channel without a client."""

from __future__ import annotations

import gzip
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from headrace.http.fields import Fields
from headrace.web.apps.wsgi import ClientGone, RequestChannel, WsgiRunner
from headrace.web.apps.wsgi_environ import EnvironMaker, FileWrapper, stream
from headrace.web.ipc.frames import Request


def request(
    method: str = "GET",
    target: str = "/",
    headers: dict[bytes, bytes] | None = None,
    *,
    version: str = "1.1",
    secure: bool = False,
    peer: str = "192.0.2.1",
    server: tuple[str, int] = ("127.0.0.1", 8000),
    length: int = 0,
    root_path: str = "",
) -> Request:
    headers = {b"host": b"example.org"} | (headers or {})
    return Request(
        method, target, headers, version, secure, peer, 4000, server, b"", length, root_path, True, False, 0.0
    )


class FakeChannel(RequestChannel):
    """Keeps what is done with it. A client that leaves after `gone_after` pieces."""

    def __init__(self, *body: bytes, gone_after: int | None = None) -> None:
        self.body_in = list(body)
        self.gone_after = gone_after
        self.log: list[str] = []
        self.status = 0
        self.fields = Fields()
        self.body = b""

    def read(self) -> bytes:
        if not self.body_in:
            return b""
        piece = self.body_in.pop(0)
        if piece == b"CUT":
            raise ClientGone
        return piece

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        self.log.append("respond")
        self.status, self.fields, self.body = status, fields, body

    def start(self, status: int, fields: Fields) -> None:
        self.log.append("start")
        self.status, self.fields = status, fields

    def send(self, data: bytes) -> None:
        if self.gone_after is not None:
            if not self.gone_after:
                raise ClientGone
            self.gone_after -= 1
        assert data
        self.log.append(f"send {len(data)}")
        self.body += data

    def send_file(self, fd: int, offset: int, count: int) -> None:
        self.log.append(f"file {offset} {count}")
        self.body += os.pread(fd, count, offset)

    def finish(self) -> None:
        self.log.append("finish")

    def abort(self) -> None:
        self.log.append("abort")

    def retire(self) -> None:
        self.log.append("retire")

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.fields.pairs())


def run(
    app: Any, head: Request | None = None, *, body: bytes | None = b"", channel: FakeChannel | None = None
) -> FakeChannel:
    channel = channel or FakeChannel()
    WsgiRunner(app, multithread=True, multiprocess=True).run(head or request(), channel, body)
    return channel


def answering(
    result: Callable[[], Iterable[Any]] | Iterable[Any], *headers: tuple[str, str], status: str = "200 OK"
) -> Callable[[Any, Any], Any]:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, list(headers))
        return result() if callable(result) else result

    return app


class Closing:
    """An iterable that keeps whether it was closed."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = iter(pieces)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        self.closed += 1


PLAIN = ("Content-Type", "text/plain")

# Environ


def environ_of(head: Request) -> dict[str, Any]:
    return EnvironMaker(multithread=True, multiprocess=False).make(head, io.BytesIO(), head.length)


def test_environ_names_the_request() -> None:
    environ = environ_of(
        request(
            "POST",
            "/b%C3%BCcher/a%2Fb?q=%20x",
            {b"content-type": b"text/plain", b"content-length": b"5", b"x-a-b": b"caf\xe9"},
            length=5,
            root_path="/sh%20op",
            secure=True,
        )
    )
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/sh op",
        "PATH_INFO": "/b\xc3\xbccher/a/b",
        "QUERY_STRING": "q=%20x",
        "REQUEST_URI": "/sh%20op/b%C3%BCcher/a%2Fb?q=%20x",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_HOST": "example.org",
        "HTTP_X_A_B": "caf\xe9",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "4000",
        "wsgi.url_scheme": "https",
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {key: environ[key] for key in expected} == expected
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_environ_leaves_out_headers_that_would_pass_for_others() -> None:
    environ = environ_of(request(headers={b"x_forwarded_for": b"1", b"content_length": b"7", b"proxy": b"evil"}))
    assert not {"HTTP_X_FORWARDED_FOR", "CONTENT_LENGTH", "HTTP_CONTENT_LENGTH", "HTTP_PROXY"} & set(environ)


def test_environ_of_a_unix_socket_has_a_server_name() -> None:
    environ = environ_of(request(server=("/run/x.sock", 0), peer="unix", version="2"))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("localhost", "80", "")
    assert environ["SERVER_PROTOCOL"] == "HTTP/2.0"


def test_environ_of_an_asterisk_has_no_path() -> None:
    assert environ_of(request("OPTIONS", "*"))["PATH_INFO"] == ""


def test_environ_remembers_a_bounded_number_of_header_names() -> None:
    maker = EnvironMaker(multithread=True, multiprocess=True)
    for number in range(3_000):
        environ = maker.make(request(headers={b"x-%d" % number: b"1"}), io.BytesIO(), 0)
        assert environ[f"HTTP_X_{number}"] == "1"
    assert len(maker._keys) <= 1_024


# The body


def test_input_reads_across_pieces() -> None:
    body = stream(FakeChannel(b"ab", b"c\nde", b"f\n", b"gh"))
    assert body.read(3) == b"abc"
    assert body.readline() == b"\n"
    assert list(body) == [b"def\n", b"gh"]
    assert body.read() == body.read(5) == body.readline() == b""


def test_input_that_is_cut_raises_and_never_ends() -> None:
    body = stream(FakeChannel(b"ab", b"CUT"))
    with pytest.raises(ConnectionError):
        body.read()


def test_app_may_leave_the_body_alone() -> None:
    assert run(answering([b"x"], PLAIN), body=None, channel=FakeChannel(b"abc")).body == b"x"


def test_client_that_leaves_during_the_body_aborts() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.input"].read()
        raise AssertionError("not reached")

    assert run(app, body=None, channel=FakeChannel(b"a", b"CUT")).log == ["abort"]


# Whole answers


@pytest.mark.parametrize("pieces", [[b"hello"], (b"hello",), [b"he", b"", b"llo"]])
def test_list_is_answered_whole(pieces: Any) -> None:
    channel = run(answering(pieces, PLAIN))
    assert (channel.log, channel.status, channel.body) == (["respond"], 200, b"hello")


def test_empty_list_is_answered_whole() -> None:
    assert run(answering([], PLAIN)).log == ["respond"]


def test_iterable_that_fills_its_length_at_once_is_answered_whole_and_closed_after() -> None:
    result = Closing(b"hello", b"")
    channel = run(answering(result, PLAIN, ("Content-Length", "5")))
    assert (channel.log, channel.body, result.closed) == (["respond"], b"hello", 1)


@pytest.mark.parametrize(("streams", "log"), [(False, ["respond"]), (True, ["start", "send 2", "send 3", "finish"])])
def test_django_answer_is_whole_unless_it_streams(streams: bool, log: list[str]) -> None:
    class HttpResponse(Closing):
        streaming = streams

    result = HttpResponse(b"he", b"llo")
    channel = run(answering(result, PLAIN))
    assert (channel.log, channel.body, result.closed) == (log, b"hello", 1)


def test_generator_without_length_streams_each_piece() -> None:
    channel = run(answering(lambda: iter([b"a", b"", b"bc"]), PLAIN))
    assert channel.log == ["start", "send 1", "send 2", "finish"]


def test_generator_may_call_start_response_late() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("201 Created", [PLAIN])
        yield b"a"

    channel = run(app)
    assert (channel.status, channel.log) == (201, ["start", "send 1", "finish"])


def test_generator_without_pieces_is_answered_whole() -> None:
    assert run(answering(lambda: iter([b""]), PLAIN)).log == ["respond"]


def test_long_body_is_streamed_with_its_length() -> None:
    channel = run(answering([b"x" * 300_000], PLAIN))
    assert channel.log == ["start", "send 300000", "finish"]
    assert channel.fields.length == 300_000


def test_write_sends_at_once() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [PLAIN])
        write(b"one")
        write(b"")
        return [b"two"]

    assert run(app).log == ["start", "send 3", "send 3", "finish"]


# HEAD, 204, 304


def test_head_claims_the_length_and_sends_nothing() -> None:
    channel = run(answering([b"hello"], PLAIN), request("HEAD"))
    assert (channel.log, channel.fields.length, channel.body) == (["respond"], 5, b"")


def test_head_keeps_the_length_that_the_app_gave() -> None:
    channel = run(answering([], PLAIN, ("Content-Length", "99")), request("HEAD"))
    assert (channel.log, channel.fields.length) == (["respond"], 99)


def test_head_of_a_generator_is_not_run_to_its_end() -> None:
    result = Closing(b"a", b"b", b"c")
    channel = run(answering(result, PLAIN), request("HEAD"))
    assert channel.log == ["start", "finish"]
    assert list(result.pieces) == [b"b", b"c"]
    assert result.closed == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_body_have_none(status: str) -> None:
    channel = run(answering([b"oops"], status=status))
    assert (channel.body, channel.fields.length, channel.log) == (b"", None, ["start", "finish"])


def test_error_after_a_bodiless_status_has_a_body() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("204 No Content", [])
        try:
            raise ValueError
        except ValueError:
            import sys

            start_response("500 Oh", [PLAIN], sys.exc_info())
        return [b"oh"]

    channel = run(app)
    assert (channel.status, channel.body) == (500, b"oh")


# start_response


def test_start_response_twice_is_an_error() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return [b""]

    assert run(app).status == 500


def test_exc_info_after_the_first_piece_is_raised_again() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        import sys

        start_response("200 OK", [PLAIN])
        yield b"a"
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Oh", [PLAIN], sys.exc_info())
        yield b"never"

    assert run(app).log == ["start", "send 1", "abort"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", [("X", "a\r\nSet-Cookie: x")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "a\0b")]),
        ("200 OK", [("X Y", "a")]),
        ("200 OK", [("X\r\n", "a")]),
        ("200 OK", [("X", "\u20ac")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1"), ("Content-Length", "2")]),
        ("200 OK\r\nX: y", []),
        ("100 Continue", []),
        ("2000", []),
        ("OK", []),
        ("", []),
    ],
)
def test_what_would_break_the_answer_is_raised_into_the_app(status: str, headers: list[tuple[str, str]]) -> None:
    seen: list[Exception] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            start_response(status, headers)
        except Exception as error:
            seen.append(error)
            raise
        return [b""]

    assert run(app).status == 500
    assert seen


def test_status_needs_no_words() -> None:
    assert run(answering([b"x"], status="404")).status == 404


def test_hop_by_hop_headers_are_dropped() -> None:
    channel = run(answering([b"x"], ("Transfer-Encoding", "chunked"), ("Connection", "close"), PLAIN))
    assert (list(channel.headers), channel.fields.close) == ([b"content-type"], True)


# Lengths


def test_too_short_whole_body_is_500() -> None:
    assert run(answering([b"abc"], ("Content-Length", "5"))).status == 500


def test_too_short_stream_is_aborted() -> None:
    assert run(answering(lambda: iter([b"abc"]), ("Content-Length", "5"))).log == ["start", "send 3", "abort"]


def test_too_long_stream_is_cut_at_its_length(caplog: pytest.LogCaptureFixture) -> None:
    channel = run(answering(lambda: iter([b"abc", b"def"]), ("Content-Length", "5")))
    assert (channel.log, channel.body) == (["start", "send 3", "send 2", "finish"], b"abcde")
    assert "1 bytes longer" in caplog.text


def test_too_long_after_a_whole_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    channel = run(answering(Closing(b"abcde", b"f"), ("Content-Length", "5")))
    assert (channel.log, channel.body) == (["respond"], b"abcde")
    assert "longer" in caplog.text


# What goes wrong


def test_app_that_raises_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise ValueError("secret of the app")

    channel = run(app, request(target="/x?token=1"))
    assert (channel.status, channel.log) == (500, ["respond"])
    assert b"secret" not in channel.body
    (record,) = caplog.records
    assert vars(record)["action"] == "web.app.failed"
    assert vars(record)["path"] == "/x"


def test_app_that_exits_does_not_take_the_thread_along() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise SystemExit(1)

    assert run(app).status == 500


def test_generator_that_raises_before_its_first_piece_is_500() -> None:
    def pieces() -> Iterator[bytes]:
        raise ValueError
        yield b""

    assert run(answering(pieces, PLAIN)).log == ["respond"]


def test_generator_that_raises_later_is_aborted_and_closed() -> None:
    result = Closing()

    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise ValueError

    result.pieces = pieces()
    assert run(answering(result, PLAIN)).log == ["start", "send 1", "abort"]
    assert result.closed == 1


def test_close_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Closing):
        def close(self) -> None:
            raise ValueError("too late")

    assert run(answering(Broken(b"a"), PLAIN)).log == ["start", "send 1", "finish"]
    assert "too late" in caplog.text


def test_client_that_leaves_stops_the_iteration() -> None:
    result = Closing(b"a", b"b", b"c")
    channel = run(answering(result, PLAIN), channel=FakeChannel(gone_after=1))
    assert channel.log == ["start", "send 1", "abort"]
    assert (list(result.pieces), result.closed) == ([b"c"], 1)


@pytest.mark.parametrize("result", [["text"], [b"a", "b"], iter(["text"]), iter([b"a", "b"]), [None], None, 7])
def test_bodies_that_are_not_bytes_are_refused(result: Any) -> None:
    channel = run(answering(lambda: result, PLAIN))
    assert channel.status == 500 or channel.log[-1] == "abort"


def test_app_that_never_calls_start_response_is_500() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        return [b"x"]

    assert run(app).status == 500


def test_500_to_head_has_no_body() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise ValueError

    channel = run(app, request("HEAD"))
    assert (channel.status, channel.body) == (500, b"")
    assert channel.fields.length


def test_slow_work_after_the_answer_is_told_to_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("headrace.web.apps.wsgi.time.perf_counter", lambda: now[0])

    class Slow(Closing):
        def close(self) -> None:
            now[0] += 1.0

    runner = WsgiRunner(
        answering(lambda: Slow(b"a"), PLAIN, ("Content-Length", "1")), multithread=True, multiprocess=True
    )
    logs = []
    for _ in range(2):
        channel = FakeChannel()
        runner.run(request(), channel, b"")
        logs.append(channel.log)
    assert logs == [["respond"], ["retire", "respond"]]


# Files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1_000)
    return tmp_path / "file"


def sending(make: Callable[[], Any], *headers: tuple[str, str]) -> Callable[[Any, Any], Any]:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(headers))
        return environ["wsgi.file_wrapper"](make(), 8_192)

    return app


def test_file_goes_by_descriptor_from_its_position(path: Path) -> None:
    def opened() -> Any:
        file = path.open("rb")
        file.seek(100)
        file.read(1)  # which fills the buffer, far beyond
        return file

    channel = run(sending(opened))
    assert channel.log == ["start", "file 101 255899", "finish"]
    assert channel.body == path.read_bytes()[101:]
    assert channel.fields.length == 255_899


def test_file_ends_at_the_content_length(path: Path) -> None:
    channel = run(sending(lambda: path.open("rb"), ("Content-Length", "100000")))
    assert channel.log == ["start", "file 0 100000", "finish"]


def test_file_shorter_than_its_content_length_is_500(path: Path) -> None:
    assert run(sending(lambda: path.open("rb"), ("Content-Length", "300000"))).status == 500


def test_small_file_is_answered_whole(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    channel = run(sending(lambda: (tmp_path / "small").open("rb")))
    assert (channel.log, channel.body) == (["respond"], b"abc")


def test_head_of_a_file_has_its_length(path: Path) -> None:
    channel = run(sending(lambda: path.open("rb")), request("HEAD"))
    assert (channel.log, channel.fields.length) == (["respond"], 256_000)


def test_file_that_was_written_is_flushed() -> None:
    def written() -> Any:
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(b"x" * 100_000)
        file.flush()
        file.seek(0)
        file.seek(90_000)
        file.write(b"y" * 20_000)
        file.seek(0)
        return file

    channel = run(sending(written))
    assert channel.log == ["start", "file 0 110000", "finish"]
    assert channel.body == b"x" * 90_000 + b"y" * 20_000


def test_files_that_are_something_else_inside_are_read(path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(os.urandom(100_000), 1))
    for make in (lambda: gzip.open(packed), lambda: io.BytesIO(b"x" * 100_000)):  # noqa: SIM115 - the server closes them
        channel = run(sending(make))
        assert channel.log[0] == "start"
        assert not any(entry.startswith("file") for entry in channel.log)
        assert len(channel.body) == 100_000


def test_pipe_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    assert run(sending(lambda: os.fdopen(reading, "rb"))).body == b"abc"


def test_file_wrapper_closes_the_file(path: Path) -> None:
    files = []

    def opened() -> Any:
        files.append(path.open("rb"))
        return files[0]

    run(sending(opened))
    assert files[0].closed


def test_file_wrapper_wraps_what_has_no_close() -> None:
    class Bare:
        def __init__(self) -> None:
            self.parts = [b"a", b"b", b""]

        def read(self, size: int) -> bytes:
            return self.parts.pop(0)

    wrapper = FileWrapper(Bare(), 1)
    assert not hasattr(wrapper, "close")
    assert list(wrapper) == [b"a", b"b"]


# The judge of the library


def validated(environ: Any, start_response: Any) -> Any:
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(3) + b"".join(environ["wsgi.input"])
    else:
        body = b"hello"
    print("a line", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


@pytest.mark.parametrize("head", [request(), request("HEAD"), request(target="/%C3%A4?x=1", root_path="/m")])
def test_validator_has_nothing_to_say(head: Request, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headrace.web"):
        channel = run(validator(validated), head)
    assert channel.status == 200
    assert [record.getMessage() for record in caplog.records] == ["a line"]


def test_validator_has_nothing_to_say_of_a_body() -> None:
    head = request("POST", headers={b"content-length": b"8"}, length=8)
    assert run(validator(validated), head, body=None, channel=FakeChannel(b"ab\n", b"cd\nef")).body == b"ab\ncd\nef"
    assert run(validator(validated), head, body=b"ab\ncd\nef").body == b"ab\ncd\nef"
