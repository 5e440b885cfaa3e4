"""Rules that decide which upstream may get requests: no clock, no I/O.

  UP ──cannot be reached, or fails again and again──▶ OUT ──its time is over: one request──▶ PROBING
  ▲                                                    ▲                                        │
  └───────────── answered ──────────────┐              └──────────── failed: longer out ────────┤
                                        └───────────────────────────────────────────────────────┘
  any ──health checks fail──▶ UNFIT ──a check succeeds──▶ UP ◀──a check succeeds── OUT, PROBING

An answer of 502, 503 or 504, one that is cut or comes too late, counts as failed; but the last upstream that is up is not
taken out by those: a server that refuses some requests is better than none, and a client that finds a page which fails
could otherwise take all upstreams down. For the same reason the time out does not grow while no other upstream is up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from headrace.web.proxy.limits import CHECKS_FAILED_MAX, FAILURES_MAX, OUT_FIRST_S, OUT_MAX_S


class State(Enum):
    """The state of an upstream; see the module."""

    UP = auto()
    OUT = auto()
    PROBING = auto()
    UNFIT = auto()


UP, OUT, PROBING, UNFIT = State.UP, State.OUT, State.PROBING, State.UNFIT


@dataclass(frozen=True, slots=True)
class Health:
    """The health of one upstream."""

    state: State = UP
    failures: int = 0
    """In a row."""
    outs: int = 0
    """Times in a row that it was taken out."""
    until_s: float = 0.0
    """OUT: when it may be tried again."""
    checks_failed: int = 0
    """In a row."""


WELL: Final = Health()
"""Up without failures. The rules return this very object, so that it can be compared with `is`."""


def may_take(health: Health, now_s: float) -> bool:
    """Whether it may get a request."""
    return health.state is UP or (health.state is OUT and now_s >= health.until_s)


def taken(health: Health) -> Health:
    """It gets a request; `may_take` has allowed it."""
    return health if health.state is UP else replace(health, state=PROBING)


def released(health: Health) -> Health:
    """A request has ended that says nothing: its client has left. If it was the probe, another may be."""
    return replace(health, state=OUT) if health.state is PROBING else health


def succeeded(health: Health) -> Health:
    """A request was answered whole, or a probe's answer has begun. While it is out, that was one from before."""
    if health is WELL or health.state in (OUT, UNFIT):
        return health
    return WELL if not health.checks_failed else Health(checks_failed=health.checks_failed)


def failed(health: Health, now_s: float, *, unreachable: bool, last: bool) -> Health:
    """A request has failed.

    Args:
        unreachable: there was not even a connection.
        last: no other upstream is up.
    """
    if health.state in (OUT, UNFIT):
        return health
    failures = health.failures + 1
    if health.state is UP and not unreachable and (last or failures < FAILURES_MAX):
        return replace(health, failures=min(failures, FAILURES_MAX))
    outs = 1 if last else health.outs + 1
    # Up to 2 ** 5: OUT_MAX_S is reached by then.
    out_s = min(OUT_MAX_S, OUT_FIRST_S * 2 ** min(outs - 1, 5))
    return replace(health, state=OUT, failures=failures, outs=outs, until_s=now_s + out_s)


def checked(health: Health, *, fine: bool) -> Health:
    """A health check has been answered, or not."""
    if fine:
        return replace(health, checks_failed=0) if health.state is UP and health.failures else WELL
    checks_failed = min(health.checks_failed + 1, CHECKS_FAILED_MAX)
    state = UNFIT if checks_failed >= CHECKS_FAILED_MAX else health.state
    return replace(health, state=state, checks_failed=checks_failed)


def returns_in_s(health: Health, now_s: float, *, check_interval_s: float) -> float:
    """When it may be worth to ask again."""
    if health.state is UNFIT:
        return check_interval_s
    return max(0.0, health.until_s - now_s)
