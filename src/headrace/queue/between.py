"""What a broker asks of a store that other brokers share, for itself and not for a client: so it is not on the wire."""

from __future__ import annotations

from headrace.queue.model import HolderState
from headrace.queue.operations import Operation


class TellHolders(Operation, gc=False, frozen=True):
    """Who is present here, and who of `asked` is elsewhere. Not durable. → list[str]: those of `asked` that were heard of by
    another broker later than here.

    Attributes:
        node: the broker, a name that no other has.
        present: holders, as they are now.
        gone: those that are not here any more, and when they were last heard of here: nor are they where they were before.
        asked: names to look for, and when they were last heard of here; 0: not yet.
        all_gone: nobody is here: the broker stops.
    """

    node: str
    present: list[HolderState]
    gone: list[tuple[str, int]]
    asked: list[tuple[str, int]]
    all_gone: bool = False


class ListElsewhere(Operation, gc=False, frozen=True):
    """Those present at other brokers than `node`; `kind`: only these, empty for all.
    → list[HolderState], sorted by name, each once"""

    node: str
    kind: str
