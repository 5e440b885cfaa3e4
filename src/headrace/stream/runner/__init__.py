"""Running a pipeline on the embedded engine: claims in, one commit, deliveries out.

    reader threads ─▶ chunks (at most two ahead) ─▶ engine.step ─▶ transact ─▶ outbox thread
                                                       state + output + acknowledgement

The state's name is `stream:PIPELINE` (see `keys.py` for its keys).
"""

from __future__ import annotations

from headrace.stream.result import Report, Result
from headrace.stream.runner.runner import run

__all__ = ["Report", "Result", "run"]
