"""Every limit of pipelines on Spark, with unit and reason."""

from __future__ import annotations

from typing import Final

from headrace.queue import limits

BATCH_MESSAGES_DEFAULT: Final = 100_000  # of one micro-batch: some 0.4 s of Spark's own cost are spread over them
BATCH_BYTES_MAX: Final = 64 * 1_048_576  # … and bodies: what the driver sees while it binds claims
CLAIM_MESSAGES_DEFAULT: Final = 10_000  # a claim is a partition: more of them use more cores

PART_MESSAGES_MAX: Final = limits.NATIVE_BATCH_MAX  # a part is published whole: it must fit into one transaction
PART_BYTES_MAX: Final = 4 * 1_048_576  # below the 8 MiB that a remote broker's request may have
COMMIT_BYTES_MAX: Final = 6 * 1_048_576  # of parts in one transaction: so, too
LISTED_AT_ONCE: Final = 4  # stages read at a time while stale ones are sought: their values come with them
UNKNOWN_MAX: Final = 20  # unknown outcomes in a row after which a commit fails

STOP_LOOK_S: Final = 1  # how often it is looked whether a run is to end
LISTENER_LATE_S: Final = 10.0  # how long the last news of an ended query may take: they come by a bus of Spark's own
PATIENCE_S: Final = 30.0  # how long a task waits for a broker that cannot be reached; local[N] has no task retry
PEEKED_AT_ONCE: Final = 1_000  # messages of a batch read's page
ROWS_AT_ONCE: Final = 10_000  # of one Arrow batch given to Spark: its own default
ARROW_ROWS_DEFAULT: Final = 10_000  # rows of an Arrow message: some 400 KB, well below its 1 MiB
