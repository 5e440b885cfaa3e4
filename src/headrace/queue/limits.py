"""Every limit of the queue, with unit, reason and source. SQS = Amazon SQS Developer Guide and API Reference."""

from __future__ import annotations

from typing import Final

REGION_DEFAULT: Final = "us-east-1"  # what AWS SDKs fall back to
ACCOUNT_DEFAULT: Final = "000000000000"  # a credential names no account; LocalStack and ElasticMQ use this one

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

# Queue settings (SQS: SetQueueAttributes)
DELAY_MAX_MS: Final = 900 * SECOND_MS
MESSAGE_BYTES_MIN: Final = 1_024
MESSAGE_BYTES_MAX: Final = 1_048_576
RETENTION_MIN_MS: Final = 60 * SECOND_MS
RETENTION_MAX_MS: Final = 14 * DAY_MS
RETENTION_DEFAULT_MS: Final = 4 * DAY_MS
WAIT_MAX_MS: Final = 20 * SECOND_MS
VISIBILITY_MAX_MS: Final = 12 * HOUR_MS
VISIBILITY_DEFAULT_MS: Final = 30 * SECOND_MS
RECEIVES_MAX: Final = 1_000
REDRIVE_SOURCES_MAX: Final = 10
NAME_CHARACTERS_MAX: Final = 80

# A message's own delay on the native API; SQS's 900 s are checked where SQS is spoken
MESSAGE_DELAY_MAX_MS: Final = RETENTION_MAX_MS

# Who is present: the operation Hold
HOLD_GRACE_MS: Final = 5 * SECOND_MS  # between two holds of one holder: a client's retries after a broken connection
HOLDERS_MAX: Final = 1_000  # each keeps a connection open, and its facts in memory
FACTS_BYTES_MAX: Final = 65_536
HOLDERS_TOLD_EACH_MS: Final = 2 * SECOND_MS  # to the other brokers of a store: as often as holders bring new facts
HOLDERS_FRESH_MS: Final = (
    10 * SECOND_MS
)  # what another broker told longer ago is not true any more: it told nothing five
# times, or its database was away for as long as requests wait for it, twice

# ReceiveAny: a poll stands in the line of each of its queues
QUEUES_ASKED_MAX: Final = 100

# Messages (SQS: SendMessage, message metadata)
ID_CHARACTERS_MAX: Final = 128  # group, dedup and attempt ids
ATTRIBUTES_MAX: Final = 10

# Deduplication (SQS: exactly-once processing): five minutes, also after a delete
DEDUP_MS: Final = 5 * MINUTE_MS
ATTEMPT_MS: Final = 5 * MINUTE_MS

# In flight (SQS: quotas): standard OverLimit, FIFO silence
IN_FLIGHT_MAX: Final = 120_000

# Cool-downs (SQS: PurgeQueue, CreateQueue)
COOLDOWN_MS: Final = 60 * SECOND_MS

# Fair queues (SQS: fair queues; AWS calls its thresholds approximate)
NOISY_SHARE: Final = 0.10
NOISY_IN_FLIGHT_MIN: Final = 30
FAIR_IDLE_MS: Final = 5 * MINUTE_MS
FAIR_LOOK_AHEAD_MAX: Final = 20_000  # noisy messages that stand back while quiet ones are sought: some 50 ms of reading

# Message move tasks (SQS: StartMessageMoveTask)
MOVE_RATE_MAX: Final = 500
MOVE_TASKS_LISTED_MAX: Final = 10

# The native API: one call carries so many messages, so many bytes; both keep one commit below about 50 ms
NATIVE_BATCH_MAX: Final = 10_000
NATIVE_BATCH_BYTES_MAX: Final = 64 * 1_048_576

# State values of a transaction: rows of SQLite, kept well below a page cache
STATE_VALUE_BYTES_MAX: Final = 16 * 1_048_576
STATE_KEY_BYTES_MAX: Final = 1_024

# Topics
TOPIC_NAME_CHARACTERS_MAX: Final = 256  # SNS: CreateTopic
SUBSCRIPTIONS_MAX: Final = 1_000  # a topic's: one commit serves them all; 100 bytes a message and subscription
LOG_RETENTION_MAX_MS: Final = 3_660 * DAY_MS  # ten years: what is kept longer is an archive, not a log
REFERENCE_BYTES_MIN: Final = (
    256  # shorter bodies are copied: a reference and its index entry take some 30 bytes, a look-up a read
)
CATCH_UP_SLICE: Final = (
    2_000  # logged messages given to a queue in one commit: some 20 ms, others are served between two
)
CATCH_UP_BYTES_MAX: Final = 16 * 1_048_576  # and no more bytes
LOG_SLICE: Final = 4_000  # logged messages dropped, or looked at, in one go: a few ms

# Filter policies (SNS: "Filter policy constraints")
FILTER_KEYS_MAX: Final = 5
FILTER_COMBINATIONS_MAX: Final = 150
FILTER_BYTES_MAX: Final = 262_144
FILTER_DEPTH_MAX: Final = 16  # SNS bounds depth by the combinations alone; this bounds the recursion
FILTER_NUMBER_MAX: Final = 1_000_000_000
FILTER_WILDCARDS_MAX: Final = 3  # a pattern's

# What a queue keeps in memory; the rest is a cursor into the store
HEAD_MESSAGES_MAX: Final = 100_000  # known and ready, a queue: 40 bytes each
HEAD_LOOK_AHEAD: Final = 20_000  # messages read from the store for one receive; the next one goes on from there
DUE_AT_ONCE: Final = 4_000  # delayed messages that are due, brought to the head at a time
LOT: Final = 256  # messages taken, and read, at a time for a standard queue's receive: at most 256 MiB
TAKEN_AT_ONCE: Final = 500  # messages taken at a time while expired or dead ones are met
TIMERS_KEPT: Final = 10_000  # deadlines of ended leases that are not worth a clean-up: 8 bytes each
STALE_KEPT: Final = 10_000  # entries of messages or groups that moved on which are not worth a clean-up: 100 bytes each
HEAD_REFILL: Final = 4_000  # messages read from the store at a time
BODY_CACHE_BYTES_MAX: Final = 64 * 1_048_576  # bodies of all queues that need not be read from the store
