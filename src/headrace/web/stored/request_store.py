"""Stores durable requests in the broker: one method per step of their life, each one commit.

Knows no HTTP and runs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from headrace.errors import IN_DOUBT, HeadraceError, ReceiptExpired, StateChanged, Unavailable
from headrace.native.aio import AsyncClient, connect_async
from headrace.native.aio_queue import AsyncQueue, AsyncReceivedMessage
from headrace.queue.operations import Transact
from headrace.web.stored import records
from headrace.web.stored.limits import (
    ACCEPTS_MAX,
    FINISHES_MAX,
    INLINE_BYTES_MAX,
    LEASE_S,
    QUEUED_KEEP_S,
    RECEIVES_MAX,
    SWEPT_AT_ONCE,
)
from headrace.web.stored.records import Key, RequestRecord, Response, StoredRequest


@dataclass(frozen=True, slots=True)
class DuplicateRequest:
    """The Idempotency-Key was used before."""

    record: RequestRecord | None
    """None: the record is gone although the key is not yet."""
    same: bool
    """Whether the request is the same too."""


class RequestStore:
    """See the module. Open on a running loop."""

    def __init__(
        self, target: str, queue: str, *, unix_s: Callable[[], float] = time.time, patience_s: float = 10.0
    ) -> None:
        """Args:
        target: a broker's URL, or the folder of a running one.
        queue: the requests' queue; made if it is not there, and `<queue>-dead` with it.
        unix_s: wall time; records of several machines share it.
        patience_s: how long a call waits for a broker that is away.
        """
        self._client: AsyncClient = connect_async(target, patience=patience_s)
        self._name = queue
        self._state = f"web:{queue}"
        self._unix_s = unix_s
        self._queue: AsyncQueue | None = None
        self._opened = False

    def now_ms(self) -> int:
        return int(self._unix_s() * 1000)

    async def open(self) -> None:
        """Connect, and make the queues. To be called again after it has failed.

        Raises: HeadraceError: the broker cannot be reached, or the queue is set otherwise.
        """
        if not self._opened:
            await self._client.open()
            self._opened = True
        dead = await self._client.queue(f"{self._name}-dead", create=True, retention=QUEUED_KEEP_S)
        self._queue = await self._client.queue(
            self._name,
            create=True,
            retention=QUEUED_KEEP_S,
            visibility_timeout=LEASE_S,
            dead_letter=dead.name,
            max_receives=RECEIVES_MAX,
        )

    async def close(self) -> None:
        if self._opened:
            await self._client.close()

    # --- intake ---

    async def accept(self, request: StoredRequest, fingerprint: bytes) -> RequestRecord | DuplicateRequest:
        """Commit the request, or return the one that has its key. If this returns a RequestRecord the request will run.

        Raises: HeadraceError: nothing was accepted, or (one of IN_DOUBT) the outcome is unknown.
        """
        doubt: HeadraceError | None = None
        for _ in range(ACCEPTS_MAX):
            try:
                return await self._accept(request, fingerprint)
            except StateChanged:
                continue
            except IN_DOUBT as error:
                doubt = error
            except HeadraceError as error:
                raise doubt or error from error
        raise doubt or Unavailable("other requests with the same Idempotency-Key came between, again and again")

    async def _accept(self, request: StoredRequest, fingerprint: bytes) -> RequestRecord | DuplicateRequest:
        key = await self._key(request.key) if request.key else None
        if key is not None and key.id == request.id:
            return await self._accepted(request)  # our own first try, whose answer was lost
        if key is not None and key.expires_ms > self.now_ms():
            return DuplicateRequest(await self.find(key.id), key.fingerprint == fingerprint)
        try:
            return await self._commit(request, fingerprint, key)
        except StateChanged:
            found = await self.find(request.id)
            if found is None:
                raise
            return found  # our own first try

    async def _accepted(self, request: StoredRequest) -> RequestRecord:
        found = await self.find(request.id)
        assert found is not None, "key and record are one commit"
        return found

    async def _commit(self, request: StoredRequest, fingerprint: bytes, old_key: Key | None) -> RequestRecord:
        record = records.new_record(request, now_ms=self.now_ms())
        async with self._client.transact(self._state) as tx:
            tx.expect(records.record_key(request.id), None)
            tx.put(records.record_key(request.id), records.encode(record))
            tx.put(records.expiry_key(record), b"")
            if request.key:
                key = Key(request.id, fingerprint, record.expires_ms)
                tx.expect(records.idempotency_key(request.key), records.encode(old_key) if old_key else None)
                tx.put(records.idempotency_key(request.key), records.encode(key))
            if request.body is not None and len(request.body) > INLINE_BYTES_MAX:
                tx.put(records.body_key(request.id), request.body)
                request = msgspec.structs.replace(request, body=None)
            tx.send(self._requests, records.encode(request))
        return record

    # --- looking ---

    async def find(self, request_id: str) -> RequestRecord | None:
        value = await self._value(records.record_key(request_id))
        return records.decode_record(value) if value is not None else None

    async def _key(self, digest: str) -> Key | None:
        value = await self._value(records.idempotency_key(digest))
        return records.decode_key(value) if value is not None else None

    async def _value(self, key: bytes) -> bytes | None:
        return (await self._client.state(self._state, key, limit=1)).get(key)  # sorted: an exact match is the first

    # --- running ---

    async def receive(self, most: int, *, wait_s: float) -> list[AsyncReceivedMessage]:
        return await self._requests.receive(most, wait=wait_s, visibility_timeout=LEASE_S)

    async def extend(self, messages: list[AsyncReceivedMessage]) -> None:
        await self._requests.extend(messages, LEASE_S)

    async def body(self, request: StoredRequest) -> bytes | None:
        """None: it stood beside the message, and has expired (a request redriven after long)."""
        return request.body if request.body is not None else await self._value(records.body_key(request.id))

    async def start(self, message: AsyncReceivedMessage, request: StoredRequest) -> RequestRecord:
        """The record, now running; created again if it has expired (a request redriven after long).

        Raises: ReceiptExpired: as `finish`.
        """
        now_ms = self.now_ms()
        before = await self.find(request.id)
        record = records.started(before or records.new_record(request, now_ms=now_ms), now_ms=now_ms)
        await self._put(message, record, [(records.expiry_key(record), b"")] if before is None else [])
        return record

    async def put(self, message: AsyncReceivedMessage, record: RequestRecord) -> None:
        """Raises: ReceiptExpired: as `finish`."""
        await self._put(message, record, [])

    async def _put(
        self, message: AsyncReceivedMessage, record: RequestRecord, more: list[tuple[bytes, bytes | None]]
    ) -> None:
        """Whatever is late, or comes from a process that was frozen, must not write over what another runner has come to."""
        state = [(records.record_key(record.id), records.encode(record)), *more]
        held = [(message.queue_arn, [message.receipt])]
        await self._client.call(Transact(state=state, name=self._state, holds=held))

    async def finish(
        self,
        message: AsyncReceivedMessage,
        request: StoredRequest,
        record: RequestRecord,
        *,
        response: Response | None,
        error: str = "",
    ) -> RequestRecord:
        """Done, or, with an error, failed for good: then the request goes to the dead-letter queue, and can be redriven.

        Raises: ReceiptExpired: the lease was lost; another runner has the request now, and nothing was changed.
        """
        end = records.ended(record, now_ms=self.now_ms(), keep_s=request.keep_s, response=response, error=error)
        doubt: HeadraceError | None = None
        for _ in range(FINISHES_MAX):
            try:
                await self._finish(message, request, record, end)
            except ReceiptExpired:
                if doubt is None or await self.find(record.id) != end:
                    raise
            except IN_DOUBT as unknown:
                doubt = unknown
                continue
            return end
        assert doubt is not None
        raise doubt

    async def _finish(
        self, message: AsyncReceivedMessage, request: StoredRequest, record: RequestRecord, end: RequestRecord
    ) -> None:
        async with self._client.transact(self._state) as tx:
            tx.acknowledge(message)
            tx.put(records.record_key(record.id), records.encode(end))
            tx.remove(records.expiry_key(record))
            tx.put(records.expiry_key(end), b"")
            if end.error:
                tx.send(f"{self._name}-dead", message.body, attributes={"Error": end.error[:1000]})
            elif request.body is None:
                tx.remove(records.body_key(record.id))

    # --- expiry ---

    async def sweep(self) -> int:
        """Remove records that have expired, and what belongs to them; returns how many were looked at."""
        keys = await self._client.state(self._state, records.EXPIRY, limit=SWEPT_AT_ONCE)
        due = records.due(list(keys), now_ms=self.now_ms())
        for key in due:
            await self._remove(key)
        return len(due)

    async def _remove(self, expiry: bytes) -> None:
        _, request_id = records.expiry_of(expiry)
        record = await self.find(request_id)
        key = await self._key(record.key) if record is not None and record.key else None
        async with self._client.transact(self._state) as tx:
            if record is None or records.expiry_key(record) != expiry:
                tx.remove(expiry)  # of nothing: left, it would be found again at once, and for ever
                return
            tx.expect(records.record_key(request_id), records.encode(record))
            tx.remove(records.record_key(request_id))
            tx.remove(records.body_key(request_id))
            tx.remove(records.expiry_key(record))
            if key is not None and key.id == request_id:  # else it has expired, and is another request's now
                tx.expect(records.idempotency_key(record.key), records.encode(key))
                tx.remove(records.idempotency_key(record.key))

    @property
    def _requests(self) -> AsyncQueue:
        assert self._queue is not None, "the ledger is not open"
        return self._queue
