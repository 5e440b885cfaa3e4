"""Content types by file name: the same on every machine, whatever its /etc/mime.types says."""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from typing import Final

_UNKNOWN: Final = "application/octet-stream"
_OWN: Final = {
    ".avif": "image/avif",
    ".css": "text/css",
    ".geojson": "application/geo+json",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonld": "application/ld+json",
    ".log": "text/plain",
    ".m4a": "audio/mp4",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".parquet": "application/vnd.apache.parquet",
    ".rss": "application/rss+xml",
    ".svg": "image/svg+xml",
    ".toml": "application/toml",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
"""What Python's table lacks, in some version, or has under an outdated name."""
_PACKED: Final = {
    "br": _UNKNOWN,
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}
"""A packed file that is asked for by its own name is passed on packed: no Content-Encoding."""

_table: Final = mimetypes.MimeTypes(filenames=())
for _suffix, _type in _OWN.items():
    _table.add_type(_type, _suffix)


@lru_cache(maxsize=512)
def content_type(suffix: str) -> bytes:
    """The Content-Type of a file whose name ends with `suffix` (`.css`, any case; empty: none).

    Text is called UTF-8: what else would it be today?
    """
    if len(suffix) > 16:
        return _UNKNOWN.encode()
    kind, packing = _table.guess_type("x" + suffix.lower())
    if packing is not None:
        return _PACKED.get(packing, _UNKNOWN).encode()
    if kind is None:
        return b"application/zstd" if suffix.lower() == ".zst" else _UNKNOWN.encode()
    return f"{kind}; charset=utf-8".encode() if kind.startswith("text/") else kind.encode()
