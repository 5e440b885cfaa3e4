"""How much each mode of the streams' benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

QUERIES: Final = ("q0", "q1", "q2", "q3", "q5", "q7", "q8", "q11")
"""Of Nexmark. q12 goes by processing time, which files do not have; Spark refuses the others, or they say nothing new."""
ENGINES: Final = ("headrace", "Spark streaming", "DuckDB batch")
QUEUE_QUERIES: Final = ("q1", "q5")
PART_EVENTS: Final = 100_000
"""Of a file: what headrace takes as a batch."""
SPARK_BATCH_FILES: Final = 5
"""Of each source in a batch of Spark's: 500,000 events."""
SPARK_BATCH_MESSAGES: Final = 100_000
"""Of the data source in a batch: its default."""
DISORDER_US: Final = 2_000_000
LATENCY_PER_S: Final = 500
LATENCY_WINDOW_MS: Final = 20


@dataclass(frozen=True)
class Plan:
    """One mode's amounts.

    Attributes:
        events: of Nexmark, from files.
        rounds: how often headrace and DuckDB are measured, in turn; the tables show medians. Spark is measured once: it
            takes minutes where the others take seconds, and its spread is small beside the distance.
        arrow_events: through a queue, thousands a message.
        json_events: through a queue, one a message.
        latency_s: how long messages are sent at LATENCY_PER_S, after two seconds that are not counted.
        batches: micro-batches of one row.
        spark_messages: through the data source.
        timeout_s: of one measurement.
    """

    events: int
    rounds: int
    arrow_events: int
    json_events: int
    latency_s: float
    batches: int
    spark_messages: int
    timeout_s: float


PLANS: Final = {
    "smoke": Plan(
        events=20_000, rounds=1, arrow_events=5_000, json_events=500, latency_s=0.5, batches=20, spark_messages=500,
        timeout_s=60,
    ),
    "quick": Plan(
        events=1_000_000, rounds=3, arrow_events=1_000_000, json_events=100_000, latency_s=10, batches=1_000,
        spark_messages=500_000, timeout_s=240,
    ),
    "full": Plan(
        events=5_000_000, rounds=5, arrow_events=5_000_000, json_events=500_000, latency_s=60, batches=5_000,
        spark_messages=500_000, timeout_s=900,
    ),
}  # fmt: skip
