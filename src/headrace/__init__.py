"""headrace: the producer-consumer pattern as one package. This file holds the public names, nothing else.

    import headrace

    with headrace.connect("./data") as client:
        orders = client.queue("orders", create=True)
        orders.send({"book": 7})
        for message in orders.receive():
            print(message.json())
            message.delete()

Names are loaded when they are first used: `headrace --help` needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace._version import __version__

if TYPE_CHECKING:
    from headrace.errors import CallerError as CallerError
    from headrace.errors import HeadraceError as HeadraceError
    from headrace.errors import OutcomeUnknown as OutcomeUnknown
    from headrace.errors import QueueNotFound as QueueNotFound
    from headrace.errors import StoreError as StoreError
    from headrace.errors import Unavailable as Unavailable
    from headrace.native.aio import AsyncClient as AsyncClient
    from headrace.native.aio import connect_async as connect_async
    from headrace.native.aio_queue import AsyncQueue as AsyncQueue
    from headrace.native.aio_queue import AsyncReceivedMessage as AsyncReceivedMessage
    from headrace.native.aio_topic import AsyncTopic as AsyncTopic
    from headrace.native.client import Client as Client
    from headrace.native.client import connect as connect
    from headrace.native.messages import Outgoing as Outgoing
    from headrace.native.messages import PartlyRefused as PartlyRefused
    from headrace.native.queue import Queue as Queue
    from headrace.native.queue import ReceivedMessage as ReceivedMessage
    from headrace.native.topic import Topic as Topic
    from headrace.work.app import App as App
    from headrace.work.composing import chain as chain
    from headrace.work.composing import group as group
    from headrace.work.errors import Cancelled as Cancelled
    from headrace.work.errors import GiveUp as GiveUp
    from headrace.work.errors import ResultTimeout as ResultTimeout
    from headrace.work.errors import Retry as Retry
    from headrace.work.errors import TaskFailed as TaskFailed
    from headrace.work.errors import TimeLimitExceeded as TimeLimitExceeded
    from headrace.work.retries import Backoff as Backoff


_HOMES = {
    "App": "headrace.work.app",
    "AsyncClient": "headrace.native.aio",
    "AsyncQueue": "headrace.native.aio_queue",
    "AsyncReceivedMessage": "headrace.native.aio_queue",
    "AsyncTopic": "headrace.native.aio_topic",
    "Backoff": "headrace.work.retries",
    "CallerError": "headrace.errors",
    "Cancelled": "headrace.work.errors",
    "Client": "headrace.native.client",
    "GiveUp": "headrace.work.errors",
    "HeadraceError": "headrace.errors",
    "OutcomeUnknown": "headrace.errors",
    "Outgoing": "headrace.native.messages",
    "PartlyRefused": "headrace.native.messages",
    "Queue": "headrace.native.queue",
    "QueueNotFound": "headrace.errors",
    "ReceivedMessage": "headrace.native.queue",
    "ResultTimeout": "headrace.work.errors",
    "Retry": "headrace.work.errors",
    "StoreError": "headrace.errors",
    "TaskFailed": "headrace.work.errors",
    "TimeLimitExceeded": "headrace.work.errors",
    "Topic": "headrace.native.topic",
    "Unavailable": "headrace.errors",
    "chain": "headrace.work.composing",
    "connect": "headrace.native.client",
    "connect_async": "headrace.native.aio",
    "group": "headrace.work.composing",
}
__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - strings, all of them


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
