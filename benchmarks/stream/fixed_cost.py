"""What a micro-batch costs before its second row: batches of one row, many less few, so that starting does not count.

python -m benchmarks.stream.fixed_cost q5 1000 [URL]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import headrace
import headrace.stream as hs
from benchmarks.nexmark import generator, queries
from benchmarks.stream.measuring import slope_s
from headrace.stream import arrow_memory, runner  # noqa: F401 - loaded before the clock runs


def in_memory(query: str, count: int) -> float:
    """CPU seconds of so many batches, state in memory."""
    bids = generator.generate(-(-count * 50 // 46)).bids
    stream = hs.memory(generator.BID, _single(bids, count), name="bid").with_watermark("ts", delay=queries.DELAY)
    return _cpu_s(queries.pipeline(query, {**queries.sources(queries.QUERIES[query]), "bid": stream}), None)


def durable(query: str, count: int, url: str) -> float:
    """The same from a queue into a queue, a durable commit each: CPU seconds of the pipeline's process."""
    with headrace.connect(url) as client:
        queue = client.queue("bid", create=True)
        queue.send_many(generator.messages(generator.generate(-(-count * 50 // 46)).bids)[:count])
    pipeline = queries.pipeline(query, sink=hs.queue(f"{query}-fixed"))
    return _cpu_s(pipeline, url)


def _cpu_s(pipeline: hs.Pipeline, url: str | None) -> float:
    started_s = time.process_time()
    pipeline.run(url, until="end", batch_rows=1)
    return time.process_time() - started_s


def _single(rows: object, count: int) -> Iterator[object]:
    return (rows.slice(place, 1) for place in range(count))  # type: ignore[attr-defined] # pyarrow has no types


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("query")
    parser.add_argument("count", type=int)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--spawned-s", type=float)
    given = parser.parse_args()
    arrow_memory.choose_allocator()  # as `headrace stream run` does

    def measure(count: int) -> float:
        return in_memory(given.query, count) if given.url is None else durable(given.query, count, given.url)

    few = max(1, given.count // 10)
    print(json.dumps({"cpu_ms": slope_s(measure, few=few, many=given.count) * 1_000}))


if __name__ == "__main__":
    main()
