"""What a request meets first: the guard, then the page or the service that its path names.

/health/live, /health/ready   for supervisors and load balancers; no data, so no questions asked
/metrics                      for Prometheus; by default for this machine only
/headrace/v1/…                the native API
everything else               the SQS API, whose queue URLs may begin with anything
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec

from headrace import metrics
from headrace._version import __version__
from headrace.broker_settings import is_loopback
from headrace.clock import Clock
from headrace.errors import AccessDenied, HeadraceError
from headrace.http import exposition
from headrace.http.guard import ANY, find_offence
from headrace.http.listener import Statistics as HttpStatistics
from headrace.http.messages import Handler, Request
from headrace.http.router import Router
from headrace.native.server import Authorize
from headrace.queue.broker import Broker
from headrace.queue.model import QueueDescription, TopicDescription
from headrace.queue.operations import ListQueues, ListTopics, Operation
from headrace.sqs.call import Call
from headrace.sqs.context import Context
from headrace.sqs.service import codec_of
from headrace.sqs.signature import SignatureFault, Verifier
from headrace.stream_state import read_pipelines

NATIVE_PREFIX: Final = "/headrace/v1/"
UNIX_PEER: Final = "unix"

_FORWARDED: Final = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
_PAGE_QUEUES: Final = 1_000
_TEXT: Final = b"text/plain; charset=utf-8"

_ENGINE_SHAPES: Final = {
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    500: "InternalFailure",
}


class Health(Enum):
    """What the node says of itself; READY and FULL are ready."""

    STARTING = "starting"
    READY = "ready"
    FULL = "full"  # ready, but its disk is full: sends are refused, and all else is served, so nobody should turn away
    AWAY = "away"  # its database is: it answers 503, and is ready again as soon as that is back
    DRAINING = "draining"
    FAILED = "failed"


def error_body(status: int, reason: str) -> tuple[bytes, bytes]:
    """How the HTTP engine's own refusals look: as AWS's JSON protocol writes its errors at the level of HTTP."""
    shape = _ENGINE_SHAPES.get(status, "MalformedHttpRequestException")
    body = {"__type": f"com.amazon.coral.service#{shape}", "message": reason}
    return b"application/x-amz-json-1.0", msgspec.json.encode(body)


def native_authorize(verifier: Verifier) -> Authorize:
    """Who may use the native API of a broker with keys.

    It knows no policies and reaches every queue, so over TCP it is for operators, who sign as they do for SQS. The Unix
    socket needs no signature: the file system admits nobody but the broker's own user.
    """

    def authorize(request: Request, operation: Operation | None) -> None:
        del operation  # an operator may do everything
        if request.peer == UNIX_PEER:
            return
        try:
            principal = verifier.verify(request)
        except SignatureFault as fault:
            raise AccessDenied(f"{fault.code}: {fault.message}") from None
        if not principal.operator:
            raise AccessDenied(f"{principal.arn} is not an operator; the native API is for operators, others use SQS")

    return authorize


class MetricsPage:
    """Answers /metrics. Counts are read queue by queue through the broker, like anybody's."""

    def __init__(
        self, broker: Broker, clock: Clock, *, http: Callable[[], HttpStatistics], audience: str, behind_proxy: bool
    ) -> None:
        """Args:
        http: the listener's statistics.
        audience: `local`, `everyone` or `off`.
        behind_proxy: a proxy's own address says nothing of who asks.
        """
        self._broker = broker
        self._clock = clock
        self._http = http
        self._audience = audience
        self._behind_proxy = behind_proxy
        self._scrapes: set[asyncio.Task[None]] = set()

    def handle(self, request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            request.respond(405, b"metrics are read with GET\n", _TEXT, ((b"allow", b"GET, HEAD"),))
        elif not self._admits(request):
            request.respond(403, b"metrics are for this machine; --metrics everyone opens them\n", _TEXT)
        else:
            scrape = asyncio.get_running_loop().create_task(self._answer(request))
            self._scrapes.add(scrape)
            scrape.add_done_callback(self._scrapes.discard)

    def _admits(self, request: Request) -> bool:
        if self._audience == "everyone" or request.peer == UNIX_PEER:
            return self._audience != "off"
        forwarded = any(name in request.headers for name in _FORWARDED)
        local = is_loopback(request.peer) and not forwarded and not self._behind_proxy
        return self._audience == "local" and local and find_offence(request.headers) is None

    async def _answer(self, request: Request) -> None:
        try:
            queues, topics = await self._queues(), await self._topics()
            pipelines = await read_pipelines(self._broker.call)
        except HeadraceError as error:
            request.respond(503, f"{error}\n".encode(), _TEXT)
            return
        store, http, waiting = self._broker.store.statistics(), self._http(), self._broker.waiting()
        snapshot = metrics.Snapshot(__version__, self._clock(), queues, store, http, waiting, topics, pipelines)
        request.respond(200, metrics.render(snapshot), exposition.CONTENT_TYPE)

    async def _queues(self) -> list[QueueDescription]:
        found: list[QueueDescription] = []
        after = ""
        while True:
            page = await self._broker.call(ListQueues(after=after, limit=_PAGE_QUEUES))
            found += page
            if len(page) < _PAGE_QUEUES:
                return found
            after = page[-1].info.arn

    async def _topics(self) -> list[TopicDescription]:
        found: list[TopicDescription] = []
        while True:
            page = await self._broker.call(ListTopics(after=found[-1].info.arn if found else "", limit=_PAGE_QUEUES))
            found += page
            if len(page) < _PAGE_QUEUES:
                return found


class Front:
    """The node's handler. Stateless but for what it is given."""

    def __init__(
        self,
        *,
        sqs: Handler,
        native: Handler,
        metrics_page: Handler,
        health: Callable[[], Health],
        context: Context,
        allowed_hosts: frozenset[str],
    ) -> None:
        """Args:
        health: the node's own.
        context: of the SQS service, to refuse in its protocols' form.
        allowed_hosts: for the guard, besides loopback names; with ANY, signatures keep web pages out.
        """
        self._health = health
        self._context = context
        self._allowed_hosts = allowed_hosts
        self._services = Router(sqs, prefixes={NATIVE_PREFIX: native})
        self._pages: dict[str, Handler] = {
            "/health/live": self._live,
            "/healthz": self._live,
            "/health/ready": self._ready,
            "/readyz": self._ready,
            "/metrics": metrics_page,  # has a guard of its own, a stricter one
        }

    def __call__(self, request: Request) -> None:
        page = self._pages.get(request.path)
        if page is not None:
            page(request)
            return
        # No browser reaches a Unix socket.
        offence = None if request.peer == UNIX_PEER else find_offence(request.headers, self._allowed_hosts)
        if offence is None:
            self._services(request)
        else:
            self._refuse(request, offence)

    def _refuse(self, request: Request, offence: str) -> None:
        hint = "" if ANY in self._allowed_hosts else "; a host is admitted with --allow-host NAME"
        denied = AccessDenied(f"{offence}{hint}")
        if request.path.startswith(NATIVE_PREFIX):
            request.respond(403, msgspec.json.encode(denied.to_wire()), b"application/json")
            return
        Call(self._context, request, codec_of(request)).fail(denied)

    def _live(self, request: Request) -> None:
        request.respond(200, b'{"status":"live"}\n')

    def _ready(self, request: Request) -> None:
        health = self._health()
        status = 200 if health in (Health.READY, Health.FULL) else 503
        request.respond(status, msgspec.json.encode({"status": health.value}) + b"\n")
