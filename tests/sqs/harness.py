"""The SQS service over a store in memory, without sockets: for raw requests, and for boto3 clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree as ET

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from headrace.clock import ManualClock
from headrace.queue.broker import Broker
from headrace.queue.store.memory import open_memory_store
from headrace.sqs.context import SqsOptions
from headrace.sqs.service import SqsService
from tests.patience import PATIENCE_S

HOST = "localhost:9324"
ACCOUNT = "000000000000"


@dataclass
class FakeRequest:
    """A request that keeps its answer."""

    method: str = "POST"
    target: str = "/"
    headers: dict[bytes, bytes] = field(default_factory=lambda: {b"host": HOST.encode()})
    body: bytes = b""
    peer: str = "127.0.0.1"
    secure: bool = False
    on_disconnect: Callable[[], None] | None = None
    answers: list[Answer] = field(default_factory=list)
    answered: Callable[[], None] = lambda: None
    here: bool = True
    path: str = field(init=False)
    query: str = field(init=False)

    def __post_init__(self) -> None:
        self.aim(self.target)

    def aim(self, target: str) -> None:
        self.target = target
        self.path, _, self.query = target.partition("?")

    def connected(self) -> bool:
        return self.here

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.answers.append(Answer(status, body, content_type.decode(), {k.decode(): v.decode() for k, v in headers}))
        self.answered()


@dataclass
class Answer:
    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]

    def json(self) -> dict[str, Any]:
        """The body of a JSON answer; an operation that answers nothing has none."""
        decoded: dict[str, Any] = json.loads(self.body or b"{}")
        return decoded

    def xml(self) -> ET.Element:
        """The root element, without its namespace."""
        root = ET.fromstring(self.body)
        for element in root.iter():
            element.tag = element.tag.removeprefix("{http://queue.amazonaws.com/doc/2012-11-05/}")
        return root

    @property
    def code(self) -> str:
        """The Query code of an error, in either protocol; empty for a success."""
        if self.content_type == "text/xml":
            return self.xml().findtext("Error/Code") or ""
        if self.content_type == "application/json":
            return str(self.json().get("Error", {}).get("Code", ""))
        return self.headers.get("x-amzn-query-error", "").partition(";")[0]

    @property
    def message(self) -> str:
        if self.content_type == "text/xml":
            return self.xml().findtext("Error/Message") or ""
        if self.content_type == "application/json":
            return str(self.json()["Error"]["Message"])
        return str(self.json()["message"])


class Harness:
    """A service with its broker, its loop and a clock that only the test moves."""

    def __init__(self, *, cooldowns: bool = False, options: SqsOptions | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.broker = Broker(open_memory_store(self.clock, cooldowns=cooldowns), self.clock)
        self.service = SqsService(self.broker, self.clock, options=options or SqsOptions())
        self.loop.run_until_complete(self.broker.start())

    def close(self) -> None:
        self.loop.run_until_complete(self.broker.stop())
        self.loop.close()

    # --- raw requests ---

    def begin(self, request: FakeRequest) -> None:
        """Hand `request` to the service; the answer may come later."""

        async def handle() -> None:
            self.service.handle(request)

        self.loop.run_until_complete(handle())

    def serve(self, request: FakeRequest) -> Answer:
        """Hand `request` to the service and run the loop until it is answered."""

        async def handle() -> None:
            done = asyncio.Event()
            request.answered = done.set
            self.service.handle(request)
            await asyncio.wait_for(done.wait(), PATIENCE_S)

        self.loop.run_until_complete(handle())
        assert len(request.answers) == 1
        return request.answers[0]

    def json(self, operation: str, _raw: bytes | None = None, **members: Any) -> Answer:
        """A JSON request; `_raw` is sent instead of the members."""
        return self.serve(json_request(operation, _raw, **members))

    def query(
        self, operation: str, parameters: dict[str, Any] | None = None, *, path: str = "/", accept: bytes = b""
    ) -> Answer:
        """A Query request by POST."""
        form = urlencode({"Action": operation, "Version": "2012-11-05", **(parameters or {})})
        headers = {b"host": HOST.encode(), b"content-type": b"application/x-www-form-urlencoded"}
        if accept:
            headers[b"accept"] = accept
        return self.serve(FakeRequest(target=path, headers=headers, body=form.encode()))

    def create(self, name: str = "q", **attributes: str) -> str:
        """A queue's URL."""
        answer = self.json("CreateQueue", QueueName=name, Attributes=attributes)
        assert answer.status == 200, answer
        return str(answer.json()["QueueUrl"])

    def advance(self, ms: int) -> None:
        """Move the clock and let the store see it."""
        self.clock.advance(ms)
        self.broker.store.advance()


class Boto3:
    """A boto3 client whose requests go to a service in memory; which one can be changed, since clients are slow to make."""

    def __init__(self, *, models: Path | None = None, **options: Any) -> None:
        """`models`: a folder of service models to prefer to botocore's; `options`: of the client."""
        settings: dict[str, Any] = {
            "region_name": "us-east-1",
            "endpoint_url": f"http://{HOST}",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "config": Config(retries={"max_attempts": 0}),
            **options,
        }
        self.harness: Harness | None = None
        self.client = boto3_client(settings, models)
        self.client.meta.events.register("before-send.sqs", self._send)

    def _send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        assert self.harness is not None
        url = urlsplit(request.url)
        headers = {name.lower().encode(): _bytes(value) for name, value in request.headers.items()}
        body = request.body or b""
        answer = self.harness.serve(
            FakeRequest(
                method=request.method,
                target=url.path + (f"?{url.query}" if url.query else ""),
                headers={b"host": url.netloc.encode(), **headers},
                body=body.encode() if isinstance(body, str) else body,
            )
        )
        return AWSResponse(
            request.url, answer.status, {**answer.headers, "content-type": answer.content_type}, _Raw(answer.body)
        )


def boto3_client(settings: dict[str, Any], models: Path | None) -> Any:
    """A boto3 client of SQS, by the service models in `models` first."""
    session = boto3.session.Session()
    if models is not None:
        session._loader.search_paths.insert(0, str(models))
    return session.client("sqs", **settings)


class _Raw:
    """What botocore reads a body from."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any, **__: Any) -> list[bytes]:
        return [self._body]


def json_request(operation: str, raw: bytes | None = None, **members: Any) -> FakeRequest:
    headers = {
        b"host": HOST.encode(),
        b"x-amz-target": f"AmazonSQS.{operation}".encode(),
        b"content-type": b"application/x-amz-json-1.0",
    }
    return FakeRequest(headers=headers, body=json.dumps(members).encode() if raw is None else raw)


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


@dataclass(frozen=True)
class Seen:
    """An error as a boto3 user sees it."""

    code: str
    message: str
    status: int
    exception: str


def refused(call: Callable[..., Any], **parameters: Any) -> Seen:
    """The error that a boto3 call ends in; fails if it succeeds."""
    try:
        call(**parameters)
    except ClientError as error:
        response = error.response
        return Seen(
            response["Error"]["Code"],
            response["Error"]["Message"],
            response["ResponseMetadata"]["HTTPStatusCode"],
            type(error).__name__,
        )
    raise AssertionError(f"{parameters} should have been refused")
