"""Every limit of the console, with unit and reason."""

from __future__ import annotations

from typing import Final

SAMPLE_S: Final = 1.0  # people see a second pass; the broker does not feel one look a second
BROKER_TIMEOUT_S: Final = 10.0  # a broker that takes longer is shown as away
FORM_BYTES_MAX: Final = 4 * 1_048_576  # a message of 1 MiB, every byte percent-encoded, and the rest of its form
VIEWERS_MAX: Final = (
    256  # open live pages; each costs a connection and, if nobody else looks at it, a rendering a second
)
VIEW_S_MAX: Final = 900.0  # then the browser connects again, and is asked again who it is
HEARTBEAT_S: Final = 15.0  # below the 30 s and 60 s after which proxies cut what is silent
NOTICES_MAX: Final = 1_000  # what was done, to be told on the next page; the oldest are dropped

SESSIONS_MAX: Final = 10_000  # signed-in browsers; the oldest are signed out
SIGN_INS_PER_MINUTE: Final = 30  # attempts, of everybody: each costs 50 ms of CPU
SIGN_INS_PER_MINUTE_EACH: Final = 6  # of one address: 8,640 a day find no decent password
PASSWORD_CHARACTERS_MAX: Final = 1_024  # a longer one only costs time
USERS_FILE_BYTES_MAX: Final = 1_048_576

SERIES_MAX: Final = 2_000  # 11 KB each: 22 MB
QUEUES_KEPT_MAX: Final = 200  # queues whose history is kept, the busiest: 7 series each, and room for tasks and routes
SERIES_STORED_MAX: Final = 500  # about 2 KB a minute in the broker's state: 3 MB for a day

PEEK_ROWS: Final = 25  # messages on a page
PEEK_BATCH: Final = 20  # of at most 1 MiB each: what one answer of the broker may weigh
SCAN_MESSAGES_MAX: Final = 2_000  # that one search looks through; then it says so and offers to go on
SCAN_BYTES_MAX: Final = 32 * 1_048_576
BODY_SHOWN_CHARACTERS: Final = 20_000  # of one body on its own page; the whole can be downloaded
BODY_LINE_CHARACTERS: Final = 160  # of a body in a list
LETTERS_GROUPED_MAX: Final = 2_000  # dead letters of a queue that are read to be grouped
"""Reading all of a million letters would cost the broker seconds; the groups of the oldest 2,000 tell what is wrong."""
REDRIVE_SOME_MAX: Final = 500  # letters that one press moves one by one; more: move all
LISTED: Final = 100  # queues, tasks, topics on a page; each is 600 bytes a second to who watches
QUEUES_OVERVIEW: Final = 25  # in the overview's table, the busiest
QUEUES_DRAWN_MAX: Final = 10  # in the flow picture, the busiest; the table below has all

RUNS_PAUSE: Final = 15.0  # times as long as reading the run log took, before it is read again: 6 % of a core at most
RUNS_ROWS: Final = 30  # runs on a page
TASKS_LOOKED_MAX: Final = 20_000  # waiting tasks that are looked at for one: about a second of the console's time
"""A task that its address leads to by queue and number is found without looking."""
WAITING_ROWS: Final = 50  # of waiting tasks on a page
SCHEDULE_TRIES_MAX: Final = 20  # of a change that a firing was faster than; as `headrace schedule`
