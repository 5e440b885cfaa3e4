"""One request in progress: its caller, its queue, its answer.

A call is answered exactly once, with a result or with a fault. Every error, expected or not, ends in `fail`: no client
waits for ever, and none sees a traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from headrace.errors import HeadraceError, StoreError
from headrace.http.messages import Request
from headrace.queue.broker import Broker
from headrace.queue.limits import REGION_DEFAULT
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Operation
from headrace.sqs import limits, policy
from headrace.sqs.codec import Codec
from headrace.sqs.context import Context
from headrace.sqs.errors import (
    ACCESS_DENIED,
    INTERNAL_FAILURE,
    Fault,
    missing,
    no_queue,
    translate,
)
from headrace.sqs.keys import ANONYMOUS, Principal
from headrace.sqs.shapes import Shape
from headrace.sqs.signature import credential_scope
from headrace.sqs.urls import QueueAddress, UrlStyle, parse_path, parse_url, url_style, valid_account, valid_name

_log: Final = logging.getLogger(__name__)


class Call:
    """A request being served.

    Attributes:
        operation: its name; empty until it is known.
        principal: the caller.
        account: the owner of a queue that is named without an account.
        region: the region of a queue that is named without one.
    """

    __slots__ = ("_answered", "account", "codec", "context", "operation", "principal", "region", "request")

    def __init__(self, context: Context, request: Request, codec: Codec) -> None:
        self.context = context
        self.request = request
        self.codec = codec
        self.operation = ""
        self.principal: Principal = ANONYMOUS
        self.account = context.account
        self.region = REGION_DEFAULT
        self._answered = False

    @property
    def broker(self) -> Broker:
        return self.context.broker

    # ------------------------------------------------------------------------------------------------------- the caller

    def identify(self) -> None:
        """Set the caller, its account and the region.

        Raises:
            SignatureFault: keys are configured, and the request has no valid signature by one of them.
        """
        verifier = self.context.verifier
        if verifier is not None:
            self.principal = verifier.verify(self.request)
            self.account = self.principal.account
        scope = credential_scope(self.request)
        if scope is None:
            address = self.address
            self.region = (address and address.region) or self.url_style.region or self.context.region
            return
        access_key, self.region = scope
        if verifier is None and len(access_key) == 12 and valid_account(access_key):
            self.account = access_key  # as LocalStack and moto do: tests play several accounts without any keys

    @property
    def address(self) -> QueueAddress | None:
        """The queue that the request's own path names."""
        path = self.request.path
        return parse_path(path) if len(path) > 1 else None

    @property
    def url_style(self) -> UrlStyle:
        """How to write queue URLs for this client."""
        address, request = self.address, self.request
        host = request.headers.get(b"host", b"localhost").decode("latin-1")
        secure = request.secure or (self.context.behind_proxy and request.headers.get(b"x-forwarded-proto") == b"https")
        path_region = address.region if address is not None else None
        return url_style(host, path_region, secure=secure, form=self.context.queue_urls)

    def url(self, arn: str) -> str:
        return self.url_style.url(arn)

    # ------------------------------------------------------------------------------------------------------- the queue

    def sender(self) -> str | None:
        """The `SenderId` of a message that this call sends; None without authentication."""
        return None if self.principal.access_key is None else self.principal.name

    def queue(self, url: str | None) -> QueueInfo:
        """The queue of `url`, or of the request's path, after a check that the caller may do this operation with it.

        Raises:
            Fault: MissingParameter, QueueDoesNotExist or AccessDenied.
        """
        if not url:
            if self.address is None:
                raise missing("QueueUrl")
            url = f"http://localhost{self.request.path}"
        arn = _arn_of_url(url, self.region, self.account) if len(url) <= limits.URL_CHARACTERS_MAX else None
        if arn is None:  # AWS has InvalidAddress for this and answers as for any queue that does not exist
            raise no_queue()
        return self.queue_by_arn(arn)

    def queue_by_arn(self, arn: str) -> QueueInfo:
        info = self.context.broker.find(arn)
        if info is None:
            raise no_queue()
        if self.principal.access_key is not None:
            self.authorize(arn, info.settings.stored.get("Policy"))
        return info

    def authorize(self, arn: str, policy_json: str | None = None) -> None:
        """Refuse unless the caller may do this operation with `arn`; an empty one means no particular queue."""
        owner = arn.split(":", 5)[4] if arn else self.account
        request = self.request
        allowed = policy.allows(
            policy_json, self.principal, self.operation, arn, owner, request.peer, secure=request.secure
        )
        if not allowed:
            resource = self.url(arn) if arn else "SQS"
            raise Fault(ACCESS_DENIED, f"Access to the resource {resource} is denied.")

    # ------------------------------------------------------------------------------------------------------ the answer

    def submit(self, operation: Operation, finish: Callable[[Any], None]) -> None:
        """Submit `operation` to the broker; `finish` takes its outcome and answers. An error is answered here."""
        self.context.broker.submit(operation, self.guarded(finish))

    def guarded(self, finish: Callable[[Any], None], *, errors: bool = False) -> Callable[[Any], None]:
        """`finish` wrapped so that the store can call it: it never raises, and errors are answered.

        Args:
            finish: takes the outcome and answers.
            errors: whether `finish` also takes outcomes that are errors; it then raises the error to answer.
        """

        def done(outcome: Any) -> None:
            try:
                if not errors and isinstance(outcome, HeadraceError):
                    raise outcome
                finish(outcome)
            except Exception as error:  # noqa: BLE001 - the store must not be disturbed, the client must be answered
                self.fail(error)

        return done

    def answer(self, result: Shape | None) -> None:
        request_id, codec = self.context.request_ids(), self.codec
        body = codec.answer(self.operation, result, request_id)
        self._respond(200, body, request_id, ())

    def fail(self, error: Exception) -> None:
        """Answer any error."""
        request_id = self.context.request_ids()
        if isinstance(error, Fault):
            fault = error
        elif isinstance(error, HeadraceError):
            fault = translate(error)
        else:
            fault = Fault(INTERNAL_FAILURE, "The request processing has failed because of an internal failure.")
        if fault.kind.status >= 500 and not isinstance(error, StoreError):  # the node logs its store's failures itself
            self._log(error, request_id)
        body, headers = self.codec.fault(fault, request_id)
        self._respond(fault.kind.status, body, request_id, headers)

    def _log(self, error: Exception, request_id: str) -> None:
        """Log a bug of ours. Names and ids only: the request's content may be secret."""
        facts = {"action": "sqs.request_failed", "operation": self.operation, "request_id": request_id}
        trace = None if isinstance(error, HeadraceError) else error
        _log.error("%s failed: %s", self.operation or "a request", type(error).__name__, exc_info=trace, extra=facts)

    def _respond(self, status: int, body: bytes, request_id: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        if self._answered:
            return
        self._answered = True
        identified = ((b"x-amzn-requestid", request_id.encode()), *headers)
        self.request.respond(status, body, self.codec.content_type, identified)


@lru_cache(maxsize=limits.PARSED_URLS_MAX)
def _arn_of_url(url: str, region: str, account: str) -> str | None:
    """The ARN that `url` means for a client of `region` and `account`; None if it has no form of a queue URL."""
    address = parse_url(url)
    if address is None:
        return None
    name = address.name if valid_name(address.name) else ""  # no queue has the empty name
    return f"arn:aws:sqs:{address.region or region}:{address.account or account}:{name}"
