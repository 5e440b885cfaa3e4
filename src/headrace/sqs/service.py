"""The SQS service: from an HTTP request to the action that serves it.

A target header, or its content type, makes a request JSON; any other request is Query. The caller is identified before
the request's content is read.
"""

from __future__ import annotations

from typing import Final

from headrace.clock import Clock
from headrace.http.messages import Request
from headrace.queue.broker import Broker
from headrace.sqs import codec_json, codec_query, limits
from headrace.sqs.api import ACTIONS, NOT_AT_QUEUE_URLS, TARGETS
from headrace.sqs.call import Call
from headrace.sqs.codec import Codec
from headrace.sqs.codec_json import JSON
from headrace.sqs.codec_query import QUERY
from headrace.sqs.codec_query_json import QUERY_JSON, accepts_json
from headrace.sqs.context import Context, SqsOptions
from headrace.sqs.errors import (
    METHOD_NOT_ALLOWED,
    MISSING_ACTION,
    NO_OPERATION,
    REQUEST_TOO_LARGE,
    UNKNOWN_OPERATION,
    Fault,
)

_DEFAULTS: Final = SqsOptions()


class SqsService:
    """Serves the SQS API over a broker. `handle` is a Handler: a plain call that answers at once or later."""

    def __init__(self, broker: Broker, clock: Clock, *, options: SqsOptions = _DEFAULTS) -> None:
        self._context = Context.of(broker, clock, options)

    def handle(self, request: Request) -> None:
        """Answer `request`, exactly once; errors in the form of the protocol that it speaks."""
        call = Call(self._context, request, codec_of(request))
        try:
            if len(request.body) > limits.REQUEST_BYTES_MAX:
                raise _too_large(request)
            if call.codec is JSON:
                _serve_json(call, request.headers.get(b"x-amz-target"))
            else:
                _serve_query(call)
        except Exception as error:  # noqa: BLE001 - the last resort: whatever it was, the client gets its answer
            call.fail(error)


def codec_of(request: Request) -> Codec:
    """The protocol in which `request` is answered."""
    headers = request.headers
    if b"x-amz-target" in headers or headers.get(b"content-type", b"").startswith(b"application/x-amz-json"):
        return JSON
    return QUERY_JSON if accepts_json(headers.get(b"accept", b"")) else QUERY


def _serve_json(call: Call, target: bytes | None) -> None:
    action = TARGETS.get(target or b"")
    if action is None:
        name = (target or b"").decode("latin-1")[:128]
        raise Fault(UNKNOWN_OPERATION, f"The operation {name!r} is not known." if name else "There is no X-Amz-Target.")
    if call.request.method != "POST":
        raise _wrong_method(call)
    call.operation = action.name
    call.identify()
    action.serve(call, codec_json.decode(action.decoder, call.request.body))


def _serve_query(call: Call) -> None:
    request = call.request
    if request.method not in ("GET", "POST"):
        raise _wrong_method(call)
    call.identify()
    parameters = codec_query.parse(request.query.encode())
    if request.method == "POST":
        parameters += codec_query.parse(request.body)
    name = next((value for key, value in parameters if key == "Action"), None)
    if not name:
        raise _no_action(call)
    action = ACTIONS.get(name)
    if action is None or (name in NOT_AT_QUEUE_URLS and call.address is not None):
        raise Fault(UNKNOWN_OPERATION, f"The action {name[:128]} is not valid for this endpoint.")
    call.operation = name
    action.serve(call, codec_query.decode(name, action.shape, parameters))


def _no_action(call: Call) -> Fault:
    text = "The request must contain the parameter Action."
    if call.request.method == "GET" and call.address is not None:
        call.codec = QUERY  # AWS answers with XML, whatever is accepted
        return Fault(NO_OPERATION, text)
    return Fault(MISSING_ACTION, text)


def _too_large(request: Request) -> Fault:
    text = f"A request can have {limits.REQUEST_BYTES_MAX} bytes. You have sent {len(request.body)} bytes."
    return Fault(REQUEST_TOO_LARGE, text)


def _wrong_method(call: Call) -> Fault:
    return Fault(METHOD_NOT_ALLOWED, f"The HTTP method {call.request.method[:32]} is not allowed here.")
