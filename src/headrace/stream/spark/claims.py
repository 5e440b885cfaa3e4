"""A queue as a source that can be read again: the driver's half of the data source, without Spark.

A lease queue has no offsets; claims make some. The broker binds ready messages durably to a reader's claim number n, and
answers the same messages for n until it is acknowledged. So {"claim": n} is an offset, the claims behind the last batch's
are a batch, and each of them is a partition, read by whichever executor has the task, as often as it likes.

A batch is acknowledged when Spark asks for the offset behind it. Then the batch stands in the checkpoint's commit log, and
will never be read again. An acknowledgement in the sink's own commit would be too early: if the driver dies before it has
written its commit log, Spark runs the batch again to make its *state* anew, and would find nothing to read. Spark asks
also when nothing is there to be read: so the last batch does not stay unacknowledged.

Messages that cannot be decoded are staged by the tasks that find them, under the number of their claim (a repeated task
writes the same), and go to the dead-letter queue in the transaction that acknowledges the claim.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.errors import OutcomeUnknown, StateChanged
from headrace.native.client import Client
from headrace.queue.model import ClaimState, Entry, Message
from headrace.queue.operations import AcknowledgeClaims, Claim, GetClaims, GetQueue, Transact
from headrace.stream.spark import limits
from headrace.stream.spark.errors import CheckpointBehind
from headrace.stream.spark.stages import dead_letters_of, keep_dead_letters, put


def dead_state(queue: str, reader: str) -> str:
    """The name under which a reader's dead letters are staged."""
    return f"spark-dead:{queue}:{reader}"


def reader_of(pipeline: str) -> str:
    """Under which name a pipeline's claims on queues are."""
    return f"{pipeline}/spark"


def stage_dead(client: Client, queue: str, reader: str, claim: int, letters: Iterable[Entry]) -> None:
    """In a task: keep the dead letters of a claim for its acknowledgement. Idempotent."""
    keep_dead_letters(client, dead_state(queue, reader), _dead_prefix(claim), letters)


class Claims:
    """A reader of a queue, on the driver. Stateless but for the bound of an availableNow run.

    Args:
        queue, dead: ARNs; `dead` is where dead letters go, None if messages that cannot be decoded stop the query.
        batch_messages: how many messages a batch has at most.
        claim_messages: … and a claim.
    """

    def __init__(
        self, client: Client, queue: str, reader: str, *, dead: str | None, batch_messages: int, claim_messages: int
    ) -> None:
        self._client = client
        self._queue = queue
        self._reader = reader
        self._dead = dead
        self._batch_messages = batch_messages
        self._claim_messages = claim_messages
        self._left: int | None = None

    def state(self) -> ClaimState:
        found: ClaimState = self._client.call(GetClaims(self._queue, self._reader))
        return found

    def bound_to_now(self) -> None:
        """From now on bind no more messages than are ready now. Those that are bound already come on top."""
        self._left = self._client.call(GetQueue(self._queue, exact=True)).counts.visible

    def forget_stale(self) -> None:
        """Delete dead letters of claims that are acknowledged: a task was late."""
        name = dead_state(self._queue, self._reader)
        open_from = _dead_prefix(self.state().acknowledged + 1).encode()
        stale = [key for key in self._client.state(name, "dead/") if key < open_from]
        if stale:
            put(self._client, name, [(key, None) for key in stale])

    def next(self, after: int) -> int:
        """The last claim of the batch behind claim `after`; `after` if there is nothing. Claims up to `after` are done.

        All claims that are open belong to the batch, though it may become longer than it should: they were bound for it by a
        driver that died.

        Raises:
            CheckpointBehind: claims behind `after` are acknowledged already.
        """
        known = self.state()
        if known.acknowledged > after:
            raise CheckpointBehind(self._queue, self._reader, after, known.acknowledged)
        self.acknowledge(after)
        return known.last if known.last > after else self._bind(after)

    def acknowledge(self, number: int) -> None:
        """Claims up to `number` are done: delete their messages, send their dead letters. Idempotent."""
        done = self.state().acknowledged
        if self._dead is not None:
            for claim in range(done + 1, number + 1):
                self._bury(claim, self._dead)
        if done < number:
            self._client.call(AcknowledgeClaims(self._queue, self._reader, number))

    def _bind(self, last: int) -> int:
        """Bind messages to claims behind `last`, until the batch is full or nothing is ready."""
        room = self._batch_messages if self._left is None else min(self._batch_messages, self._left)
        room_bytes = limits.BATCH_BYTES_MAX
        while room > 0 and room_bytes > 0:
            limit = min(room, self._claim_messages)
            bound: list[Message] = self._client.call(Claim(self._queue, self._reader, last + 1, limit))
            if not bound:
                break
            last += 1
            room -= len(bound)
            room_bytes -= sum(len(message.body) for message in bound)
            self._left = None if self._left is None else self._left - len(bound)
        return last

    def _bury(self, claim: int, dead: str) -> None:
        """Acknowledge a claim and send its dead letters, if it has any, in one transaction: they are sent once."""
        for attempt in range(1, limits.UNKNOWN_MAX + 1):
            staged = self._client.state(dead_state(self._queue, self._reader), _dead_prefix(claim))
            if not staged:
                return
            try:
                self._client.call(self._burial(claim, dead, staged))
            except (StateChanged, OutcomeUnknown):  # the next look says what has become of it
                if attempt == limits.UNKNOWN_MAX:
                    raise

    def _burial(self, claim: int, dead: str, staged: dict[bytes, bytes]) -> Transact:
        return Transact(
            name=dead_state(self._queue, self._reader),
            claims=[(self._queue, self._reader, claim)],
            sends=[(dead, dead_letters_of(staged))],
            state=[(key, None) for key in staged],
            expect=list(staged.items()),
        )


def _dead_prefix(claim: int) -> str:
    return f"dead/{claim:016x}/"
