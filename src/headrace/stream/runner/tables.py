"""Tables that stand still: loaded at the start, and again where that is asked for, between two batches."""

from __future__ import annotations

import logging

from headrace.stream import plan
from headrace.stream.engine.engine import Engine
from headrace.stream.errors import SourceFailed
from headrace.stream.physical import Physical, Project
from headrace.stream.sources.tables import load_table

_log = logging.getLogger("headrace.stream")


class Tables:
    """The tables of a plan, and when each is due."""

    def __init__(self, physical: Physical, engine: Engine) -> None:
        self._engine = engine
        self._refs = {ref.name: ref for node in physical.operators if isinstance(node, Project) for ref in node.tables}
        self._due_ms: dict[str, float] = dict.fromkeys(self._refs, 0.0)

    def load(self, now_ms: int) -> None:
        """Load what is due. What cannot be loaded again stays as it is until the next time: a database that is started anew
        must not end the pipeline.

        Raises SourceFailed: at the first time.
        """
        for name, ref in self._refs.items():
            if self._due_ms[name] <= now_ms:
                self._load(name, ref, first=not self._due_ms[name])
                self._due_ms[name] = _next_ms(ref, now_ms)

    def _load(self, name: str, ref: plan.TableRef, *, first: bool) -> None:
        try:
            self._engine.set_table(name, load_table(ref))
        except SourceFailed as error:
            if first:
                raise
            _log.warning(
                "%s; table %s stays as it was read before", error, name,
                extra={"action": "stream.table_kept", "table": name},
            )  # fmt: skip


def _next_ms(ref: plan.TableRef, now_ms: int) -> float:
    return float("inf") if ref.reload_us is None else now_ms + ref.reload_us / 1_000
