"""Who asks the service: a client of either protocol, made of botocore's own serializers and parsers, or boto3.

botocore writes the Query requests and reads the answers of both protocols: it is not the code under test. JSON requests
are written plainly, since rows also send what botocore would refuse.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from headrace.queue.broker import Broker
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Operation
from headrace.queue.store.base import Done
from headrace.sqs.service import SqsService
from headrace.testing.driver import StoreDriver, StoreKind
from tests.sqs.harness import Answer, FakeRequest
from tests.sqs.table.rows import HOST, Http


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer: its members, or the code and message of an error."""

    status: int
    members: dict[str, Any]
    code: str = ""
    message: str = ""


class DirectBroker:
    """Stands in for the broker: each request is a commit of its own, and a poll that would wait is answered at once."""

    def __init__(self, driver: StoreDriver) -> None:
        self.driver = driver

    def submit(self, operation: Operation, done: Done) -> None:
        done(self.driver.outcome(operation))

    def receive(self, operation: Operation, done: Done, **_: Any) -> None:
        self.submit(operation, done)

    def find(self, queue: str) -> QueueInfo | None:
        return self.driver.store.find(queue)


class Service:
    """The SQS service over one store, without sockets and without a loop."""

    def __init__(self, kind: StoreKind, folder: Path, *, cooldowns: bool) -> None:
        self.driver = StoreDriver(kind, folder, cooldowns=cooldowns)
        self._service = SqsService(cast("Broker", DirectBroker(self.driver)), self.driver.clock)

    def close(self) -> None:
        self.driver.close()

    def serve(self, request: FakeRequest) -> Answer:
        self._service.handle(request)
        assert len(request.answers) == 1
        return request.answers[0]

    def advance(self, ms: int) -> None:
        self.driver.pass_time(ms)

    def http(self, step: Http) -> dict[str, Any]:
        headers = {b"host": HOST.encode(), **{k.encode(): v.encode() for k, v in step.headers.items()}}
        answer = self.serve(FakeRequest(step.method, step.target, headers, step.body.encode()))
        text = answer.body.decode()
        return {"status": answer.status, "type": answer.content_type, "text": text, "headers": answer.headers}


class Client:
    """A client of the service in one protocol."""

    def __init__(self, service: Service, protocol: str, model: ServiceModel) -> None:
        self._service = service
        self._model = model
        self._json = protocol == "json"
        self._serializer = create_serializer("query", include_validation=False)
        self._parser = create_parser(protocol)

    def call(self, operation: str, members: dict[str, Any]) -> Outcome:
        request = self._json_request(operation, members) if self._json else self._query_request(operation, members)
        answer = self._service.serve(request)
        response = {
            "status_code": answer.status,
            "headers": {**answer.headers, "content-type": answer.content_type},
            "body": answer.body,
        }
        parsed = self._parser.parse(response, self._model.operation_model(operation).output_shape)
        if answer.status == 200:
            return Outcome(200, parsed)
        message = parsed["Error"]["Message"]
        if not self._json and answer.code.endswith("NonExistentQueue"):  # the Query protocol has another text, always
            message = message.removesuffix(" for this wsdl version.") + "."
        return Outcome(answer.status, {}, answer.code, message)

    def _json_request(self, operation: str, members: dict[str, Any]) -> FakeRequest:
        headers = {
            b"host": HOST.encode(),
            b"content-type": b"application/x-amz-json-1.0",
            b"x-amz-target": f"AmazonSQS.{operation}".encode(),
        }
        return FakeRequest(headers=headers, body=json.dumps(members, default=_base64).encode())

    def _query_request(self, operation: str, members: dict[str, Any]) -> FakeRequest:
        made = self._serializer.serialize_to_request(members, self._model.operation_model(operation))
        headers = {b"host": HOST.encode(), b"content-type": b"application/x-www-form-urlencoded"}
        return FakeRequest(headers=headers, body=urlencode(made["body"]).encode())


class Boto3Client:
    """boto3, whose requests go to a service in memory."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def call(self, operation: str, members: dict[str, Any]) -> Outcome:
        try:
            found = getattr(self._client, xform_name(operation))(**members)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            message = error.response["Error"]["Message"].replace(" for this wsdl version.", ".")
            return Outcome(status, {}, error.response["Error"]["Code"], message)
        return Outcome(200, found)


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{value!r} is no JSON")
