"""What all calls share: the broker, the clock, who is who, and how the service was set up."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from headrace.clock import Clock
from headrace.queue.broker import Broker
from headrace.queue.limits import ACCOUNT_DEFAULT, REGION_DEFAULT
from headrace.sqs.signature import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsOptions:
    """How the service is set up.

    Attributes:
        verifier: checks signatures; None while no keys are configured, and then everybody is served.
        region: for requests that name none.
        account: for requests whose key names none.
        behind_proxy: whether `X-Forwarded-Proto` is a proxy's word and may be believed.
    """

    verifier: Verifier | None = None
    region: str = REGION_DEFAULT
    account: str = ACCOUNT_DEFAULT
    behind_proxy: bool = False


class RequestIds:
    """Ids of answers, in the form of a UUID: unique among processes by 80 random bits, in a process by counting.

    Counting takes a third of the time of drawing each id, and nothing hangs on whether they can be guessed.
    """

    def __init__(self) -> None:
        h = os.urandom(10).hex()
        self._prefix: Final = f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:]}-"
        self._next: Final = count(1).__next__

    def __call__(self) -> str:
        return f"{self._prefix}{self._next():012x}"


@dataclass(frozen=True, slots=True)
class Context:
    """Shared by all calls; `policies` holds the queues' policies that are on their way into the store."""

    broker: Broker
    clock: Clock
    verifier: Verifier | None
    region: str
    account: str
    behind_proxy: bool
    request_ids: Callable[[], str] = field(default_factory=RequestIds)
    policies: dict[str, str | None] = field(default_factory=dict)
