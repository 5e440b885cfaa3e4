"""Signing calls for a broker with keys: AWS Signature Version 4, as SQS clients do. Only TCP needs it.

Source: AWS General Reference, "Create a signed AWS API request". The region is part of the scope and of no meaning here.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

_SIGNED: Final = "host;x-amz-date"
_REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key of the broker's keys file. The secret is never sent, and not shown in a repr."""

    access_key: str
    secret_key: str = field(repr=False)


class Signer:
    """Makes the headers that sign a request. The key of a day is derived once."""

    def __init__(self, credentials: Credentials, host: str, wall_clock: Callable[[], float] = time.time) -> None:
        self._credentials = credentials
        self._host = host
        self._wall_clock = wall_clock
        self._day_key: tuple[str, bytes] = ("", b"")

    def headers(self, method: str, path: str, body: bytes) -> bytes:
        """The header lines, each with its line end."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall_clock()))
        day = stamp[:8]
        scope = f"{day}/{_REGION}/sqs/aws4_request"
        canonical = "\n".join(
            [method, path, "", f"host:{self._host}", f"x-amz-date:{stamp}", "", _SIGNED, sha256(body).hexdigest()]
        )
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, sha256(canonical.encode()).hexdigest()])
        signature = hmac.digest(self._key_of(day), to_sign.encode(), "sha256").hex()
        return (
            f"X-Amz-Date: {stamp}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self._credentials.access_key}/{scope}, "
            f"SignedHeaders={_SIGNED}, Signature={signature}\r\n"
        ).encode()

    def _key_of(self, day: str) -> bytes:
        if self._day_key[0] != day:
            key = b"AWS4" + self._credentials.secret_key.encode()
            for part in (day, _REGION, "sqs", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day_key = (day, key)
        return self._day_key[1]
