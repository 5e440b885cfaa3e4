"""The demo's pipeline: how many flights left each airport on each day, and how late. Look at it with
`headrace stream plan demo/delays.py`.

It reads the topic, to which every flight is published, so the consumers and the pipeline see each of them.
"""

from __future__ import annotations

import headrace.stream as hs

flights = hs.topic(
    "flights",
    schema="row bigint, origin string, dep_delay double, time_hour timestamp",
    start="beginning",
).event_time("time_hour", delay="3 days", idle="4 seconds")

delays = hs.sql("""
    SELECT window_start, origin, count(*) AS flights, count(dep_delay) AS departed, avg(dep_delay) AS delay
    FROM flights
    GROUP BY tumble(time_hour, '1 day'), origin
""")

pipeline = hs.pipeline("delays", delays, sink=hs.queue("delays"), late=hs.queue("delays-late"))
