"""Content codings: which one a client takes (Accept-Encoding, RFC 9110 12.5.3), and what is worth packing. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

PACKED_BYTES_MIN: Final = 1_024
"""Shorter bodies stay plain: they fit one packet with their headers anyway."""

_CACHED_BYTES_MAX: Final = 256  # browsers send about 25
_READ_BYTES_MAX: Final = 1_024  # longer ones are nobody's honest wish: taken for none
_ENTRY: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)

_PACKABLE: Final = re.compile(
    rb"text/[^;]*|[a-z0-9.\-]+/[a-z0-9.\-]+\+(?:json|xml|yaml)|"
    rb"application/(?:json|javascript|ecmascript|xml|wasm|yaml|toml|graphql|rtf|x-ndjson|jsonlines|json-seq|sql|"
    rb"manifest\+json|x-javascript|vnd\.ms-fontobject|xhtml\+xml|msgpack|vnd\.apache\.arrow\.stream)|"
    rb"font/(?:ttf|otf|collection)|image/(?:bmp|x-icon|x-ms-bmp|vnd\.microsoft\.icon)"
)


@lru_cache(maxsize=512)
def is_packable(content_type: bytes) -> bool:
    """Whether bodies of this type get much shorter: text in the widest sense, not what is packed by its nature."""
    return _PACKABLE.fullmatch(content_type.partition(b";")[0].strip().lower()) is not None


def choose(accept: bytes, available: tuple[str, ...]) -> str:
    """The coding to use, empty for none (identity).

    Args:
        accept: the header's value.
        available: the codings that can be given, the best first: among equally welcome ones the first is taken.
    """
    if not accept or not available:
        return ""
    if len(accept) > _CACHED_BYTES_MAX:
        return _choose.__wrapped__(accept, available) if len(accept) <= _READ_BYTES_MAX else ""
    return _choose(accept, available)


@lru_cache(maxsize=512)
def _choose(accept: bytes, available: tuple[str, ...]) -> str:
    weights = read(accept)
    others = weights.get("*", 0.0)
    best, best_weight = "", weights.get("identity", 0.0)
    for coding in available:
        weight = weights.get(coding, others)
        # What a client merely prefers identity over (identity;q=1, gzip;q=0.5) stays plain; ties are packed.
        if weight > best_weight or (weight == best_weight > 0.0 and not best):
            best, best_weight = coding, weight
    return best


def read(accept: bytes) -> dict[str, float]:
    """The weights that `accept` gives, by lower-case coding; malformed entries are left out, `x-gzip` is gzip."""
    weights: dict[str, float] = {}
    for entry in accept.split(b","):
        match = _ENTRY.fullmatch(entry.strip(b" \t"))
        if match is not None:
            coding = match[1].decode().lower().removeprefix("x-")
            weights[coding] = float(match[2]) if match[2] else 1.0
    return weights
