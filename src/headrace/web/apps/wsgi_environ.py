"""The WSGI environ of a request (PEP 3333), with its body, error stream and file wrapper."""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

from headrace._version import __version__

Environ: TypeAlias = dict[str, Any]

_log: Final = logging.getLogger("headrace.web")
_KEYS_MAX: Final = 1_024  # header names come from clients: what they invent must not fill the memory
_PROTOCOLS: Final = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2.0"}


class RequestHead(Protocol):
    """The head of a request, from which an environ is made: an `Exchange`, or the link's `Request`. Read only."""

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def headers(self) -> Mapping[bytes, bytes]: ...
    @property
    def version(self) -> str: ...
    @property
    def secure(self) -> bool: ...
    @property
    def peer(self) -> str: ...
    @property
    def peer_port(self) -> int: ...
    @property
    def server(self) -> tuple[str, int]: ...
    @property
    def length(self) -> int: ...
    @property
    def root_path(self) -> str: ...


class EnvironMaker:
    """Makes environs for one application; one serves all threads."""

    def __init__(self, *, multithread: bool, multiprocess: bool) -> None:
        self._base: Environ = {
            "SERVER_SOFTWARE": f"headrace/{__version__}",
            "wsgi.version": (1, 0),
            "wsgi.errors": ErrorLog(),
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
        }
        self._keys: dict[bytes, str] = {b"content-type": "CONTENT_TYPE", b"content-length": "", b"proxy": ""}

    def make(self, head: RequestHead, body: io.BufferedIOBase, length: int) -> Environ:
        """The environ of a request whose body has `length` bytes; negative if it is unknown.

        Left out are headers whose names have underscores, since `X_Forwarded_For` would pass for `X-Forwarded-For`, and
        `Proxy`, since HTTP_PROXY is a setting of many HTTP clients (httpoxy).
        """
        target, root_path, peer = head.target, head.root_path, head.peer
        path, _, query = target.partition("?")
        scheme = "https" if head.secure else "http"
        host, port = _server(head.server, scheme)
        environ = self._base.copy()  # and not a display: a copy keeps the table as it is
        environ["REQUEST_METHOD"] = head.method
        environ["SCRIPT_NAME"] = _decoded(root_path) if root_path else ""
        environ["PATH_INFO"] = _decoded(path) if path != "*" else ""
        environ["QUERY_STRING"] = query
        environ["REQUEST_URI"] = environ["RAW_URI"] = root_path + target
        environ["SERVER_PROTOCOL"] = _PROTOCOLS[head.version]
        environ["SERVER_NAME"] = host
        environ["SERVER_PORT"] = port
        environ["REMOTE_ADDR"] = peer if peer != "unix" else ""
        environ["REMOTE_PORT"] = str(head.peer_port)
        environ["wsgi.url_scheme"] = scheme
        environ["wsgi.input"] = body
        keys = self._keys
        headers = head.headers
        for name, value in headers.items():
            key = keys.get(name)
            if key is None:
                key = self._learn(name)
            if key:
                environ[key] = value.decode("latin-1")
        if length > 0 or b"content-length" in headers:
            environ["CONTENT_LENGTH"] = str(length)
        return environ

    def _learn(self, name: bytes) -> str:
        key = "" if b"_" in name else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        if len(self._keys) < _KEYS_MAX:
            self._keys[name] = key
        return key


def _decoded(path: str) -> str:
    """Percent-decoded, as PEP 3333 wants it: each byte a character."""
    return unquote_to_bytes(path).decode("latin-1") if "%" in path else path


@lru_cache(maxsize=64)  # a few addresses that we listen on
def _server(server: tuple[str, int], scheme: str) -> tuple[str, str]:
    host, port = server
    if not port:  # a Unix socket; PEP 3333 allows neither to be empty
        return "localhost", "443" if scheme == "https" else "80"
    return host, str(port)


class BodySource(Protocol):
    """Where a body that is not here yet comes from."""

    def read(self) -> bytes:
        """The next bytes; waits for them; empty at the end."""


class _Body(io.RawIOBase):
    """A body that comes in pieces, as a file."""

    def __init__(self, source: BodySource) -> None:
        self._source = source
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._source.read())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def stream(source: BodySource) -> io.BufferedIOBase:
    """`wsgi.input` of a body that is still arriving: `read` and its like wait, and end where the body does."""
    return io.BufferedReader(_Body(source), 65_536)


class ErrorLog:
    """`wsgi.errors`: each text that is written is a line of the log."""

    def write(self, text: str) -> int:
        if line := text.strip():
            _log.error("%s", line, extra={"action": "web.app.errors"})
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing is held back."""


class FileWrapper:
    """`wsgi.file_wrapper`: a file as an answer. Sent by the kernel if it is a plain file, else read block by block."""

    def __init__(self, filelike: Any, block_size: int = 65_536) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    # An iterator of itself, that can be sought in: frameworks wrap it to answer ranges, and close what they have wrapped.

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def seekable(self) -> bool:
        file = self.filelike
        return bool(file.seekable()) if hasattr(file, "seekable") else hasattr(file, "seek")

    def seek(self, *place: int) -> None:
        self.filelike.seek(*place)

    def tell(self) -> int | None:
        return self.filelike.tell() if hasattr(self.filelike, "tell") else None

    def extent(self) -> tuple[int, int, int] | None:
        """Descriptor, position and remaining length of a plain file; None if it is something else.

        Only of files whose bytes are what `read` gives: a GzipFile has a `fileno` too, and other bytes behind it.
        """
        file = self.filelike
        opened = getattr(file, "file", file)  # tempfile's wrapper
        raw = opened.raw if type(opened) in (io.BufferedReader, io.BufferedRandom) else opened
        if type(raw) is not io.FileIO or raw.closed:
            return None
        facts = os.fstat(raw.fileno())
        if not stat.S_ISREG(facts.st_mode):
            return None
        if opened.writable():
            opened.flush()
            facts = os.fstat(raw.fileno())
        position = opened.tell()
        return raw.fileno(), position, max(0, facts.st_size - position)
