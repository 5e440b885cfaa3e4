"""Every number of the worker pool, with unit, reason and source."""

from __future__ import annotations

from typing import Final

# Fetching
POLL_WAIT_S: Final = (
    1.0  # so long may a drain have to wait for a poll that is under way; an idle worker asks once a second
)
AHEAD_S: Final = 0.005  # no more is fetched ahead than runs in this time: a longer wait belongs into the broker
AHEAD_MAX: Final = 500  # tasks, however short they are: more than this per call saves nothing
RECEIVE_MAX: Final = 10_000  # messages in one receive: the native API's bound
UNCOMMITTED_MAX: Final = 4_000  # runs whose commit is on its way; beyond, fetching waits: memory stays bounded
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 5.0  # between two tries while the broker is away: it is back within that time for most restarts
CONTENDED_MS: Final = 1_000  # a task whose locks others were always faster with is begun so much later

# Runner threads
SHORT_S: Final = 0.001  # tasks shorter than this run one after another in one thread: waking a thread costs about 50 µs
TICK_S: Final = 0.005  # how often the keeper looks: so long may a short task wait behind one that turns out long
RECALL_S: Final = 0.1  # fetched ahead, and not begun after so long: it goes back to the broker, for others

# Committing
COMMIT_RUNS_MAX: Final = 1_000  # settlements in one transaction: about 1 MB, far below the call's bound
SETTLE_TRIES_MAX: Final = (
    50  # StateChanged means that somebody else got on; so many in a row mean that something is wrong
)

# Leases
RENEW_PART: Final = 3  # renewed after a third of the visibility: two renewals may fail before a lease ends
HOLD_S: Final = 2.0  # how long one Hold waits: so old are the facts that others see
DEFAULT_VISIBILITY_MS: Final = 60_000  # how long a message stays hidden when a worker hangs and nobody notices

# Ends
END_MARGIN_S: Final = 5.0  # beyond its drain, for the last commit; then the parent kills the child
READY_S: Final = 60.0  # new code that is not ready by then is given up: the old children stay

# Watching
LOOK_S: Final = 1.0  # how often the parent looks at the boards
BOARD_SLOTS_MAX: Final = 256  # runs that can be named after a crash; further ones run all the same
BOARD_TEXT_BYTES: Final = 120  # of a task's name and id

# Being present
SHOWN_MAX: Final = 100  # running tasks, and the busiest tasks by name: with names of 80 letters 50 of a Hold's 64 KiB

# The run log
SWEEP_S: Final = 600.0  # between two sweeps for chunks that nobody else removes
