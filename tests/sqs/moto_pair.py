"""headrace and Moto side by side: each runs the steps of a program, and answers in words that can be compared."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.sqs.models import sqs_backends

from tests.sqs.harness import ACCOUNT, Boto3, Harness, boto3_client
from tests.sqs.moto_programs import ADVANCE, Step

CALL_MS: Final = 1
"""Each call takes a millisecond: Moto shows a message only after its timeout, headrace at it."""

MOTO_ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-1"
COOLDOWN_MS: Final = 60_000

_OWN: Final = {"ResponseMetadata", "SequenceNumber", "MD5OfMessageSystemAttributes", "SenderId", "NextToken", "Message"}
"""What each has of its own, or Moto never has."""
_TIMES: Final = {"CreatedTimestamp", "LastModifiedTimestamp", "SentTimestamp", "ApproximateFirstReceiveTimestamp"}
_UNORDERED: Final = {"QueueUrls", "queueUrls", "Successful", "Failed"}


@dataclass
class Side:
    """One implementation, and what its own ids are called in a comparison."""

    client: Any
    account: str
    receipts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By queue, in the order in which they were received."""
    bodies: dict[str, str] = field(default_factory=dict)
    """By message id, what was sent."""
    unordered: set[str] = field(default_factory=set)
    """Standard queues whose messages may come in any order."""

    def run(self, step: Step) -> dict[str, Any]:
        """What a step answers, or the code of its error."""
        queue = step.parameters.get("QueueUrl", "")
        try:
            answer = self._call(step.operation, self._given(queue, step.parameters))
        except ClientError as error:
            return {"Error": error.response["Error"]["Code"].removeprefix("AWS.SimpleQueueService.")}
        self._learn(queue, step, answer)
        plain: dict[str, Any] = self._plain(queue, "", answer)
        if step.operation.startswith("send_message") and queue.endswith(".fifo"):
            for sent in (plain, *plain.get("Successful", [])):  # Moto answers a duplicate with an id of its own
                sent.pop("MessageId", None)
        return plain

    def _call(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "list_queues" and "MaxResults" in given:
            pages = self.client.get_paginator(operation).paginate(PaginationConfig={"PageSize": given["MaxResults"]})
            urls = [page["QueueUrls"] for page in pages]
            return {"Pages": [len(page) for page in urls], "QueueUrls": [url for page in urls for url in page]}
        answer: dict[str, Any] = getattr(self.client, operation)(**given)
        queue = given.get("QueueUrl", "").rpartition("/")[2]
        if operation == "receive_message" and queue.endswith(".fifo"):
            answer.get("Messages", []).sort(key=lambda message: message.get("Attributes", {}).get("MessageGroupId", ""))
        if operation == "receive_message" and queue in self.unordered:
            answer.get("Messages", []).sort(
                key=lambda message: (message["Attributes"]["SentTimestamp"], message["Body"])
            )
        return answer

    def _learn(self, queue: str, step: Step, answer: dict[str, Any]) -> None:
        if step.operation == "send_message":
            self.bodies.setdefault(answer["MessageId"], step.parameters["MessageBody"])
        if step.operation == "send_message_batch":
            sent = {entry["Id"]: entry["MessageBody"] for entry in step.parameters["Entries"]}
            for entry in answer.get("Successful", []):
                self.bodies.setdefault(entry["MessageId"], sent[entry["Id"]])
        self.receipts[queue] += [message["ReceiptHandle"] for message in answer.get("Messages", [])]

    def _given(self, queue: str, value: Any) -> Any:
        """Parameters as this implementation takes them."""
        if isinstance(value, list):
            return [self._given(queue, item) for item in value]
        if isinstance(value, dict):
            return {key: self._parameter(queue, key, item) for key, item in value.items()}
        return value.replace("ACCOUNT", self.account) if isinstance(value, str) else value

    def _parameter(self, queue: str, name: str, value: Any) -> Any:
        if name == "QueueUrl":
            return f"{self.client.meta.endpoint_url}/{self.account}/{value}"
        return self.handle(queue, value) if name == "ReceiptHandle" else self._given(queue, value)

    def handle(self, queue: str, receipt: int | str) -> str:
        """The receipt handle that a step means."""
        if isinstance(receipt, str):
            return receipt
        receipts = self.receipts[queue]
        return receipts[receipt % len(receipts)] if receipts else "none"

    def _plain(self, queue: str, name: str, value: Any) -> Any:
        """An answer without what is this implementation's own. What is empty is as good as left out."""
        if isinstance(value, dict):
            plain = {key: self._plain(queue, key, item) for key, item in value.items() if key not in _OWN}
            return {key: item for key, item in plain.items() if item not in ({}, [])}
        if isinstance(value, list):
            items = [self._plain(queue, name, item) for item in value]
            return sorted(items, key=str) if name in _UNORDERED else items
        if not isinstance(value, str):
            return value
        if name in _TIMES:
            return "TIME"
        if name == "MessageId":
            return self.bodies[value]
        if name == "ReceiptHandle":
            return self.receipts[queue].index(value)
        value = value.replace(f"{self.client.meta.endpoint_url}/{self.account}/", "").replace(self.account, "ACCOUNT")
        if name == "Policy":
            return json.loads(value)["Statement"]
        return json.loads(value) if name == "RedrivePolicy" else value


@dataclass
class Pair:
    """The two implementations, with one clock."""

    ours: Side
    theirs: Side
    harness: Harness
    _sent: set[tuple[str, str]] = field(default_factory=set)
    _forgetful: set[str] = field(default_factory=set)
    inconclusive: bool = False
    """Whether more than ten messages could be received: which ten is anyone's choice, and the states differ from there on."""
    _policy_lost: set[str] = field(default_factory=set)
    _created: set[str] = field(default_factory=set)
    _deleted_ms: dict[str, int] = field(default_factory=dict)

    def run(self, step: Step) -> tuple[dict[str, Any], dict[str, Any]]:
        """What each answers; nothing if the step is one that Moto is known to get wrong."""
        if self._is_known(step):
            return {}, {}
        if step.operation == "receive_message" and step.parameters["QueueUrl"] in self.ours.unordered:
            step = Step(step.operation, {**step.parameters, "AttributeNames": ["All"], "MaxNumberOfMessages": 10})
        ours, theirs = self.run_unconditionally(step)
        self._follow(step, ours)
        if len(ours.get("Messages", [])) == 10:
            self.inconclusive = True
            return {}, {}
        if step.parameters.get("QueueUrl") in self._policy_lost:
            for answer in (ours, theirs):
                answer.get("Attributes", {}).pop("Policy", None)
        return ours, theirs

    def run_unconditionally(self, step: Step) -> tuple[dict[str, Any], dict[str, Any]]:
        if step.operation == ADVANCE:
            self.harness.advance(step.parameters["Seconds"] * 1_000)
            return {}, {}
        self.harness.advance(CALL_MS)
        return self.ours.run(step), self.theirs.run(step)

    def _is_known(self, step: Step) -> bool:
        """Whether Moto differs in a step because of what was done before. The names are those of `moto_differences.py`."""
        given, queue = step.parameters, step.parameters.get("QueueUrl", "")
        if step.operation == "create_queue":  # created again, tags of a queue that exists
            again_ms = self._deleted_ms.get(given["QueueName"], -COOLDOWN_MS) + COOLDOWN_MS
            return again_ms > self.harness.clock() or ("tags" in given and given["QueueName"] in self._created)
        if step.operation == "delete_message_batch":  # a receipt twice in a batch
            handles = [self.ours.handle(queue, entry["ReceiptHandle"]) for entry in given["Entries"]]
            return len(set(handles)) < len(handles)
        if step.operation.startswith("send_message") and queue in self._forgetful:  # deduplication
            return not self._sent.isdisjoint(_dedup_keys(step))
        return step.operation.endswith("_permission") and queue in self._policy_lost  # policy

    def _follow(self, step: Step, ours: dict[str, Any]) -> None:
        """Keep in mind what decides which steps Moto gets wrong later."""
        queue = step.parameters.get("QueueUrl", step.parameters.get("QueueName", ""))
        if "Error" in ours:
            return
        if step.operation.startswith("send_message"):
            self._sent |= _dedup_keys(step)
        if "DelaySeconds" in str(step.parameters) and not queue.endswith(".fifo"):
            self.ours.unordered.add(queue)
        if step.operation.startswith("delete_message") or step.parameters.get("Attributes", {}).get("RedrivePolicy"):
            self._forgetful.add(queue)
        if step.operation == "set_queue_attributes" and "Policy" not in step.parameters["Attributes"]:
            self._policy_lost.add(queue)
        if step.operation == "create_queue":
            self._created.add(queue)
        if step.operation == "delete_queue":
            self._deleted_ms[queue] = self.harness.clock()


def _dedup_keys(step: Step) -> set[tuple[str, str]]:
    given = step.parameters
    messages = given.get("Entries", [given])
    return {(given["QueueUrl"], message.get("MessageDeduplicationId", message["MessageBody"])) for message in messages}


def _no_wait(*_: Any, **__: Any) -> None:
    raise AssertionError("a program must not wait: Moto's clock stands")


class Clients:
    """A client of each implementation; made once, because that takes long. Needs `mock_aws`."""

    def __init__(self, models: Path | None = None) -> None:
        """`models`: a folder of service models to prefer to botocore's."""
        config = Config(retries={"max_attempts": 0}, parameter_validation=False)
        self._ours = Boto3(models=models, config=config)
        settings = {
            "region_name": REGION,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "config": config,
        }
        self._theirs = boto3_client({**settings, "endpoint_url": f"https://sqs.{REGION}.amazonaws.com"}, models)

    @contextmanager
    def pair(self) -> Iterator[Pair]:
        """Both implementations, empty, at the time of a clock that only the program moves."""
        with closing(Harness(cooldowns=True)) as harness, pytest.MonkeyPatch.context() as patch:
            self._ours.harness = harness
            sqs_backends[MOTO_ACCOUNT][REGION].reset()
            patch.setattr("moto.sqs.models.unix_time", lambda: harness.clock() / 1_000)
            patch.setattr("moto.sqs.models.unix_time_millis", harness.clock)
            patch.setattr("moto.sqs.models.Queue.wait_for_messages", _no_wait)  # it would wait for a clock that stands
            unordered: set[str] = set()  # what was delayed takes its place by its time, or by when it was sent
            ours = Side(self._ours.client, ACCOUNT, unordered=unordered)
            yield Pair(ours, Side(self._theirs, MOTO_ACCOUNT, unordered=unordered), harness)

    def close(self) -> None:
        self._ours.client.close()
        self._theirs.close()
