"""The context that all calls share: the broker, the clock, the options of the service."""

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
from headrace.sqs.urls import UrlForm


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsOptions:
    """The options of the service.

    Attributes:
        verifier: checks signatures; None without keys, when every request is served.
        region: of requests that name none.
        account: of requests whose key names none.
        behind_proxy: whether a proxy sets `X-Forwarded-Proto`, so that it is believed.
        queue_urls: the form of queue URLs in answers.
    """

    verifier: Verifier | None = None
    region: str = REGION_DEFAULT
    account: str = ACCOUNT_DEFAULT
    behind_proxy: bool = False
    queue_urls: UrlForm = "short-default"


class RequestIds:
    """Request ids in the form of a UUID: 80 random bits for the process, and a counter.

    A counter takes a third of the time of random bits for each id, and request ids need not be secret.
    """

    def __init__(self) -> None:
        h = os.urandom(10).hex()
        self._prefix: Final = f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:]}-"
        self._next: Final = count(1).__next__

    def __call__(self) -> str:
        return f"{self._prefix}{self._next():012x}"


@dataclass(frozen=True, slots=True)
class Context:
    """Shared by all calls. `policies` holds the policies of queues that are not committed yet."""

    broker: Broker
    clock: Clock
    verifier: Verifier | None
    region: str
    account: str
    behind_proxy: bool
    queue_urls: UrlForm
    request_ids: Callable[[], str] = field(default_factory=RequestIds)
    policies: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, broker: Broker, clock: Clock, options: SqsOptions) -> Context:
        """The context of a service with `options`."""
        return cls(
            broker,
            clock,
            options.verifier,
            options.region,
            options.account,
            options.behind_proxy,
            options.queue_urls,
        )
