"""Tasks: Python functions as consumers. `import headrace; app = headrace.App("./data")`.

A newcomer opens `task.py` and `app.py` (how one is written and sent), `envelope.py` (what a message says), `execution.py`
(how one runs), `settling.py` (what its outcome changes, in one commit), then `pool/` (who runs them).
"""

from __future__ import annotations

from headrace.work.app import App
from headrace.work.bodies import Message
from headrace.work.composing import Call, Chain, Group, GroupHandle, chain, group
from headrace.work.context import Context, current
from headrace.work.errors import (
    Cancelled,
    EnvelopeInvalid,
    GiveUp,
    InvalidArguments,
    InvalidOption,
    NoBroker,
    NotSupported,
    ResultNotKept,
    ResultTimeout,
    Retry,
    TaskFailed,
    TaskNotFound,
    TimeLimitExceeded,
)
from headrace.work.handle import Handle
from headrace.work.middleware import Middleware
from headrace.work.retries import Backoff
from headrace.work.task import Consumer, Task

__all__ = [
    "App", "Backoff", "Call", "Cancelled", "Chain", "Consumer", "Context", "EnvelopeInvalid", "GiveUp", "Group", "GroupHandle", "Handle", "InvalidArguments", "InvalidOption",
    "Message", "Middleware", "NoBroker", "NotSupported", "ResultNotKept", "ResultTimeout", "Retry", "Task", "TaskFailed",
    "TaskNotFound", "TimeLimitExceeded", "chain", "current", "group",
]  # fmt: skip
