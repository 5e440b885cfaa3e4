"""Two ways to the same queue: boto3 over the SQS API, and headrace's own client. One interface for the demo's workers.

Neither repeats a send by itself: botocore's retries are off, and headrace's client repeats only what is safe to repeat.
So every answer that the kill cut is seen here, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from headrace.errors import OutcomeUnknown, Unavailable

VISIBILITY_S: Final = 10  # short: what was in flight to a consumer that never got the answer comes back soon
WAIT_S: Final = 1


class Refused(Exception):
    """The broker was not there: nothing was done, trying again is safe."""


class Cut(Exception):
    """The connection broke before the answer: it was done or it was not."""


class Received(NamedTuple):
    """A message as a consumer sees it. `handle` is what deletes it, of the client's own type."""

    id: str
    receives: int
    body: bytes
    handle: Any


class Client(Protocol):
    """A connection to the demo's queue."""

    batch: int
    """How many messages it sends or receives at once."""

    def send(self, bodies: Sequence[bytes]) -> list[str]:
        """Send messages; the ids that the broker gave them, in order. Raises Refused or Cut."""

    def receive(self) -> list[Received]:
        """Up to `batch` messages, waiting a second for the first. Raises Refused or Cut."""

    def delete(self, messages: Sequence[Received]) -> None:
        """Acknowledge. Idempotent: may be repeated after Cut. Raises Refused or Cut."""


class Boto3Client:
    """Any AWS SDK, with nothing changed but the endpoint."""

    batch = 10

    def __init__(self, endpoint: str, queue: str) -> None:
        import boto3  # noqa: PLC0415 - half a second to import, and half of the workers do without
        from botocore.config import Config  # noqa: PLC0415

        self._sqs = boto3.client(
            "sqs",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="demo",
            aws_secret_access_key="demo",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30),
        )
        self._url = self._sqs.create_queue(
            QueueName=queue, Attributes={"VisibilityTimeout": str(VISIBILITY_S)}
        )["QueueUrl"]  # fmt: skip

    def send(self, bodies: Sequence[bytes]) -> list[str]:
        entries = [{"Id": str(place), "MessageBody": body.decode()} for place, body in enumerate(bodies)]
        answer = self._call("send_message_batch", Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError(f"entries were refused: {answer['Failed']}")
        ids = {entry["Id"]: entry["MessageId"] for entry in answer["Successful"]}
        return [ids[entry["Id"]] for entry in entries]

    def receive(self) -> list[Received]:
        answer = self._call(
            "receive_message",
            MaxNumberOfMessages=self.batch,
            WaitTimeSeconds=WAIT_S,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [
            Received(
                message["MessageId"],
                int(message["Attributes"]["ApproximateReceiveCount"]),
                message["Body"].encode(),
                message["ReceiptHandle"],
            )
            for message in answer.get("Messages", ())
        ]

    def delete(self, messages: Sequence[Received]) -> None:
        entries = [{"Id": str(place), "ReceiptHandle": message.handle} for place, message in enumerate(messages)]
        answer = self._call("delete_message_batch", Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError(f"deletes were refused: {answer['Failed']}")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, HTTPClientError  # noqa: PLC0415

        try:
            answer: dict[str, Any] = getattr(self._sqs, method)(QueueUrl=self._url, **parameters)
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise Refused(str(error)) from error
        except HTTPClientError as error:
            raise Cut(str(error)) from error
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
            raise Cut(str(error)) from error
        return answer


class NativeClient:
    """headrace's own client: the same queue on the same port, in larger batches."""

    batch = 100

    def __init__(self, endpoint: str, queue: str) -> None:
        import headrace  # noqa: PLC0415 - as above

        self._client = headrace.connect(endpoint)
        self._queue = self._client.queue(queue, create=True, visibility_timeout=VISIBILITY_S)

    def send(self, bodies: Sequence[bytes]) -> list[str]:
        try:
            return [sent.id for sent in self._queue.send_many(bodies)]
        except Unavailable as error:
            raise Refused(str(error)) from error
        except OutcomeUnknown as error:
            raise Cut(str(error)) from error

    def receive(self) -> list[Received]:
        try:
            messages = self._queue.receive(max=self.batch, wait=WAIT_S)
        except Unavailable as error:
            raise Refused(str(error)) from error
        except OutcomeUnknown as error:
            raise Cut(str(error)) from error
        return [Received(message.id, message.receives, message.body, message) for message in messages]

    def delete(self, messages: Sequence[Received]) -> None:
        try:
            self._queue.delete([message.handle for message in messages])
        except Unavailable as error:
            raise Refused(str(error)) from error
        except OutcomeUnknown as error:
            raise Cut(str(error)) from error


CLIENTS: Final[dict[str, type[Boto3Client | NativeClient]]] = {"boto3": Boto3Client, "native": NativeClient}
