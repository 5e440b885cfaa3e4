"""The runner: it runs a pipeline on the embedded engine. Claims in, one commit, deliveries out.

    reader threads ─▶ chunks (at most two ahead) ─▶ engine.step ─▶ transact ─▶ outbox thread
                                                       state + output + acknowledgement

The name of the state is `stream:PIPELINE`; `state_keys.py` lists its keys. Open `runner.py` first, then `session.py` and
`commit.py`; for several processes `sharing.py`, `membership.py`, `shuffle.py`.
"""

from __future__ import annotations

from headrace.stream.result import Report, Result
from headrace.stream.runner.runner import run

__all__ = ["Report", "Result", "run"]
