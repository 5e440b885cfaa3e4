"""Metrics by OpenTelemetry, where a meter provider is configured; else nothing, and nothing is imported (as in `tracing`).

Of what runs in the user's own processes: requests in the web server's workers, tasks, pipelines. The broker's own figures are
Prometheus's. Source: OpenTelemetry's semantic conventions for messaging metrics and for HTTP server metrics.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from headrace import tracing
from headrace._version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider

SENT: Final = "messaging.client.sent.messages"
CONSUMED: Final = "messaging.client.consumed.messages"
PROCESSED: Final = "messaging.process.duration"
REQUESTED: Final = "http.server.request.duration"

BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Of the durations' buckets: as the conventions advise."""

Facts = Mapping[str, str | int]


class Instruments:
    """The instruments of one meter provider. Thread-safe, as they are."""

    def __init__(self, meter: Meter) -> None:
        self._sent = meter.create_counter(SENT, "{message}", "Messages that were sent")
        self._consumed = meter.create_counter(CONSUMED, "{message}", "Messages that were given to the application")
        self._processed = meter.create_histogram(
            PROCESSED, "s", "How long messages were processed", explicit_bucket_boundaries_advisory=BOUNDS_S
        )
        self._requested = meter.create_histogram(
            REQUESTED, "s", "How long requests took", explicit_bucket_boundaries_advisory=BOUNDS_S
        )

    def sent(self, queue: str) -> None:
        """A message is in the queue."""
        self._sent.add(1, _messaging("send", queue))

    def processed(
        self, queue: str, seconds: float, more: Facts, *, messages: int = 1, error: str | None = None
    ) -> None:
        """So many messages were processed together.

        Args:
            more: further attributes, of few values.
            error: the type of the exception that it failed with.
        """
        facts = {**_messaging("process", queue), **more, **({"error.type": error} if error is not None else {})}
        self._consumed.add(messages, facts)
        self._processed.record(seconds, facts)

    def requested(self, seconds: float, facts: Facts) -> None:
        """A request was answered, or given up."""
        self._requested.record(seconds, facts)


def instruments() -> Instruments | None:
    """Of the provider that is configured; None while there is none, or where `tracing.disabled`."""
    if "opentelemetry.metrics" not in sys.modules:
        return None
    from opentelemetry import metrics  # noqa: PLC0415 - it is there, or this is not reached

    provider = metrics.get_meter_provider()
    if (
        type(provider).__module__.startswith("opentelemetry.metrics") or tracing.disabled()
    ):  # the API's: they do nothing
        return None
    return _of(provider)


@functools.lru_cache(maxsize=4)
def _of(provider: MeterProvider) -> Instruments:
    return Instruments(provider.get_meter("headrace", __version__))


def _messaging(operation: str, queue: str) -> dict[str, Any]:
    return {
        "messaging.system": tracing.SYSTEM,
        "messaging.operation.name": operation,
        "messaging.destination.name": queue,
    }


def flush() -> None:
    """Export what is counted, where the process is about to end without its exit handlers."""
    if instruments() is not None:
        from opentelemetry import metrics  # noqa: PLC0415

        force: Any = getattr(metrics.get_meter_provider(), "force_flush", None)
        if force is not None:
            force(tracing.FLUSH_MS)
