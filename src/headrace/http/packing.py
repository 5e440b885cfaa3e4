"""The content codings that can be made here: gzip always, br and zstd if their packages are installed.

Measured on 64 KiB of Python source (µs/KiB, size left): zstd 3 4.1, 31 %; br 3 8.6, 31 %; br 4 13.9, 30.5 %; gzip 1 8.6,
35 %; gzip 4 13.5, 30 %; gzip 6 27.7, 29 %. Hence the levels, and the order: zstd is as good as the others at a third of
their CPU.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, Final


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


_brotli: Final = _optional("brotli")
_zstandard: Final = _optional("zstandard")
_kept: Final = threading.local()

GZIP_LEVEL: Final = 4
BR_LEVEL: Final = 3
ZSTD_LEVEL: Final = 3
KEPT_LEVELS: Final = {"br": 5, "zstd": 6, "gzip": 6}
"""For what is packed once and sent often: 2 ms for 64 KiB."""
WINDOW_BITS: Final = 17
"""What a stream remembers, 128 KiB: the default windows take megabytes a stream."""

_GZIP: Final = 31  # zlib's name for gzip framing with a window of 32 KiB

CODINGS: Final[tuple[str, ...]] = (
    *(("zstd",) if _zstandard is not None else ()),
    *(("br",) if _brotli is not None else ()),
    "gzip",
)
"""The best first."""


def pack(coding: str, body: bytes) -> bytes:
    """A whole body."""
    if coding == "zstd":
        return _kept_zstd()(body)
    return _br(BR_LEVEL)(body) if coding == "br" else _gzip(GZIP_LEVEL)(body)


def packers() -> Mapping[str, Callable[[bytes], bytes]]:
    """For content that is packed once and kept, as static files are. Not for several threads."""
    made = {"br": _br, "zstd": _zstd, "gzip": _gzip}
    return {coding: made[coding](KEPT_LEVELS[coding]) for coding in CODINGS}


class Stream:
    """Packs a body that comes in pieces. The memory that it holds, 0.2 to 0.8 MB, is why `open_count` is kept."""

    __slots__ = ("_coder", "_end", "_flush", "_pack")

    open_count: ClassVar[int] = 0
    """Streams that exist in this process."""

    def __init__(self, coding: str) -> None:
        Stream.open_count += 1
        self._pack, self._flush, self._end = _STREAMS[coding]()

    def __del__(self) -> None:
        Stream.open_count -= 1

    def pack(self, data: bytes) -> bytes:
        """Everything that the client needs to read all of `data` now."""
        packed: bytes = self._pack(data) + self._flush()
        return packed

    def end(self) -> bytes:
        """The last bytes."""
        return self._end()


def _gzip(level: int) -> Callable[[bytes], bytes]:
    def pack_gzip(body: bytes) -> bytes:
        coder = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
        return coder.compress(body) + coder.flush()

    return pack_gzip


def _br(level: int) -> Callable[[bytes], bytes]:
    compress: Callable[..., bytes] = _brotli.compress
    return lambda body: compress(body, quality=level, lgwin=WINDOW_BITS)


def _zstd(level: int) -> Callable[[bytes], bytes]:
    compress: Callable[[bytes], bytes] = _zstandard.ZstdCompressor(level=level).compress
    return compress


def _kept_zstd() -> Callable[[bytes], bytes]:
    """This thread's compressor: to make one costs as much as to pack 4 KiB."""
    try:
        kept: Callable[[bytes], bytes] = _kept.zstd
    except AttributeError:
        kept = _kept.zstd = _zstd(ZSTD_LEVEL)
    return kept


_Functions = tuple[Callable[[bytes], bytes], Callable[[], bytes], Callable[[], bytes]]


def _gzip_stream() -> _Functions:
    coder = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    return coder.compress, lambda: coder.flush(zlib.Z_SYNC_FLUSH), coder.flush


def _br_stream() -> _Functions:
    coder = _brotli.Compressor(quality=BR_LEVEL, lgwin=WINDOW_BITS)
    return coder.process, coder.flush, coder.finish


def _zstd_stream() -> _Functions:
    parameters = _zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=WINDOW_BITS)
    # One each: streams of one compressor share its state.
    coder = _zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return coder.compress, lambda: coder.flush(_zstandard.COMPRESSOBJ_FLUSH_BLOCK), coder.flush


_STREAMS: Final = {"br": _br_stream, "gzip": _gzip_stream, "zstd": _zstd_stream}
