"""Every limit of durable requests, with unit and reason."""

from __future__ import annotations

from typing import Final

# What is stored

BODY_BYTES_MAX: Final = 15 * 1_048_576
"""A request's body: it is one value of the store's state (16 MiB at most)."""
INLINE_BYTES_MAX: Final = 900_000
"""Up to this a body stands in the message itself (1 MiB at most, with the head); a longer one in the state beside it."""
RESPONSE_BYTES_MAX: Final = 4 * 1_048_576
"""An answer's body that is kept; of a longer one only the head is."""
COLLECTED_BYTES_MAX: Final = 256 * 1_048_576
"""Bodies that are being collected or committed, all together; beyond: 503. One of unknown length counts as it grows."""
KEY_CHARACTERS_MAX: Final = 255
"""Of an Idempotency-Key; what Stripe and others take."""
QUEUED_KEEP_S: Final = 14 * 86_400.0
"""As long as a message can wait in its queue."""
RECEIVES_MAX: Final = 1_000
"""The queue's own limit, as high as it goes: attempts are counted in the record."""

# Taking

ACCEPTS_MAX: Final = 3
"""Tries of a commit whose outcome is unknown; repeating is safe, since each expects that there is no such record yet."""
WAIT_MAX_S: Final = 30.0
"""The longest `Prefer: wait`: half of what proxies wait for an answer."""

# Running

RUNNING_MAX: Final = 16
"""Stored requests of a process that run at once: they share the workers with clients that wait."""
LEASE_S: Final = 30.0
"""How long a request stays with a runner that has died; a living one extends its leases."""
EXTEND_EACH_S: Final = LEASE_S / 3
"""One extension may fail, and the lease holds still."""
POLL_S: Final = 20.0
"""The longest receive, as SQS has it."""
PAUSE_S: Final = 1.0
"""After the broker could not be reached, and before a request is tried again for which there was no room."""
RETRY_MAX_S: Final = 900.0
"""The longest pause before the next attempt: the longest delay of a message."""

FINISHES_MAX: Final = 3
"""Tries of a commit whose outcome is unknown; if it was done, its lease is over, and the record says so. Not done, the
application would be asked again."""

# Expiry

SWEEP_EACH_S: Final = 60.0
SWEPT_AT_ONCE: Final = 200
"""Expired results that are read at once: some kilobytes."""
