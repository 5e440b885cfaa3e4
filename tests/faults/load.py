"""Concurrent load on a broker that may die at any moment: standard, FIFO, and dead-letter traffic, all of it recorded."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from tests.faults.broker_process import Answer, RawClient
from tests.faults.history import Deletion, History, Receipt, Send

STANDARD: Final = "standard"
FIFO: Final = "ordered.fifo"
RETRIED: Final = "retried"
DEAD: Final = "dead"
VISIBILITY_S: Final = 2
GROUPS: Final = 6
DRAIN_DEADLINE_S: Final = 300.0


class Load:
    """Clients in one event loop. `on_call` is told of each call when it starts: that is when to kill.

    Producers stop at `stop()`; `drain` then takes everything that is left. With more ports (nodes on one store) each
    client has one of them, in turn.
    """

    def __init__(
        self, port: int, chance: random.Random, on_call: Callable[[], None] = lambda: None, *, others: Sequence[int] = (),
        queues: Collection[str] = (STANDARD, FIFO, RETRIED, DEAD),
    ) -> None:  # fmt: skip
        self.port = port
        self.queues = queues
        self._ports = itertools.cycle([port, *others])
        self.chance = chance
        self.on_call = on_call
        self.history = History()
        self.stopping = False
        self._next: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def create_queues(self) -> None:
        client = RawClient(self.port)
        visibility = {"VisibilityTimeout": str(VISIBILITY_S)}
        arn = "arn:aws:sqs:us-east-1:000000000000:"
        redrive = '{"deadLetterTargetArn":"%s","maxReceiveCount":"2"}' % (arn + DEAD)
        for name, attributes in (
            (STANDARD, visibility),
            (FIFO, {**visibility, "FifoQueue": "true"}),
            (DEAD, visibility),
            (RETRIED, {"VisibilityTimeout": "0", "RedrivePolicy": redrive}),
        ):
            if name not in self.queues:
                continue
            answer = await client.call("CreateQueue", QueueName=name, Attributes=attributes)
            assert answer.acknowledged, answer
        client.close()

    def start(self) -> None:
        roles: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            (STANDARD, lambda: self._produce(STANDARD, "a")),
            (STANDARD, lambda: self._produce(STANDARD, "b")),
            (RETRIED, lambda: self._produce(RETRIED, "c")),
            (FIFO, lambda: self._produce_fifo(range(GROUPS // 2))),
            (FIFO, lambda: self._produce_fifo(range(GROUPS // 2, GROUPS))),
            (STANDARD, lambda: self._consume(STANDARD)),
            (STANDARD, lambda: self._consume(STANDARD)),
            (FIFO, lambda: self._consume(FIFO)),
            (FIFO, lambda: self._consume(FIFO)),
            (FIFO, lambda: self._consume(FIFO)),
            (RETRIED, lambda: self._consume(RETRIED, keep=1.0)),
            (DEAD, lambda: self._consume(DEAD)),
        ]
        self._tasks = [asyncio.ensure_future(role()) for queue, role in roles if queue in self.queues]

    async def stop(self) -> None:
        self.stopping = True
        await asyncio.gather(*self._tasks)

    def _client(self) -> RawClient:
        return RawClient(next(self._ports))

    # Producers

    async def _call(self, client: RawClient, action: str, queue: str, **parameters: Any) -> Answer:
        self.on_call()
        answer = await client.on_queue(action, queue, **parameters)
        kind = "acknowledged" if answer.acknowledged else "unknown" if answer.unknown else "refused"
        self.history.calls[f"{action} {kind}"] += 1
        if not answer.acknowledged:
            await asyncio.sleep(0.02)  # the broker is away: do not spin
        return answer

    async def _produce(self, queue: str, name: str) -> None:
        client, number = self._client(), 0
        while not self.stopping:
            count = self.chance.choice([1, 1, 10])
            bodies = [f"{name}-{number + index}" for index in range(count)]
            number += count
            entries = [{"Id": str(index), "MessageBody": body} for index, body in enumerate(bodies)]
            answer = await self._call(client, "SendMessageBatch", queue, Entries=entries)
            ids = {one["Id"]: one["MessageId"] for one in answer.data.get("Successful", ())}
            self.history.sends += [
                Send(body, str(index) in ids, ids.get(str(index), "")) for index, body in enumerate(bodies)
            ]
        client.close()

    async def _produce_fifo(self, groups: range) -> None:
        """One message of a group after the other; an unknown outcome is sent again with the same dedup id."""
        client = self._client()
        numbers = dict.fromkeys(groups, 0)
        while not self.stopping:
            group = self.chance.choice(list(groups))
            body = f"g{group}:{numbers[group]}"
            numbers[group] += 1
            while not await self._send_fifo(client, f"g{group}", body):
                pass
        client.close()

    async def _send_fifo(self, client: RawClient, group: str, body: str) -> bool:
        answer = await self._call(
            client, "SendMessage", FIFO, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=body
        )
        self.history.sends.append(Send(body, answer.acknowledged, answer.data.get("MessageId", "")))
        return answer.acknowledged or (self.stopping and not answer.unknown)

    # Consumers

    async def _consume(self, queue: str, *, keep: float = 0.15) -> None:
        """Receive and delete; a part `keep` is left to come again."""
        client = self._client()
        while not self.stopping:
            await self._take(client, queue, keep=keep, wait_s=self.chance.choice([0, 1]))
        client.close()

    async def _take(self, client: RawClient, queue: str, *, keep: float, wait_s: int) -> int:
        answer = await self._call(
            client,
            "ReceiveMessage",
            queue,
            MaxNumberOfMessages=self.chance.choice([1, 10]),
            WaitTimeSeconds=wait_s,
            MessageSystemAttributeNames=["All"],
        )
        messages = answer.data.get("Messages", [])
        self.history.receipts += [_receipt(queue, one, answer) for one in messages]
        entries = [
            {"Id": str(index), "ReceiptHandle": one["ReceiptHandle"]}
            for index, one in enumerate(messages)
            if self.chance.random() >= keep
        ]
        if entries:
            await self._delete(client, queue, entries, messages)
        return len(messages)

    async def _delete(
        self, client: RawClient, queue: str, entries: list[dict[str, str]], messages: list[dict[str, Any]]
    ) -> None:
        answer = await self._call(client, "DeleteMessageBatch", queue, Entries=entries)
        done = {one["Id"] for one in answer.data.get("Successful", ())}
        self.history.deletions += [
            Deletion(messages[int(one["Id"])]["MessageId"], answer.sent, answer.received, one["Id"] in done)
            for one in entries
        ]

    async def drain(self) -> dict[str, int]:
        """Take and delete all that is left; how many messages each queue says it still has afterwards."""
        client = RawClient(self.port)
        left: dict[str, int] = {}
        async with asyncio.timeout(DRAIN_DEADLINE_S):
            for queue in self.queues:
                while left.get(queue, 1):
                    await self._take(client, queue, keep=0.0, wait_s=1)
                    left[queue] = await self._depth(client, queue)
        client.close()
        return left

    async def _depth(self, client: RawClient, queue: str) -> int:
        answer = await client.on_queue("GetQueueAttributes", queue, AttributeNames=["All"])
        attributes = answer.data["Attributes"]
        return sum(int(attributes[f"ApproximateNumberOfMessages{state}"]) for state in ("", "NotVisible", "Delayed"))


def _receipt(queue: str, message: dict[str, Any], answer: Answer) -> Receipt:
    group, _, number = message["Body"].partition(":") if queue == FIFO else ("", "", "0")
    return Receipt(
        queue,
        message["MessageId"],
        message["Body"],
        int(message["Attributes"]["ApproximateReceiveCount"]),
        answer.sent,
        answer.received,
        0.0 if queue == RETRIED else float(VISIBILITY_S),
        group,
        int(number),
    )
