"""What a client may spend of our time without asking for anything: a bucket of tokens. Pure, no clock.

Every frame that brings no request and no byte of one costs a token: PING, SETTINGS, PRIORITY, empty DATA and
CONTINUATION, unknown frames, frames on closed streams. Streams that end before their answer have a bucket of their own:
rapid reset (CVE-2023-44487), and resets that a client provokes from our side (made-you-reset, CVE-2025-8671).
"""

from __future__ import annotations

from typing import Final

CONTROL_FRAMES_MAX: Final = 1_000  # at about 3 µs each; clients that ping every second are far from it
CONTROL_FRAMES_PER_S: Final = 200.0
CUT_STREAMS_MAX: Final = 500  # a browser that leaves a page full of images cancels about 100 at once
CUT_STREAMS_PER_S: Final = 50.0  # a map that is dragged; at about 100 µs each, half a percent of a core
UPDATES_MAX: Final = 10_000  # a client that updates both windows after each byte of a stream of small messages
UPDATES_PER_S: Final = 2_000.0


class Budget:
    """Filled to `most`; refills by `per_s`. Time comes from the caller and need only be coarse."""

    __slots__ = ("_left", "_most", "_per_s", "_since_s")

    def __init__(self, most: int, per_s: float, *, now_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._left = float(most)
        self._since_s = now_s

    def spend(self, now_s: float) -> bool:
        """Take one token; False if there is none."""
        if now_s > self._since_s:
            self._left = min(self._most, self._left + (now_s - self._since_s) * self._per_s)
            self._since_s = now_s
        self._left -= 1.0
        return self._left >= 0.0
