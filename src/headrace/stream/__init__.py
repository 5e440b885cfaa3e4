"""Streams: SQL and Python pipelines over queues, exactly once. `import headrace.stream as hs`.

A newcomer opens `plan.py` (what a pipeline is), `api.py` (how one is written), `physical.py` (what runs), then
`engine/engine.py` and `runner/runner.py`. Needs the extra: `pip install 'headrace[stream]'`.
"""

from __future__ import annotations
