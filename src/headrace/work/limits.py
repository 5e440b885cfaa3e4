"""Every number of tasks, with unit, reason and source."""

from __future__ import annotations

from typing import Final

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

# Queues of tasks
RETENTION_MS: Final = 14 * DAY_MS  # the most there is: a task is lost by a person's decision, not by its age
VISIBILITY_MS: Final = 60 * SECOND_MS  # renewed while a task runs; a worker that hangs is given up after it
DELAY_MAX_MS: Final = RETENTION_MS  # what waits longer would expire before it is due
RECEIVES_MAX: Final = 1_000  # the broker's own dead-letter rule, behind ours: for messages that no worker ever settles
PRIORITY_MIN: Final = -1
PRIORITY_MAX: Final = 1
SEND_MANY_SLICE: Final = 10_000  # tasks in one call: the native API's bound

# Retries: 20 with these waits are about 12 hours, long enough for an outage over night to end
RETRIES: Final = 20
RETRIES_MAX: Final = 1_000
BACKOFF_FIRST_MS: Final = SECOND_MS
BACKOFF_FACTOR: Final = 2.0
BACKOFF_MAX_MS: Final = HOUR_MS

# Losses: a worker that died with a task, or a lease that ended. Apart from retries: whoever shares a process with a task that
# kills it, or was fetched and not begun, has done nothing wrong
LOSSES: Final = 5
LOSSES_MAX: Final = 100
WAIT_FOR_LOCK_MS: Final = 5 * SECOND_MS  # a redriven task whose unique lock another has looks again after this

# What an envelope may say: it comes from a queue, and so from anybody
ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{0,100}\Z"  # of tasks and groups: parts of state keys
QUEUE_PATTERN: Final = r"^(?=.{0,80}\Z)[A-Za-z0-9_-]*(\.fifo)?\Z"  # empty: none
TIME_MAX_MS: Final = 10**14 - 1  # the year 5138: 14 digits, as the index has
ATTEMPTS_MAX: Final = 1_000_000
GROUP_MEMBERS_MAX: Final = 10_000  # they are sent in one transaction: the native API's bound

# Chains: each step stands within the one before it, three levels deep; Python's JSON goes 1,000 deep, less what is on the stack
CHAIN_STEPS_MAX: Final = 200

# What of a failure is kept, an attempt
HISTORY_MAX: Final = 10  # attempts in the envelope: with TRACEBACK_BYTES_MAX 40 KiB of a message's 1 MiB
TRACEBACK_BYTES_MAX: Final = 4_096  # the end of it, where the cause stands
MESSAGE_CHARACTERS_MAX: Final = 1_000  # of an exception's text
ERROR_NAME_CHARACTERS_MAX: Final = 200  # of an exception's module and class
REASON_CHARACTERS_MAX: Final = 200  # of the one line on a dead letter

# Unique locks: one that outlives its task (a queue purged by hand, a message that expired) ends then
UNIQUE_TTL_MS: Final = DAY_MS
UNIQUE_TTL_MAX_MS: Final = 3_660 * DAY_MS
KEY_BYTES_MAX: Final = 200  # longer keys are hashed: a state key has 1,024 bytes at most

# Results
RESULT_BYTES_MAX: Final = 1_048_576  # a result is for its caller, files belong elsewhere
RESULT_KEEP_MAX_MS: Final = 3_660 * DAY_MS
POLL_S: Final = (
    0.02  # until the second look for a result where the broker cannot tell by itself; half as long again each time
)
POLL_MAX_S: Final = 0.5  # then: a thousand that wait ask 2,000 times a second
WAIT_MAX_S: Final = 20.0  # of one waiting call: the broker's bound

TIMEOUT_MAX_MS: Final = 12 * HOUR_MS  # a lease's longest life (SQS: ChangeMessageVisibility)
CONSUMER_BATCH_MAX: Final = 10_000  # messages in one call of a batch consumer: the native API's bound
