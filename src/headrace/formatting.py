"""How queues, settings and lengths of time are called towards people: stores keep ARNs and milliseconds."""

from __future__ import annotations

from typing import Final

_NAMES: Final = {
    "visibility_ms": "visibility_timeout",
    "redrive": "max_receives",
    "redrive_allow": "dead_letter_sources",
}

_USUAL: Final = ("arn:aws:sqs:us-east-1:000000000000:", "arn:aws:sns:us-east-1:000000000000:")
"""What `headrace.queue.model.arn_of` puts before a name when nothing else is said."""


def short_name(arn: str) -> str:
    """The plain name of a queue or topic of the default region and account; the ARN of any other, which needs it."""
    return next((arn.removeprefix(start) for start in _USUAL if arn.startswith(start)), arn)


def setting_name(stored: str) -> str:
    """The name by which people set what a store keeps as `stored`: `visibility_ms` is `visibility_timeout`."""
    return _NAMES.get(stored) or stored.removesuffix("_ms")


def setting_value(stored: str, value: str) -> str:
    """A value of `stored` in the unit in which people set it."""
    in_ms = stored.endswith("_ms") and value.removeprefix("-").isdecimal()
    return f"{seconds_text(int(value))} s" if in_ms else value


def seconds_text(ms: float) -> str:
    """Milliseconds as seconds, exact and without an exponent: `0.25`, `1296000`."""
    return f"{ms / 1_000:.3f}".rstrip("0").rstrip(".")
