"""SQS requests as prebuilt bytes, and just enough of the answers' parsing to drive a server hard.

No SDK: boto3 manages some 700 requests a second on one core, and would measure itself. The headers are those that
botocore sends, signature included (made up: no peer checks it, and headrace does only when keys are configured).
"""

from __future__ import annotations

import json
import random
import re
from typing import Any, Final

BATCH: Final = 10  # the most that SQS allows in a request
BODY_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789 "

RECEIPTS: Final = re.compile(rb'"ReceiptHandle"\s*:\s*"([^"]+)"')
FAILED: Final = re.compile(rb'"Failed"\s*:\s*\[\s*\{')
CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CLOSE: Final = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class BadAnswer(Exception):
    """The server answered what the load generator cannot go on with."""


def request(operation: str, host: str, payload: bytes) -> bytes:
    """A complete HTTP request of SQS's JSON protocol."""
    return (
        f"POST / HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: identity\r\n"
        f"X-Amz-Target: AmazonSQS.{operation}\r\nContent-Type: application/x-amz-json-1.0\r\n"
        "User-Agent: Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux lang/python#3.11.7 md/pyimpl#CPython cfg/retry-mode#legacy\r\n"
        "X-Amz-Date: 20260101T000000Z\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, "
        f"SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature={'0' * 64}\r\n"
        "amz-sdk-invocation-id: 00000000-0000-4000-8000-000000000000\r\namz-sdk-request: attempt=1\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    ).encode() + payload


def split_answer(buffer: bytes) -> tuple[int, bytes, bool] | None:
    """(status, body, keep alive) of a complete answer in `buffer`, or None while it is incomplete.

    Raises:
        BadAnswer: it announces no length, so its end cannot be told.
    """
    head, separator, body = buffer.partition(b"\r\n\r\n")
    if not separator:
        return None
    length = CONTENT_LENGTH.search(head)
    if length is None:
        raise BadAnswer(f"an answer without Content-Length: {head[:200]!r}")
    if len(body) < int(length[1]):
        return None
    return int(head[9:12]), body, CLOSE.search(head) is None


def bodies(count: int, size_bytes: int, seed: int = 13) -> list[str]:
    """`count` different message bodies of `size_bytes` characters; the same for every server and run."""
    source = random.Random(seed)
    return ["".join(source.choices(BODY_ALPHABET, k=size_bytes)) for _ in range(count)]


class Requests:
    """Builds the requests of one queue. What does not depend on an answer is built once."""

    def __init__(self, host: str, queue_url: str, size_bytes: int) -> None:
        self._host = host
        self._url = queue_url
        texts = bodies(64, size_bytes)
        self.sends = [self._build("SendMessage", MessageBody=text) for text in texts]
        self.batches = [self._batch(texts[i : i + BATCH]) for i in range(len(texts) - BATCH)]
        self.receive = self._build("ReceiveMessage", MaxNumberOfMessages=BATCH, WaitTimeSeconds=0)
        self._delete_start = json.dumps({"QueueUrl": queue_url})[:-1].encode() + b',"Entries":['

    def _build(self, operation: str, **parameters: Any) -> bytes:
        return request(operation, self._host, json.dumps({"QueueUrl": self._url, **parameters}).encode())

    def _batch(self, texts: list[str]) -> bytes:
        return self._build(
            "SendMessageBatch", Entries=[{"Id": str(i), "MessageBody": text} for i, text in enumerate(texts)]
        )

    def delete(self, receipts: list[bytes]) -> bytes:
        """A DeleteMessageBatch of the receipts, spliced as they came: they are JSON text already."""
        entries = b",".join([b'{"Id":"%d","ReceiptHandle":"%b"}' % item for item in enumerate(receipts)])
        return request("DeleteMessageBatch", self._host, self._delete_start + entries + b"]}")
