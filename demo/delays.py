"""The demo's pipeline: how many flights left each airport on each day, and how late. Look at it with
`headrace stream plan demo/delays.py`.

A flight that was put off (a spike, a killed broker) may come ten days of the year later: clients hold back what is further
ahead than that (`demo/client.py`), so nothing is ever late.
"""

from __future__ import annotations

import os
from pathlib import Path

import headrace.stream as hs

DATA = Path(os.environ.get("HEADRACE_DEMO_DATA") or Path(__file__).parent / "data")

flights = hs.topic(
    "flights",
    schema="row bigint, origin string, dep_delay double, time_hour timestamp",
    start="beginning",
).with_watermark("time_hour", delay="12 days")

delays = hs.sql("""
    SELECT window_start, origin, count(*) AS flights, count(dep_delay) AS departed, avg(dep_delay) AS delay
    FROM flights
    WHERE row >= 0 -- the end of the year, as the demo tells it, is no flight
    GROUP BY tumble(time_hour, '1 day'), origin
""")

pipeline = hs.pipeline(
    "delays",
    delays,
    sink=[hs.topic("delays"), hs.parquet(DATA / "delays")],  # a queue is subscribed to the topic
    late_queue=hs.queue("delays-late"),
    dead_letter_queue=hs.queue("delays-dead"),
)
