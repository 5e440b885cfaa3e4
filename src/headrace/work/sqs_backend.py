"""The backend over any SQS endpoint, by boto3: AWS itself, or another server of its API.

What SQS cannot do raises NotSupported by name: it keeps no state and has no transactions. A task's end is then sends first
and the delete after them: whoever dies between the two leaves a task to be run, or a retry to be sent, once more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

from headrace.errors import (
    AccessDenied,
    CallerError,
    HeadraceError,
    InvalidMessage,
    InvalidParameter,
    OutcomeUnknown,
    QueueNotFound,
    ReceiptExpired,
    Unavailable,
)
from headrace.queue.model import Delivery, Entry, Sent, short_name
from headrace.queue.operations import Transact, TransactOutcome
from headrace.work import keys, limits, sqs_address, sqs_messages
from headrace.work.backend import Capabilities
from headrace.work.errors import NotSupported

T = TypeVar("T")

REGION_DEFAULT: Final = "us-east-1"
"""Of an endpoint that is not AWS's, where the environment names none: it is part of signatures."""
SEVERAL_WAIT_S: Final = 1.0
"""SQS waits at one queue alone; of several, the others are looked at again after this."""

_UNAVAILABLE: Final = (
    "ServiceUnavailable", "ServiceUnavailableException", "RequestThrottled", "ThrottlingException", "Throttling"
)  # fmt: skip
"""Refused before anything was done; of any other 5xx nobody says so."""
_DENIED: Final = ("AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch")
_STALE: Final = ("ReceiptHandleIsInvalid", "InvalidReceiptHandle")


class SqsBackend:
    """See Backend. Keys are boto3's: the environment, a profile, the instance's role.

    Args:
        target: `sqs://REGION`; `https://sqs.REGION.amazonaws.com/…`; or `sqs+http://HOST:PORT` for another server.
    """

    name = "SQS"
    capabilities = Capabilities(transactions=False, state=False, holders=False, delay_max_ms=sqs_messages.DELAY_MAX_MS)

    def __init__(self, target: str) -> None:
        """Raises InvalidParameter: the address is none of these, or boto3 is not installed."""
        self._client = _client(target)
        self._urls: dict[str, str] = {}
        self._finding = threading.Lock()

    def prepare(self, queue: str) -> None:
        self._url(queue)

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Sent | CallerError]:
        outcomes: list[Sent | CallerError] = []
        for batch in sqs_messages.batches(entries):
            outcomes += self._send_batch(queue, batch)
        return outcomes

    async def asend(self, queue: str, entries: Sequence[Entry]) -> list[Sent | CallerError]:
        return await asyncio.to_thread(self.send, queue, entries)

    def receive(
        self, queues: Sequence[str], limit: int, *, visibility_ms: int, wait_s: float, holder: str | None = None
    ) -> list[tuple[str, list[Delivery]]]:
        del holder
        found: list[tuple[str, list[Delivery]]] = []
        for queue in queues:
            deliveries = self._receive(queue, limit, visibility_ms, 0) if limit > 0 and len(queues) > 1 else []
            if deliveries:
                found.append((queue, deliveries))
                limit -= len(deliveries)
        if found or not queues:
            return found
        waited = self._receive(
            queues[0], limit, visibility_ms, wait_s if len(queues) == 1 else min(wait_s, SEVERAL_WAIT_S)
        )
        return [(queues[0], waited)] if waited else []

    def message_state(self, queue: str, seq: int) -> str | None:
        del queue, seq
        return None

    def take(self, queue: str, seqs: Sequence[int], *, visibility_ms: int) -> list[Delivery | CallerError]:
        del queue, seqs, visibility_ms
        self._refuse("cancel")

    def change_visibility(
        self, queue: str, changes: Sequence[tuple[bytes, int]], *, holder: str | None = None
    ) -> list[CallerError | None]:
        del holder
        outcomes: list[CallerError | None] = []
        for start in range(0, len(changes), sqs_messages.BATCH_MAX):
            batch = changes[start : start + sqs_messages.BATCH_MAX]
            entries = [
                {"Id": str(place), "ReceiptHandle": receipt.decode(), "VisibilityTimeout": -(-timeout_ms // 1_000)}
                for place, (receipt, timeout_ms) in enumerate(batch)
            ]
            answer = self._call("change_message_visibility_batch", queue, Entries=entries)
            outcomes += _outcomes(answer, len(batch), lambda _: None)
        return outcomes

    def transact(self, operation: Transact) -> TransactOutcome:
        """Not atomic: sends, then deletes. State that only speeds up or tells is left out; all else is refused.

        Raises:
            NotSupported: it would write state.
            InvalidMessage, ReceiptExpired: of the first message that was refused; those before it are done.
        """
        if operation.expect or any(value is not None and not _dispensable(key) for key, value in operation.state):
            written = [key for key, value in (*operation.expect, *operation.state) if not _dispensable(key)]
            self._refuse(_feature(written[0] if written else b""))
        sent = [_all(self.send(short_name(arn), entries)) for arn, entries in operation.sends]
        for arn, receipts in operation.acknowledge:
            self._delete(short_name(arn), receipts)
        return TransactOutcome(sent)

    async def atransact(self, operation: Transact) -> TransactOutcome:
        return await asyncio.to_thread(self.transact, operation)

    def state(self, prefix: bytes, *, limit: int = 10_000, after: bytes = b"") -> list[tuple[bytes, bytes]]:
        del prefix, limit, after
        return []

    def read(self, key: bytes) -> bytes | None:
        del key
        return None

    async def aread(self, key: bytes) -> bytes | None:
        return self.read(key)

    def wait_state(self, key: bytes, wait_s: float) -> bytes | None:
        del wait_s
        self._refuse(_feature(key))

    async def await_state(self, key: bytes, wait_s: float) -> bytes | None:
        del wait_s
        self._refuse(_feature(key))

    def hold(self, holder: str, kind: str, facts: dict[str, Any], *, wait_s: float) -> bool:
        del holder, kind, facts, wait_s
        self._refuse("a worker's presence")

    def close(self) -> None:
        self._client.close()

    # --- calls ---

    def _send_batch(self, queue: str, batch: Sequence[Entry]) -> list[Sent | CallerError]:
        entries = [sqs_messages.send_entry(entry, place) for place, entry in enumerate(batch)]
        answer = self._call("send_message_batch", queue, Entries=entries)
        return _outcomes(answer, len(batch), _sent)

    def _receive(self, queue: str, limit: int, visibility_ms: int, wait_s: float) -> list[Delivery]:
        deliveries: list[Delivery] = []
        while len(deliveries) < limit:
            asked = min(sqs_messages.BATCH_MAX, limit - len(deliveries))
            answer = self._call(
                "receive_message",
                queue,
                MaxNumberOfMessages=asked,
                VisibilityTimeout=-(-visibility_ms // 1_000),
                WaitTimeSeconds=0 if deliveries else int(wait_s),
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            received = [sqs_messages.delivery(message) for message in answer.get("Messages", [])]
            deliveries += received
            if len(received) < asked:
                break
        return deliveries

    def _delete(self, queue: str, receipts: Sequence[bytes]) -> None:
        for start in range(0, len(receipts), sqs_messages.BATCH_MAX):
            batch = receipts[start : start + sqs_messages.BATCH_MAX]
            entries = [{"Id": str(place), "ReceiptHandle": receipt.decode()} for place, receipt in enumerate(batch)]
            answer = self._call("delete_message_batch", queue, Entries=entries)
            _all(_outcomes(answer, len(batch), lambda _: None))

    def _call(self, method: str, queue: str, **parameters: Any) -> Any:
        """An operation on a queue, which is made if it is missing (or has been deleted since)."""
        try:
            return self._ask(method, QueueUrl=self._url(queue), **parameters)
        except QueueNotFound:
            self._urls.pop(queue, None)
            return self._ask(method, QueueUrl=self._url(queue), **parameters)

    def _url(self, queue: str) -> str:
        with self._finding:
            found = self._urls.get(queue)
            if found is None:
                found = self._urls[queue] = self._found(queue)
            return found

    def _found(self, queue: str) -> str:
        try:
            url: str = self._ask("get_queue_url", QueueName=queue)["QueueUrl"]
        except QueueNotFound:
            settings = {
                "MessageRetentionPeriod": str(limits.RETENTION_MS // 1_000),
                "VisibilityTimeout": str(limits.VISIBILITY_MS // 1_000),
            }
            if queue.endswith(".fifo"):
                settings["FifoQueue"] = "true"
            url = self._ask("create_queue", QueueName=queue, Attributes=settings)["QueueUrl"]
        return url

    def _ask(self, method: str, **parameters: Any) -> Any:
        from botocore import exceptions  # noqa: PLC0415 - the extra `sqs`

        try:
            return getattr(self._client, method)(**parameters)
        except exceptions.ClientError as error:
            raise _translated(error, str(parameters.get("QueueUrl") or parameters.get("QueueName"))) from None
        except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError) as error:
            raise Unavailable(str(error)) from None
        except exceptions.HTTPClientError as error:
            raise OutcomeUnknown(str(error)) from None
        except exceptions.BotoCoreError as error:
            raise InvalidParameter("SQS", method, str(error)) from None

    def _refuse(self, feature: str) -> NoReturn:
        raise NotSupported(feature, self.name)


def _client(target: str) -> Any:
    region, endpoint = sqs_address.parse(target)
    try:
        import boto3  # noqa: PLC0415 - the extra `sqs`
        from botocore.config import Config  # noqa: PLC0415
    except ImportError:
        raise InvalidParameter("broker", target, "it needs boto3: pip install 'headrace[sqs]'") from None
    # A receive waits up to 20 s for its answer.
    config = Config(read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
    session = boto3.session.Session()
    return session.client(
        "sqs", region_name=region or session.region_name or REGION_DEFAULT, endpoint_url=endpoint, config=config
    )


def _translated(error: Any, queue: str) -> HeadraceError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    text = str(error.response.get("Error", {}).get("Message", error))
    if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
        return QueueNotFound(queue)
    return _of_code(code, text, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))


def _of_code(code: str, text: str, status: int = 400) -> HeadraceError:
    if code in _UNAVAILABLE:
        return Unavailable(f"SQS: {code}: {text}")
    if status >= 500:
        return OutcomeUnknown(f"SQS: {code}: {text}")
    if code in _DENIED:
        return AccessDenied(f"SQS: {code}: {text}")
    if code in _STALE:
        return ReceiptExpired()
    return InvalidMessage(f"SQS: {code}: {text}")


def _outcomes(answer: Any, count: int, done: Callable[[Any], T]) -> list[Any]:
    """A batch's answer in the order of its entries."""
    outcomes: list[Any] = [None] * count
    for entry in answer.get("Successful", []):
        outcomes[int(entry["Id"])] = done(entry)
    for entry in answer.get("Failed", []):
        status = 400 if entry.get("SenderFault", True) else 500
        outcomes[int(entry["Id"])] = _of_code(str(entry.get("Code")), str(entry.get("Message", "")), status)
    return outcomes


def _sent(done: Any) -> Sent:
    return Sent(sqs_messages.id_of(done["MessageId"]), int(done.get("SequenceNumber") or 0))


def _all(outcomes: Sequence[Any]) -> list[Any]:
    """The outcomes, if none is an error; else the first error is raised."""
    error = next((outcome for outcome in outcomes if isinstance(outcome, HeadraceError)), None)
    if error is not None:
        raise error
    return list(outcomes)


_FEATURES: Final = {
    keys.UNIQUE: "a unique lock",
    keys.RESULT: "a kept result",
    keys.CANCEL: "cancel",
    keys.GROUP: "a group",
    keys.LIMIT: "a rate or concurrency limit",
    keys.SCHEDULE: "a schedule",
}


def _feature(key: bytes) -> str:
    return _FEATURES.get(key[:2], "state")


def _dispensable(key: bytes) -> bool:
    """Attempts of messages that are retried in their place: SQS counts receives itself. And the log of runs."""
    return key.startswith((keys.ATTEMPTS, keys.RUNS))
