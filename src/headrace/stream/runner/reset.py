"""Starting anew: a pipeline's state is dropped, its messages are given back."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.errors import QueueNotFound, StateChanged, SubscriptionRefused, TopicNotFound
from headrace.native.client import Client
from headrace.queue import operations as ops
from headrace.queue.model import arn_of
from headrace.stream import limits
from headrace.stream.runner import keys, members
from headrace.stream.runner.definition import Definition, decode, encode
from headrace.stream.runner.members import Owners
from headrace.stream.runner.store import Store
from headrace.stream.sources.open import inbox_name
from headrace.stream.sources.queue import reader_name


def reset(store: Store, client: Client | None, pipeline: str) -> int:
    """Drop the state of a pipeline. Idempotent: a reset that was cut short is finished by the next.

    Whoever runs the pipeline can commit no more. Claimed messages are visible again; a topic's inbox is given the topic's
    log from the beginning.

    Returns:
        How many keys were removed.
    """
    name = keys.state_name(pipeline)
    owners = _fence(store, name)
    found = store.read(keys.DEFINITION).get(keys.DEFINITION)
    definition = decode(found) if found is not None else Definition({}, {}, 0)
    _mark(store, name, definition)
    if client is not None:
        _release(client, pipeline, definition.sources.values(), range(max(owners.used, 1)))
    removed = _remove(store, name)
    _forget_slots(store, name, owners)
    store.transact(ops.Transact(name=keys.DIRECTORY, state=[(pipeline.encode(), None)]))
    return removed


def _fence(store: Store, name: str) -> Owners:
    """Nobody is an owner any more. The record stays, so that its epoch goes on."""
    while True:
        before = store.read(keys.OWNERS).get(keys.OWNERS)
        owners = members.read_owners(before)
        after = Owners(owners.epoch + 1, used=owners.used)
        if _put_owners(store, name, before, after):
            return after


def _forget_slots(store: Store, name: str, owners: Owners) -> None:
    """What they had claimed was given back. Whoever has joined meanwhile keeps them."""
    _put_owners(store, name, members.encode(owners), Owners(owners.epoch + 1))


def _put_owners(store: Store, name: str, before: bytes | None, after: Owners) -> bool:
    state: list[tuple[bytes, bytes | None]] = [(keys.OWNERS, members.encode(after))]
    try:
        store.transact(ops.Transact(name=name, state=state, expect=[(keys.OWNERS, before)]))
    except StateChanged:
        return False
    return True


def _mark(store: Store, name: str, definition: Definition) -> None:
    """No pipeline goes on from state that is half removed: it is of no layout."""
    half = Definition({}, definition.sources, definition.shards, layout=0)
    store.transact(ops.Transact(name=name, state=[(keys.DEFINITION, encode(half))]))


def _release(client: Client, pipeline: str, sources: Iterable[str], slots: Iterable[int]) -> None:
    for text in sources:
        kind, _, source = text.partition(" ")
        queue = inbox_name(pipeline, source) if kind == "topic" else source
        if kind in ("queue", "topic"):
            for slot in slots:
                _release_slot(client, queue, reader_name(pipeline, slot))
        if kind == "topic":
            _replay(client, source, queue)


def _release_slot(client: Client, queue: str, reader: str) -> None:
    try:
        client.call(ops.ReleaseClaims(arn_of(queue), reader))
    except QueueNotFound:
        return  # it is gone, and its claims with it


def _replay(client: Client, topic: str, inbox: str) -> None:
    """The inbox is given the log again, and nothing else. A topic that keeps no log leaves it as it is."""
    try:
        client.topic(topic).replay(inbox, purge=True)
    except (TopicNotFound, QueueNotFound, SubscriptionRefused):
        return


def _remove(store: Store, name: str) -> int:
    removed = 0
    for prefix in (*keys.ALL_BUT_DEFINITION, keys.DEFINITION):
        while found := store.read(prefix, limits.REMOVED_AT_ONCE):
            store.transact(ops.Transact(name=name, state=[(key, None) for key in found]))
            removed += len(found)
    return removed
