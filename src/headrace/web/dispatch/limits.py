"""Every limit of the queue in front of the workers and of the links to them, with unit and reason."""

from __future__ import annotations

from typing import Final

# The queue: admission.py

PRIORITIES: Final = 3
PRIORITY_TURN: Final = 8
"""Of this many takes that would pass over a lower priority, the last goes to it: it gets at least an eighth."""
STOOD_S: Final = 0.3
"""A queue that has not been empty for this long is no longer a burst: from now on patience counts."""
RESUME_S: Final = 1.0
"""When workers have come back, the queue gets as long again as they were away before patience counts, and at least so
long: they do not all come at once."""
CALM: Final = 0.05
"""Overload is over when the queue drains in this part of patience."""
PATIENCE_MIN_S: Final = 0.4
"""What people do not notice yet, and what a full second's deadline of a client leaves for the answer."""
PATIENCE_SERVICES: Final = 8
"""Waiting for eight times as long as a request runs is normal (eight times as many clients as slots), beyond is overload."""
RETRY_AFTER_MAX_S: Final = 120
"""Longer promises about a queue's future are guesses."""
SWEEP_S: Final = 0.01
"""The queue is swept at most every so often: a client does not see the difference, the CPU does."""

# The workers: dispatcher.py

DELIVERIES_MAX: Final = 3
"""The first and two redeliveries; a request that was with three workers when they died is poison."""
ISOLATION_S: Final = 1.0
"""A suspect that has run this long alone without killing its worker shares it again."""
CHOICES: Final = 16
"""Workers with room that are compared for a request, those first that have had room for longest: at 512 idle
workers comparing all would cost 40 µs."""

# Requests given ahead to WSGI workers: prefetch_policy.py, prefetch_manager.py

PREFETCH_MAX: Final = 8
"""Requests that a process gets at once while they are short: more gain nothing (measured at 4, 8, 16)."""
FAST_S: Final = 0.0005
"""What takes longer by itself gets a thread of its own: eight of these would make the last wait 4 ms."""
LONG_MAX: Final = 1 / 3
"""If more than this part takes longer than FAST_S, requests are not short: fewer are handled by recalling."""
TRIAL_MIN_S: Final = 0.1
TRIAL_MAX_S: Final = 10.0
"""Between two trials whether requests are short again: they are few, and each may cost some of them WATCH_S."""
WATCH_S: Final = 0.0025
"""A link on which nothing has ended from one look to the next gets nothing more, and its waiting requests are recalled.
Longer than a thread mostly waits for its turn on a busy machine, short enough not to be noticed."""
LONG_LOAD: Final = 8
"""A long request weighs as much as a full prefetch when a worker is chosen."""
ASK_AGAIN_S: Final = 0.02
"""Requests that were recalled, and were neither returned nor answered, are recalled again: they were in transit."""
RETURNS_MAX: Final = 2
"""A request that was recalled this often is put behind no other one any more."""
HOLD_S: Final = 0.0008
"""A finished answer waits at most so long for the next one (and for a look of the edge, if that one takes long): of requests
of 0.1 ms a whole PREFETCH_MAX leaves at once or twice, with 0.16 to 0.19 sends a request; at 0.3 ms it was 0.29."""
HOLD_BYTES: Final = 65_536
"""More would not be sent at once anyway."""

# How many requests a worker gets at once: concurrency_limit.py

CONCURRENCY_START: Final = 16
LAG_LOW_S: Final = 0.005
LAG_HIGH_S: Final = 0.02
"""A loop that is later than this has more work than it can do at once: requests that are given to it wait there, and
cannot be recalled. Below LAG_LOW_S it mostly waits for I/O."""
CONCURRENCY_MIN: Final = 3
"""Requests that a worker that computes runs at least: one runs, one is ready, and one is on its way to or from
the edge. With one at a time a busy machine did 120 to 190 requests/s of 5 ms instead of 320 to 370."""
QUIET_S: Final = 1.0
LAG_QUIET_S: Final = 0.1
"""What a loop has had for longer than QUIET_S waits for I/O, unless the loop itself is later than LAG_QUIET_S: three
requests that compute so long make it much later."""
PING_S: Final = 0.025
"""Lag is asked at most so often: 40 pings a second cost a worker less than 0.1 % CPU."""

# The bodies that wait: spool.py

SPOOL_MEMORY_BYTES: Final = 262_144
"""Bytes of a body that are kept in memory; a longer body goes to a file. Forms and JSON fit, uploads do not."""
SPOOL_BUDGET_MEMORY_BYTES: Final = 64 * 1_048_576
"""Of all bodies together; beyond, bodies go to files earlier."""
SPOOL_BUDGET_BYTES: Final = 16 * 1_073_741_824
"""Of all bodies together, on disk and in memory; beyond: 503. Eight uploads of the default maximum."""
SPOOL_PIECE_BYTES: Final = 65_536
"""Read back at once."""
REPLAY_BYTES_MAX: Final = 262_144
"""Of a streamed body that are kept for a redelivery; a longer one that has been passed on cannot be replayed."""

# The links to the workers: worker_link.py, link_server.py

CONSUMED_BYTES: Final = 65_536
"""Bytes that are passed on before the worker is notified: a quarter of the window, so it never runs dry."""
HELLO_S: Final = 10.0
"""A connection to the socket that has not said who it is by then is closed."""
LOSSES_MAX: Final = 1_024
"""Processes whose lost links are remembered: more do not die while it is uncertain whether they live."""
WORKERS_MAX: Final = 4_096
"""Links of one app to one edge: 512 workers of 8 threads."""
