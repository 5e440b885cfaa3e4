"""Every limit of the reverse proxy, with unit and reason."""

from __future__ import annotations

from typing import Final

# Connections

IDLE_S: Final = 4.0
"""A kept connection is not used after so long: uvicorn and Node.js close theirs after 5 s, others later."""
IDLE_UNREPEATABLE_S: Final = 1.0
"""The same for a request that must not be sent twice: gunicorn closes after 2 s, and a request that crosses the close
would fail."""
WRITE_BUFFER_BYTES: Final = 65_536
"""Of a request's body that the upstream has not taken; beyond, no more is taken from the client."""
CLOSE_S: Final = 5.0
"""How long the upstream of a tunnel may take for the client's last bytes: a close frame needs no time, and what is stuck
would be kept for ever."""

# Answers

ANSWER_HEAD_BYTES_MAX: Final = 65_536
"""Status line and headers of an answer. Browsers give up at 256 KiB, nginx at 8; cookies and policies take up to 20."""
ANSWER_HEADERS_MAX: Final = 200
INTERIM_ANSWERS_MAX: Final = 16
"""1xx before the real one; more is a broken upstream."""

# Failures

ATTEMPTS_MAX: Final = 3
"""The first and two more: a request that three upstreams have failed is not the fourth's to try."""
FAILURES_MAX: Final = 5
"""Failed answers in a row that take an upstream out: fewer might be what a single broken page gives."""
OUT_FIRST_S: Final = 1.0
OUT_MAX_S: Final = 30.0
"""How long it is out: 1, 2, 4, … 30 s."""
CHECKS_FAILED_MAX: Final = 2
"""Checks in a row: one may be lost by chance."""
CHECK_S: Final = 5.0
"""A health check that has no answer by then has failed."""
