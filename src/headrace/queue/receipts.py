"""Receipts: what deletes, extends or releases one delivery, and cannot be forged.

A receipt is the message's key and the number of the receive, followed by a MAC over both under the store's secret. So
nothing has to be kept for it, it is good across restarts and on every node that has the secret, and an old receipt can
be told from a forged one. BLAKE2b (RFC 7693) keyed, 144 bits: 0.4 µs, a third of HMAC-SHA-256.
"""

from __future__ import annotations

import hmac
import struct
from hashlib import blake2b
from typing import Final

from headrace.errors import ReceiptInvalid

_MAC_BYTES: Final = 18  # with the 12 bytes before it 30: base64 without padding, so a handle has one spelling
_pack = struct.Struct(">QI").pack
_unpack = struct.Struct(">QI").unpack_from
SIZE_BYTES: Final = 12 + _MAC_BYTES


class Receipts:
    """Mints and reads the receipts of one store. `secret`: 32 random bytes, kept with the store.

    `queue`: where keys do not name their queue, the number of it: receipts of others are then as good as forged.
    """

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes, *, queue: int = 0) -> None:
        self._keyed = blake2b(key=secret, digest_size=_MAC_BYTES, person=queue.to_bytes(8, "big"))

    def mint(self, key: int, receives: int) -> bytes:
        """The receipt of message `key` (64 bits) on its `receives`-th receive (32 bits)."""
        text = _pack(key, receives)
        mac = self._keyed.copy()
        mac.update(text)
        return text + mac.digest()

    @staticmethod
    def seen(receipt: bytes) -> int:
        """The key that a receipt names, unverified; 0, which no message has, for what cannot be a receipt."""
        return int.from_bytes(receipt[:8]) if len(receipt) == SIZE_BYTES else 0

    def read(self, receipt: bytes) -> tuple[int, int]:
        """(key, receives) of a receipt that this store minted; anything else raises ReceiptInvalid. Constant time."""
        if len(receipt) != SIZE_BYTES:
            raise ReceiptInvalid
        mac = self._keyed.copy()
        mac.update(receipt[:12])
        if not hmac.compare_digest(mac.digest(), receipt[12:]):
            raise ReceiptInvalid
        key, receives = _unpack(receipt)
        return key, receives
